"""Draws pictures of digits, and of things that are no digits, as people photograph, scan and draw them.

`KINDS` names the kinds of pictures. Each is a function of a `Source` that returns the picture and the text that a
person would read, with a space for a wide gap and a new line for each row; "" where there is no digit.
"""

import io
import string
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

LEAST_CONTRAST = 60
"""Of brightness between ink and paper, of 255."""
BRIGHTNESS = np.array([0.299, 0.587, 0.114])
FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts/ttf").glob("*.ttf"))
OTHER_FONTS = [path for path in FONTS if path.name.startswith(("cmr", "cmss", "cmtt", "cmti", "cmb"))]
CHOSEN_FONTS = [
    path for path in FONTS if path.name.startswith(("DejaVu", "STIXGeneral")) and "Display" not in path.name
]
LETTERS = "".join(sorted(set(string.ascii_letters) - set("OoQDIlijZzSsBbgqJTLytr")))
"""Those that are a digit in nobody's handwriting."""


class Source:
    """Digits and random numbers.

    Args:
        images: handwritten digits, uint8 (N, 28, 28).
        labels: theirs, (N,).
        fonts: files of fonts, for printed digits and letters.
        seed: of all random numbers.
    """

    def __init__(self, images: Pixels, labels: npt.NDArray[np.int64], fonts: list[Path], seed: int | list[int]) -> None:
        self.images, self.labels, self.fonts = images, labels, fonts
        self.random = np.random.default_rng(seed)

    def between(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def digit(self, height: float, angle: float = 12) -> tuple[Floats, str]:
        """A digit's ink, 0 … 1, cut to its box, about `height` pixels high; and its label."""
        number = int(self.random.integers(len(self.images)))
        return self._turned(self.images[number], height, angle), str(self.labels[number])

    def _turned(self, image: Pixels, height: float, angle: float) -> Floats:
        rows = np.flatnonzero((image > 60).any(axis=1))
        columns = np.flatnonzero((image > 60).any(axis=0))
        scale = height / max(rows[-1] - rows[0] + 1, 0.7 * (columns[-1] - columns[0] + 1))
        side = max(8, round(28 * scale))
        large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        ink = np.asarray(large.rotate(self.between(-angle, angle), Image.Resampling.BICUBIC), dtype=np.float64) / 255
        if scale > 1.5:  # a pen's edge does not get softer the larger the digit
            sharp = self.between(1, scale)
            ink = (0.5 + (ink - 0.45) * sharp).clip(0, 1)
        return cut(ink)

    def printed(self, text: str, height: float) -> Floats:
        """Text in a random font, 0 … 1, cut to its box."""
        font = ImageFont.truetype(str(self.fonts[self.random.integers(len(self.fonts))]), round(height * 1.35))
        image = Image.new("L", (round(height * (2 + len(text) * 1.4)), round(height * 3)))
        ImageDraw.Draw(image).text((height / 2, height / 2), text, fill=255, font=font)
        return cut(np.asarray(image, dtype=np.float64) / 255)

    def number(
        self, length: int, height: float, gap: tuple[float, float] = (0.12, 0.5), *, neat: bool = False
    ) -> tuple[Floats, str]:
        """Digits side by side; gaps are shares of the height."""
        parts = [self.digit(height * self.between(0.9, 1.1), 5 if neat else 12) for _ in range(length)]
        gaps = [max(2, round(height * self.between(*gap))) for _ in parts]
        tall = round(max(one.shape[0] for one, _ in parts) + 0.1 * height)
        ink = np.zeros((tall, sum(one.shape[1] for one, _ in parts) + sum(gaps[1:])))
        x = 0
        for (one, _), space in zip(parts, [*gaps[1:], 0], strict=True):
            put(ink, one, x, int(self.random.integers(0, tall - one.shape[0] + 1)))
            x += one.shape[1] + space
        return ink, "".join(label for _, label in parts)

    def colours(self, light_paper: float = 0.75) -> tuple[Floats, Floats]:
        """Ink and paper, RGB 0 … 255; the paper is the lighter one with this probability."""
        while True:
            first, second = self.random.uniform(0, 255, 3), self.random.uniform(0, 255, 3)
            difference = float((second - first) @ BRIGHTNESS)
            if abs(difference) >= LEAST_CONTRAST:
                is_light = bool(self.random.random() < light_paper)
                return (first, second) if (difference > 0) == is_light else (second, first)

    def pen_and_paper(self) -> tuple[Floats, Floats]:
        """A dark pen, and light paper with a tint."""
        pen = np.array([(25, 25, 28), (20, 35, 120), (70, 70, 75), (120, 20, 30)][self.random.integers(4)], dtype=float)
        return pen + self.random.uniform(-10, 25, 3), self.random.uniform(205, 250) + self.random.uniform(-10, 5, 3)

    def light(self, shape: tuple[int, ...], least: float, most: float) -> Floats:
        """A factor (H, W, 1) with a fall-off of light of `least` to `most` from one side or corner to the other."""
        angle, depth = self.between(0, 2 * np.pi), self.between(least, most)
        height, width = shape[:2]
        ramp = np.linspace(-0.5, 0.5, height)[:, None] * np.sin(angle) + np.linspace(-0.5, 0.5, width) * np.cos(angle)
        return np.asarray((1 - depth * (ramp - ramp.min()) / np.ptp(ramp))[..., None])

    def finished(self, canvas: Floats, fall: tuple[float, float] = (0, 0.3), noise: float = 6) -> Pixels:
        """A canvas (H, W, 3) as a camera or a scanner gives it: light, noise, JPEG."""
        canvas = canvas * self.light(canvas.shape, *fall)
        canvas += self.random.normal(0, self.between(0, noise), canvas.shape)
        return jpeg(canvas.clip(0, 255).astype(np.uint8), int(self.random.integers(50, 96)))


def cut(ink: Floats) -> Floats:
    """Without empty rows and columns around it."""
    rows, columns = np.flatnonzero((ink > 0.1).any(axis=1)), np.flatnonzero((ink > 0.1).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def put(canvas: Floats, ink: Floats, x: int, y: int) -> None:
    """Add ink to a canvas of ink; what lies outside is lost."""
    part = canvas[y : y + ink.shape[0], x : x + ink.shape[1]]
    np.maximum(part, ink[: part.shape[0], : part.shape[1]], out=part)


def coloured(ink: Floats, pen: Floats, paper: Floats) -> Floats:
    """A canvas (H, W, 3) of ink on paper."""
    return paper + ink[..., None] * (pen - paper)


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """The pixels after JPEG compression."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


Scene = Callable[[Source], tuple[Pixels, str]]


def plain(lengths: tuple[int, int]) -> Scene:
    """Digits in random colours and sizes on plain paper."""

    def draw(source: Source) -> tuple[Pixels, str]:
        height = source.between(18, 220)
        ink, text = source.number(int(source.random.integers(lengths[0], lengths[1] + 1)), height, (0.08, 0.6))
        sides = [round(side + height * source.between(0.3, 3)) for side in ink.shape]
        canvas = np.zeros(sides)
        y, x = (int(source.random.integers(0, a - b + 1)) for a, b in zip(sides, ink.shape, strict=True))
        put(canvas, ink, x, y)
        return source.finished(coloured(canvas, *source.colours()), (0, 0.45), 10), text

    return draw


def tight(side: int) -> Scene:
    """A digit that fills its picture up to the edges, or nearly, `side` pixels on its longer side."""

    def draw(source: Source) -> tuple[Pixels, str]:
        image, text = source.digit(200)
        border = round(side * source.between(0, 0.04))
        ink = resized(image, (side - 2 * border) / max(image.shape))
        canvas = coloured(np.pad(ink, border), *source.colours(0.5))
        return source.finished(canvas, (0, 0.15), 4), text

    return draw


def soft(side: int) -> Scene:
    """A digit of another source with soft grey strokes: a grid of 8 to 14 pixels, enlarged, with a margin."""

    def draw(source: Source) -> tuple[Pixels, str]:
        number = int(source.random.integers(len(source.images)))
        image = Image.fromarray(source.images[number])
        grid = int(source.random.integers(10, 17))  # of 28 × 28; the digit has 20/28 of it
        small = image.resize((grid, grid), Image.Resampling.BOX)
        large = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
        canvas = large if source.random.random() < 0.5 else 255 - large
        return canvas.clip(0, 255).astype(np.uint8), str(source.labels[number])

    return draw


def enlarged(side: int) -> Scene:
    """MNIST's own picture, enlarged; with its margin."""

    def draw(source: Source) -> tuple[Pixels, str]:
        number = int(source.random.integers(len(source.images)))
        large = Image.fromarray(source.images[number]).resize((side, side), Image.Resampling.BICUBIC)
        canvas = np.asarray(large)
        return canvas if source.random.random() < 0.5 else 255 - canvas, str(source.labels[number])

    return draw


def resized(ink: Floats, scale: float) -> Floats:
    """Ink in another size."""
    size = tuple(max(1, round(side * scale)) for side in reversed(ink.shape))
    image = Image.fromarray(ink.astype(np.float32)).resize((size[0], size[1]), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float64).clip(0, 1)


def sheet(paper_kind: str, *, table: bool) -> Scene:
    """A photo of a number on a sheet; the sheet is plain, ruled or squared, and may lie on a dark table."""

    def draw(source: Source) -> tuple[Pixels, str]:
        height = source.between(40, 130)
        ink, text = source.number(int(source.random.integers(1, 6)), height, (0.15, 0.5))
        tall, wide = (round(side + height * source.between(2, 5)) for side in ink.shape)
        pen, paper = source.pen_and_paper()
        canvas = coloured(np.zeros((tall, wide)), pen, paper)
        pitch = height * (source.between(1.1, 1.6) if paper_kind == "ruled" else source.between(0.4, 1.0))
        thickness = int(source.random.integers(1, max(2, round(height / 30)) + 1))
        lines = lines_of(paper_kind, (tall, wide), pitch, thickness, source)
        line_colour = paper * np.array(
            [(0.6, 0.75, 0.95), (0.7, 0.7, 0.7), (0.85, 0.6, 0.65)][source.random.integers(3)]
        )
        canvas += lines[..., None] * (line_colour - paper)
        map_of_ink = np.zeros((tall, wide))
        y = int(source.between(0.2, 0.8) * (tall - ink.shape[0]))
        x = int(source.between(0.2, 0.8) * (wide - ink.shape[1]))
        put(map_of_ink, ink, x, y)
        canvas += map_of_ink[..., None] * (pen - canvas)
        turn = source.between(-5, 5)
        if table:
            wood = source.random.uniform(20, 90, 3)
            margin = round(source.between(0.08, 0.25) * max(tall, wide))
            grain = source.random.normal(0, 1, (tall + 2 * margin, 1, 1)) * source.between(0, 8)
            outside = np.full((tall + 2 * margin, wide + 2 * margin, 3), wood) + grain
            outside = _rotated_onto(outside, canvas, turn, margin)
            return source.finished(outside, (0.35, 0.6), 5), text
        side = ndimage.rotate(canvas, turn, reshape=False, order=1, mode="nearest")
        trim = round(abs(np.sin(np.deg2rad(turn))) * max(tall, wide) / 2)
        side = side[trim : tall - trim or None, trim : wide - trim or None]
        side = side if min(side.shape[:2]) > 1.5 * height else canvas
        return source.finished(side, (0, 0.35), 6), text

    return draw


def _rotated_onto(table: Floats, page: Floats, angle: float, margin: int) -> Floats:
    tall, wide = page.shape[:2]
    layers = np.concatenate([page, np.full((tall, wide, 1), 255.0)], axis=2)
    layers = np.pad(layers, ((margin, margin), (margin, margin), (0, 0)))
    layers = ndimage.rotate(layers, angle, axes=(0, 1), reshape=False, order=1)
    share = layers[..., 3:] / 255
    return np.asarray(table * (1 - share) + layers[..., :3])


def lines_of(kind: str, shape: tuple[int, int], pitch: float, thickness: int, source: Source) -> Floats:
    """1 on the printed lines of the paper."""
    lines = np.zeros(shape)
    start = source.between(0, pitch)
    for axis, length in enumerate(shape):
        if kind == "squared" or (kind == "ruled" and axis == 0):
            for place in np.arange(start, length, pitch).astype(int):
                index = (slice(place, place + thickness), slice(None))
                lines[index if axis == 0 else index[::-1]] = 1
    return lines


def boxes(rows: tuple[int, int], columns: tuple[int, int]) -> Scene:
    """A table of boxes with a digit in each."""

    def draw(source: Source) -> tuple[Pixels, str]:
        across = int(source.random.integers(columns[0], columns[1] + 1))
        down = int(source.random.integers(rows[0], rows[1] + 1))
        cell = round(source.between(50, 110))
        margin = round(source.between(0.1, 1.0) * cell)
        line = int(source.random.integers(1, 4))
        ink = np.zeros((down * cell + 2 * margin + line, across * cell + 2 * margin + line))
        lines, text = np.zeros_like(ink), []
        for row in range(down):
            for column in range(across):
                one, label = source.digit(cell * source.between(0.45, 0.7))
                room = [cell - line - side for side in one.shape]
                y, x = (margin + line + int(max(0, space) * source.between(0.2, 0.8)) for space in room)
                put(ink, one[: cell - line, : cell - line], x + column * cell, y + row * cell)
                text.append(label)
            text.append("\n")
        for axis, count in enumerate((down, across)):
            for number in range(count + 1):
                strip = slice(margin + number * cell, margin + number * cell + line)
                along = slice(margin, margin + (across, down)[axis] * cell + line)
                lines[(strip, along) if axis == 0 else (along, strip)] = 1
        pen, paper = source.pen_and_paper()
        canvas = coloured(np.maximum(lines * source.between(0.3, 1), ink), pen, paper)
        turn = source.between(-1.5, 1.5)
        canvas = ndimage.rotate(canvas, turn, reshape=False, order=1, mode="nearest")
        return source.finished(canvas, (0, 0.3), 5), "".join(text).strip()

    return draw


def page_of_grid(source: Source) -> tuple[Pixels, str]:
    """A scan of a whole page of squared paper with several numbers on it."""
    tall, wide = 1400, 1000
    pitch, thickness = source.between(22, 36), int(source.random.integers(1, 3))
    lines = lines_of("squared", (tall, wide), pitch, thickness, source)
    ink, text, y = np.zeros((tall, wide)), [], round(source.between(60, 300))
    for _ in range(int(source.random.integers(1, 5))):
        number, label = source.number(int(source.random.integers(2, 6)), pitch * source.between(1.3, 1.9), (0.2, 0.5))
        put(ink, number, round(source.between(60, wide - 60 - number.shape[1])), y)
        text.append(label)
        y += round(number.shape[0] * source.between(1.5, 3))
    pen, paper = source.pen_and_paper()
    canvas = paper + lines[..., None] * (paper * np.array([0.65, 0.78, 0.95]) - paper)
    canvas += ink[..., None] * (pen - canvas)
    turn = source.between(-1.5, 1.5)
    canvas = ndimage.rotate(canvas, turn, reshape=False, order=1, mode="nearest")
    return source.finished(canvas, (0, 0.15), 4), "\n".join(text)


def joined(source: Source, count: int, height: float) -> tuple[Floats, str]:
    """The ink of digits that overlap a little, and the text."""
    parts = [source.digit(height * source.between(0.9, 1.1)) for _ in range(count)]
    tall = max(one.shape[0] for one, _ in parts) + 4
    ink = parts[0][0]
    ink = np.pad(ink, ((0, tall - ink.shape[0]), (0, 0)))
    for one, _ in parts[1:]:
        top = int(source.random.integers(0, tall - one.shape[0] + 1))
        padded = np.pad(one, ((top, tall - one.shape[0] - top), (0, 0)))
        steps = range(1, min(ink.shape[1], one.shape[1]))
        shared = [np.count_nonzero((ink[:, -step:] > 0.5) & (padded[:, :step] > 0.5)) for step in steps]
        overlap = 1 + int(np.argmax(np.array(shared) > 3 * height / 40))
        both = np.zeros((tall, ink.shape[1] + one.shape[1] - overlap))
        put(both, ink, 0, 0)
        put(both, padded, ink.shape[1] - overlap, 0)
        ink = both
    return cut(ink), "".join(label for _, label in parts)


def touching(source: Source) -> tuple[Pixels, str]:
    """Two or three digits that overlap a little."""
    height = source.between(40, 150)
    ink, text = joined(source, int(source.random.integers(2, 4)), height)
    canvas = np.pad(ink, round(height * source.between(0.3, 1)))
    return source.finished(coloured(canvas, *source.pen_and_paper())), text


def rows_of_numbers(source: Source) -> tuple[Pixels, str]:
    """Several rows, slightly slanted, of numbers."""
    height = source.between(30, 70)
    rows = [source.number(int(source.random.integers(2, 7)), height) for _ in range(int(source.random.integers(2, 5)))]
    pitch = height * source.between(1.35, 2)
    slope = source.between(-0.05, 0.05)
    wide = max(ink.shape[1] for ink, _ in rows)
    canvas = np.zeros((round(pitch * len(rows) + height * 1.2), wide + round(height * 3)))
    for row, (ink, _) in enumerate(rows):
        put(canvas, ink, round(height * source.between(0.4, 1.4)), round(height * 0.4 + row * pitch))
    turned = ndimage.rotate(canvas, np.rad2deg(slope), order=1, reshape=True)
    return source.finished(coloured(turned.clip(0, 1), *source.pen_and_paper())), "\n".join(text for _, text in rows)


def wide_gaps(source: Source) -> tuple[Pixels, str]:
    """Numbers in one row, with gaps of more than a digit's height between them."""
    height = source.between(30, 90)
    count = int(source.random.integers(2, 4))
    numbers = [source.number(int(source.random.integers(1, 4)), height, (0.1, 0.35)) for _ in range(count)]
    gaps = [round(height * source.between(1.2, 2.5)) for _ in numbers]
    tall = max(ink.shape[0] for ink, _ in numbers)
    ink = np.zeros((tall, sum(one.shape[1] for one, _ in numbers) + sum(gaps[1:])))
    x = 0
    for (one, _), gap in zip(numbers, [*gaps[1:], 0], strict=True):
        put(ink, one, x, (tall - one.shape[0]) // 2)
        x += one.shape[1] + gap
    canvas = np.pad(ink, round(height * source.between(0.5, 1)))
    return source.finished(coloured(canvas, *source.pen_and_paper())), " ".join(text for _, text in numbers)


def printed(source: Source) -> tuple[Pixels, str]:
    """A printed number."""
    text = "".join(str(digit) for digit in source.random.integers(0, 10, int(source.random.integers(1, 7))))
    ink = source.printed(text, source.between(25, 120))
    canvas = np.pad(ink, round(ink.shape[0] * source.between(0.3, 1)))
    return source.finished(coloured(canvas, *source.pen_and_paper())), text


def letter(source: Source) -> tuple[Pixels, str]:
    """One letter that is no digit in any handwriting, printed, slanted and bent."""
    ink = bent(source.printed(LETTERS[source.random.integers(len(LETTERS))], source.between(40, 150)), source)
    canvas = np.pad(ink, round(max(ink.shape) * source.between(0.3, 1)))
    return source.finished(coloured(canvas, *source.pen_and_paper())), ""


def bent(ink: Floats, source: Source) -> Floats:
    """Sheared, rotated and bent a little, as by a hand."""
    ink = np.pad(ink, max(4, round(0.25 * max(ink.shape))))
    height, width = ink.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    shear = source.between(-0.25, 0.25)
    waves = [ndimage.gaussian_filter(source.random.normal(0, 1, ink.shape), 0.15 * height) for _ in range(2)]
    waves = [wave / (np.abs(wave).max() or 1) * source.between(0, 0.06) * height for wave in waves]
    places = [y + waves[0], x + shear * (y - height / 2) + waves[1]]
    turned = ndimage.rotate(
        ndimage.map_coordinates(ink, places, order=1), source.between(-10, 10), reshape=False, order=1
    )
    return cut(turned.clip(0, 1))


def rulings(source: Source) -> tuple[Pixels, str]:
    """Empty ruled or squared paper, or an empty table; or one line."""
    tall, wide = (int(source.between(150, 600)) for _ in range(2))
    kind = ("squared", "ruled", "line", "boxes")[source.random.integers(4)]
    pitch = source.between(25, 80)
    if kind == "line":
        image = Image.new("L", (wide, tall))
        ends = [(source.between(0, wide), source.between(0, tall)) for _ in range(2)]
        across, down = abs(ends[0][0] - ends[1][0]), abs(ends[0][1] - ends[1][1])
        if across < max(0.4 * wide, down):  # short, or so steep that it may be a 1
            ends = [(0.1 * wide, 0.5 * tall), (0.9 * wide, 0.55 * tall)]
        ImageDraw.Draw(image).line(ends, fill=255, width=int(source.random.integers(2, 6)))
        lines = np.asarray(image, dtype=np.float64) / 255
    else:
        paper_kind = "squared" if kind == "boxes" else kind
        lines = lines_of(paper_kind, (tall, wide), pitch, int(source.random.integers(1, 4)), source)
        lines = np.pad(lines, 30) if kind == "boxes" else lines
    canvas = coloured(lines * source.between(0.3, 1), *source.pen_and_paper())
    canvas = ndimage.rotate(canvas, source.between(-3, 3), reshape=False, order=1, mode="nearest")
    return source.finished(canvas), ""


def scribbled(source: Source) -> Floats:
    """The ink of a blot or a scribble, cut to its box."""
    side = int(source.between(100, 300))
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    if source.random.random() < 0.33:
        angles, radii = np.linspace(0, 2 * np.pi, 12), source.random.uniform(0.3, 0.7, 12) * side / 2
        edge = np.stack([side / 2 + radii * np.cos(angles), side / 2 + radii * np.sin(angles)], axis=1)
        draw.polygon([(float(x), float(y)) for x, y in edge], fill=255)
    else:
        ends = source.random.uniform(0.15 * side, 0.85 * side, (int(source.random.integers(8, 20)), 2))
        draw.line([(float(x), float(y)) for x, y in ends], fill=255, width=max(2, side // 40), joint="curve")
    return cut(np.asarray(image.filter(ImageFilter.GaussianBlur(1)), dtype=np.float64) / 255)


def blot(source: Source) -> tuple[Pixels, str]:
    """A blot or a scribble."""
    ink = scribbled(source)
    canvas = np.pad(ink, round(max(ink.shape) * source.between(0.2, 0.6)))
    return source.finished(coloured(canvas, *source.pen_and_paper())), ""


def blank(source: Source) -> tuple[Pixels, str]:
    """Empty paper, evenly lit or not, with the noise of a camera."""
    tall, wide = (int(source.between(28, 700)) for _ in range(2))
    _, paper = source.colours()
    canvas = np.full((tall, wide, 3), paper)
    return source.finished(canvas, (0, 0.6), 10), ""


KINDS: dict[str, Scene] = {
    "single": plain((1, 1)),
    "number": plain((2, 5)),
    "printed": printed,
    "tight 64": tight(64),
    "tight 128": tight(128),
    "enlarged 64": enlarged(64),
    "enlarged 128": enlarged(128),
    "soft 64": soft(64),
    "soft 128": soft(128),
    "sheet on table": sheet("plain", table=True),
    "ruled on table": sheet("ruled", table=True),
    "ruled": sheet("ruled", table=False),
    "squared": sheet("squared", table=False),
    "boxes": boxes((1, 1), (3, 8)),
    "table 5x10": boxes((5, 5), (10, 10)),
    "page of grid": page_of_grid,
    "touching": touching,
    "rows": rows_of_numbers,
    "wide gaps": wide_gaps,
    "letters": letter,
    "rulings": rulings,
    "blots": blot,
    "blank": blank,
}
