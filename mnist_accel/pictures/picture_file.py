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
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

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
ORIENTATION = 0x0112  # the EXIF tag


class PictureError(UserError):
    """A picture that is missing, damaged, too large, or not a picture."""


class NothingFoundError(PictureError):
    """A picture without a mark that may be a digit."""


@dataclass(frozen=True)
class Picture:
    """An upright picture."""

    pixels: npt.NDArray[np.uint8]  # (H, W) or (H, W, 3), reduced to `LARGEST_SIDE`
    size: tuple[int, int]  # width and height before the picture was reduced


def find(names: Sequence[str]) -> list[str]:
    """The pictures for file names, folders and patterns such as "*.png"; a name without a picture stays for `read`."""
    found: list[str] = []
    for name in names:
        inside: list[str] = []
        with contextlib.suppress(OSError, ValueError):  # reading the name reports it
            if os.path.isdir(name):  # noqa: PTH112 Path.is_dir raises an error for a name that is too long
                inside = _in_folder(name)
            elif _is_pattern(name):
                files = glob.glob(name, recursive=True, include_hidden=True)  # noqa: PTH207 takes any pattern
                inside = sorted(str(Path(file)) for file in files if os.path.isfile(file))  # noqa: PTH113 as above
        found += inside or [name]
    return found


def _in_folder(folder: str) -> list[str]:
    return sorted(str(file) for file in Path(folder).iterdir() if file.suffix.lower() in SUFFIXES)


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not os.path.lexists(name)


def read(name: str) -> Picture:
    """The picture in a file, or on stdin for `-`. Raises PictureError if it cannot be read, or is too large."""
    if name == STDIN:
        return decode(_stdin())
    try:
        if os.path.isdir(name) and not _in_folder(name):  # noqa: PTH112 as above
            raise PictureError("a folder without pictures", f"pictures end in {', '.join(sorted(SUFFIXES))}")
        return decode(read_limited(Path(name), LARGEST_FILE))
    except OSError as error:
        if name.lower().startswith(("http://", "https://", "ftp://")):
            raise PictureError("a web address, not a file", "download the picture first") from error
        if _is_pattern(name):
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
    orientation = image.getexif().get(ORIENTATION, 1)  # after loading, because loading a TIFF turns it upright
    image = _eight_bits(image)
    longest = max(image.size)
    if longest > LARGEST_SIDE:
        reduced = tuple(max(SMALLEST_SIDE, round(side * LARGEST_SIDE / longest)) for side in image.size)
        image = image.resize((reduced[0], reduced[1]), Image.Resampling.BOX)
    pixels = np.asarray(image)
    if is_turned := orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return Picture(np.ascontiguousarray(pixels), (height, width) if is_turned else (width, height))


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png_url(image: Image.Image) -> str:
    """The image as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image as 8 bits of grey or RGB. Pixels of 16 or 32 bits are scaled by the range that they use.

    A transparent picture is on white paper; on black paper if the drawing is light: brighter than 160 of 255.
    """
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
