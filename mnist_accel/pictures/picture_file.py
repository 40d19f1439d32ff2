"""Picture files of any kind as upright arrays: read with limits, and every failure told in one line."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_accel.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Source = Image.Image | npt.NDArray[np.uint8]

STDIN = "-"
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".avif")
)
"""Of the files taken from a folder; a file that is named itself may be called anything."""
LARGEST_FILE = 256 * 2**20
LARGEST_PIXELS = 120_000_000
"""Checked before decoding. A phone's largest photo has 108 million."""
LARGEST_SIDE = 1600
"""Pixels; larger pictures are reduced to it. A digit on a page of A4 then still has about 20."""
SMALLEST_SIDE = 4
LIGHT = 160
"""What is drawn on transparent paper is light from here, of 255."""
ORIENTATION = 0x0112
"""The EXIF tag."""
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""Pillow's operation that makes a picture of this orientation upright."""


class PictureError(UserError):
    """A picture that is missing, damaged, too large, or not one."""


@dataclass(frozen=True)
class Picture:
    """Upright pixels, reduced to `LARGEST_SIDE`.

    Attributes:
        pixels: uint8 (H, W) or (H, W, 3).
        size: width and height of the upright picture before it was reduced.
    """

    pixels: npt.NDArray[np.uint8]
    size: tuple[int, int]


def find(names: Sequence[str]) -> list[str]:
    """The pictures that arguments mean: files and `-` as they are, folders and globs by the pictures in them.

    What is not there stays in the list, so that reading it tells the error beside the others' results.
    """
    found: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            found += inside or [name]
        elif name != STDIN and not path.exists() and any(mark in name for mark in "*?["):
            pattern = path.relative_to(path.anchor) if path.anchor else path
            found += sorted(str(file) for file in Path(path.anchor).glob(str(pattern)) if file.is_file()) or [name]
        else:
            found.append(name)
    return found


def read(name: str) -> Picture:
    """The picture in a file, or on stdin for `-`.

    Raises:
        PictureError: it cannot be read, or is too large.
    """
    if name == STDIN:
        import sys

        content = sys.stdin.buffer.read(LARGEST_FILE + 1)
    else:
        path = Path(name)
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                raise PictureError("a folder without pictures", f"pictures end in {', '.join(sorted(SUFFIXES))}")
            if not stat.S_ISREG(status.st_mode):
                raise PictureError("not a file")
            if status.st_size > LARGEST_FILE:
                raise _too_large()
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PictureError(f"cannot be read: {reason[0].lower()}{reason[1:]}") from error
    return decode(content)


def decode(content: bytes) -> Picture:
    """The picture in the bytes of a file.

    Raises:
        PictureError: they are none, damaged, or too large when decoded.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise PictureError("empty: 0 bytes")
    if len(content) > LARGEST_FILE:
        raise _too_large()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warning below its own limit of pixels; doubtful metadata
            with Image.open(io.BytesIO(content)) as image:
                return from_image(image)
    except UnidentifiedImageError as error:
        raise PictureError("not a picture, or of a kind that Pillow cannot read", "save it as PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels() from error
    except MemoryError as error:
        raise PictureError("needs more memory than there is", "reduce it") from error
    except PictureError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"damaged: {reason}", "save or copy it again") from error


def from_image(image: Image.Image) -> Picture:
    """A Pillow image, not yet decoded or already, as upright pixels; the first frame of several.

    Raises:
        PictureError: it is too large or too small.
    """
    import numpy as np
    from PIL import Image

    width, height = image.size
    if width * height > LARGEST_PIXELS:
        raise _too_many_pixels(f"{width} × {height}: ")
    if min(width, height) < SMALLEST_SIDE:
        raise PictureError(f"only {width} × {height} pixels, too few for a digit")
    if image.format == "EPS":
        raise PictureError("EPS is a program, which is not run here", "save it as PNG")
    if image.format == "JPEG":
        image.draft(None, (LARGEST_SIDE, LARGEST_SIDE))  # decodes large ones at a half, a quarter or an eighth
    image.load()
    orientation = image.getexif().get(ORIENTATION, 1)  # after loading: a TIFF is turned by it

    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _eight_bits(image)
    elif image.has_transparency_data:
        image = _on_opaque_paper(image.convert("RGBA"))
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    longest = max(image.size)
    if longest > LARGEST_SIDE:
        reduced = tuple(max(SMALLEST_SIDE, round(side * LARGEST_SIDE / longest)) for side in image.size)
        image = image.resize((reduced[0], reduced[1]), Image.Resampling.BOX)
    if orientation in UPRIGHT:
        image = image.transpose(Image.Transpose[UPRIGHT[orientation]])
    turned = orientation in (5, 6, 7, 8)
    return Picture(np.asarray(image), (height, width) if turned else (width, height))


def _too_large() -> PictureError:
    return PictureError(f"larger than {LARGEST_FILE // 2**20} MiB", "reduce it")


def _too_many_pixels(size: str = "") -> PictureError:
    return PictureError(f"{size}more than {LARGEST_PIXELS // 10**6} million pixels, not decoded", "reduce it")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pixels of 16 or 32 bits by the range that they use, for little of it may be used."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    lowest, highest = float(values.min()), float(values.max())
    scaled = (values - lowest) * (255 / (highest - lowest)) if highest > lowest else np.zeros_like(values)
    return Image.fromarray(scaled.round().astype(np.uint8))


def _on_opaque_paper(image: Image.Image) -> Image.Image:
    """A transparent picture on white; on black where what is drawn is light."""
    import numpy as np
    from PIL import Image

    alpha = np.asarray(image.getchannel("A"), dtype=np.float32)
    light = np.asarray(image.convert("RGB").convert("L"), dtype=np.float32)
    is_light = float((light * alpha).sum()) > LIGHT * float(alpha.sum())
    paper = Image.new("RGBA", image.size, (0, 0, 0, 255) if is_light else (255, 255, 255, 255))
    return Image.alpha_composite(paper, image).convert("RGB")
