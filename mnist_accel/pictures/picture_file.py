"""Reads picture files of any kind safely, as upright arrays of 8 bits."""

import base64
import contextlib
import functools
import glob
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from mnist_accel.errors import UserError, printable
from mnist_accel.files.untrusted import read_limited

STDIN = "-"
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".avif")
)
"""The files of a folder that are pictures; a file given by its own name may have any suffix."""
LARGEST_FILE = 256 * 2**20
LARGEST_PIXELS = 120_000_000  # checked before decoding. A phone's largest photo has 108 million.
LARGEST_SIDE = 1600  # pixels; larger pictures are reduced to it. A digit on a page of A4 then still has about 20.
SMALLEST_SIDE = 4
TOO_MANY = f"more than {LARGEST_PIXELS // 10**6} million pixels, not decoded"


class PictureError(UserError):
    """A picture that is missing, damaged, too large, or not a picture."""


class Picture(NamedTuple):
    """An upright picture."""

    pixels: npt.NDArray[np.uint8]  # (H, W) or (H, W, 3), reduced to `LARGEST_SIDE`
    size: tuple[int, int]  # width and height before the picture was reduced


def find(names: Sequence[str]) -> list[str]:
    """The pictures for file names, folders and patterns such as "*.png"; a name without a picture stays for `read`."""
    found: list[str] = []
    for name in names:
        inside: list[Path] = []
        with contextlib.suppress(OSError, ValueError):  # reading the name reports it
            if os.path.isdir(name):  # noqa: PTH112 Path.is_dir raises an error for a name that is too long
                inside = [file for file in Path(name).iterdir() if file.suffix.lower() in SUFFIXES]
            elif not os.path.lexists(name):
                matches = glob.glob(name, recursive=True, include_hidden=True)  # noqa: PTH207 takes any pattern
                inside = [Path(match) for match in matches if os.path.isfile(match)]  # noqa: PTH113 as above
        found += sorted(map(str, inside)) or [name]
    return found


def read(name: str) -> Picture:
    """The picture in a file, or on stdin for `-`. Raises PictureError if it cannot be read, or is too large."""
    if name == STDIN:
        return decode(_stdin())
    try:
        return decode(read_limited(Path(name), LARGEST_FILE))
    except IsADirectoryError as error:  # `find` takes the pictures of a folder
        raise PictureError("a folder without pictures", f"pictures end in {', '.join(sorted(SUFFIXES))}") from error
    except OSError as error:
        if name.lower().startswith(("http://", "https://", "ftp://")):
            raise PictureError("a web address, not a file", "download the picture first") from error
        if glob.has_magic(name) and not os.path.lexists(name):
            raise PictureError("no file matches this pattern", "check the folder and the spelling") from error
        reason = printable(error.strerror or error)
        raise PictureError(f"cannot be read: {reason[0].lower()}{reason[1:]}") from error


@functools.cache
def _stdin() -> bytes:
    """What stdin holds; it can be read only once."""
    return sys.stdin.buffer.read(LARGEST_FILE + 1)


def decode(content: bytes) -> Picture:
    """The picture in the bytes of a file. Raises PictureError if they are none, damaged, or a picture too large."""
    if not content:
        raise PictureError("empty: 0 bytes")
    if len(content) > LARGEST_FILE:
        raise PictureError(f"larger than {LARGEST_FILE // 2**20} MiB", "reduce it")
    try:
        # Pillow warns of large pictures below its own limit and of odd metadata.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
            return from_image(image)
    except UnidentifiedImageError as error:
        raise PictureError("not a picture, or of a kind that Pillow cannot read", "save it as PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise PictureError(TOO_MANY, "reduce it") from error
    except PictureError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds on damaged files
        raise PictureError(f"damaged: {printable(error) or type(error).__name__}", "save or copy it again") from error


def from_image(image: Image.Image) -> Picture:
    """The first frame of a Pillow image, decoded or not. Raises PictureError if it is too large or too small."""
    width, height = image.size
    if width * height > LARGEST_PIXELS:
        raise PictureError(f"{width} × {height}: {TOO_MANY}", "reduce it")
    if min(width, height) < SMALLEST_SIDE:
        raise PictureError(f"only {width} × {height} pixels, too few for a digit")
    if image.format == "EPS":
        raise PictureError("EPS is a program, which is not run here", "save it as PNG")
    if image.format == "JPEG":
        image.draft(None, (LARGEST_SIDE, LARGEST_SIDE))  # decodes a large one at a half, a quarter or an eighth
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)  # after loading, which turns a TIFF upright
    image = _eight_bits(image)
    if (longest := max(image.size)) > LARGEST_SIDE:
        reduced = [max(SMALLEST_SIDE, round(side * LARGEST_SIDE / longest)) for side in image.size]
        image = image.resize(reduced, Image.Resampling.BOX)
    pixels = np.asarray(image)
    if orientation in (2, 4, 5, 7):
        pixels = np.fliplr(pixels)
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)  # by 90° counterclockwise, after mirroring
    size = (height, width) if turns % 2 else (width, height)
    return Picture(np.ascontiguousarray(np.rot90(pixels, turns)), size)


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png_url(pixels: npt.NDArray[np.uint8]) -> str:
    """A grey image (H, W) as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png(Image.fromarray(pixels))).decode()


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image as 8 bits of grey or RGB, on paper if transparent. 16 or 32 bits are scaled by the range in use."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        return Image.fromarray(np.asarray(cv2.normalize(values, values, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)))
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    image = image.convert("RGBA")
    alpha = np.asarray(image.getchannel("A"), dtype=np.float32)
    light = np.asarray(image.convert("RGB").convert("L"), dtype=np.float32)
    is_light = float((light * alpha).sum()) > 160 * float(alpha.sum())
    paper = Image.new("RGBA", image.size, "black" if is_light else "white")
    return Image.alpha_composite(paper, image).convert("RGB")
