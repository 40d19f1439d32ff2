"""`predict` on pictures of all kinds. Most digits are drawn with pens: users' pictures do not look like MNIST's."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageDraw
from rich.console import Console

from mnist_accel import TrainConfig, train
from mnist_accel import predict as predict_function
from mnist_accel.data import datasets as data
from mnist_accel.data.digits import Digits
from mnist_accel.errors import UserError
from mnist_accel.models import classifier
from mnist_accel.models.classifier import Classifier
from mnist_accel.pictures import mnist_form, picture_file
from mnist_accel.pictures import predict as prediction
from mnist_accel.pictures.picture_file import PictureError
from mnist_accel.pictures.predict import Digit, PictureResult, read_character
from mnist_accel.reports import predictions_table
from tests.conftest import SMALL_MNIST, Run, clean_environment

STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "1": [[(0.3, 0), (0.3, 1)]],
    "4": [[(0.05, 0), (0.05, 0.55), (0.6, 0.55)], [(0.45, 0.1), (0.45, 1)]],
    "7": [[(0, 0), (0.6, 0), (0.2, 1)]],
}
"""Corners of each stroke; a digit is 1 high and 0.6 wide."""
Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train(TrainConfig(dataset=SMALL_MNIST, epochs=3, output_dir=folder))
    return folder / "mnist_cnn_model.pth"


@pytest.fixture(scope="module")
def model(weights: Path) -> Classifier:
    return classifier.load(weights)


def write(
    text: str,
    *,
    size: tuple[int, int] = (240, 200),
    height: int = 120,
    pen: int = 9,
    ink: int = 30,
    paper: int = 225,
    start: tuple[int, int] = (60, 40),
) -> Image.Image:
    """Digits side by side on plain paper."""
    image = Image.new("L", size, paper)
    draw_on = ImageDraw.Draw(image)
    for position, digit in enumerate(text):
        left = start[0] + position * height * 0.95
        for stroke in STROKES[digit]:
            points = [(left + x * height, start[1] + y * height) for x, y in stroke]
            draw_on.line(points, fill=ink, width=pen, joint="curve")
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read_picture(source: Pixels | Image.Image, model: Classifier) -> prediction.PictureResult:
    [result] = prediction.read_pictures([as_picture(source)], model)
    return result


def as_picture(source: Pixels | Image.Image) -> picture_file.Picture:
    return picture_file.from_image(source if isinstance(source, Image.Image) else Image.fromarray(source))


@pytest.mark.parametrize("size", [(4000, 8), (8, 4000)])
def test_a_narrow_strip_is_read_without_an_error(size: tuple[int, int], model: Classifier) -> None:
    strip = Image.new("L", size, 255)
    ImageDraw.Draw(strip).rectangle((2, 2, 5, 5), 0)
    assert not read_picture(strip, model).error


def texts(model: Classifier, *images: Image.Image) -> list[str]:
    return [result.text for result in prediction.read_pictures(list(map(as_picture, images)), model)]


@pytest.fixture
def digits() -> Digits:
    return data.load(SMALL_MNIST, Path("data"), print).test


def test_pictures_in_mnists_form_are_used_unchanged(model: Classifier, digits: Digits) -> None:
    found = prediction.read_pictures(list(map(as_picture, digits.images)), model)
    pairs = zip(found, digits.images, strict=True)
    assert all(np.array_equal(result.digits[0].image, image) for result, image in pairs)  # also with ink at the edge


def test_inverted_enlarged_and_moved_digits_are_read_like_the_originals(model: Classifier, digits: Digits) -> None:
    images, labels = digits.images[::5], digits.labels[::5]
    expected = model.probabilities(images).argmax(axis=1)
    assert (expected == labels).mean() > 0.9
    changed = []
    for image in images:
        large = np.asarray(Image.fromarray(image).resize((84, 84), Image.Resampling.BICUBIC))
        changed.append(240 - np.pad(large, ((0, 90), (70, 20))) // 2)
    found = list(prediction.read_pictures(list(map(as_picture, changed)), model))
    assert all(len(result.digits) == 1 for result in found)
    assert np.mean([result.text == str(label) for result, label in zip(found, expected, strict=True)]) > 0.97


@pytest.mark.parametrize("pen", [1, 4, 9, 18])
@pytest.mark.parametrize("text", ["7", "417"])
def test_strokes_of_any_width_are_redrawn_with_mnists_width(model: Classifier, text: str, pen: int) -> None:
    result = read_picture(write(text, size=(500, 220), pen=pen), model)
    assert result.text == text
    for digit in result.digits:
        assert 1.2 < mnist_form.stroke_width(digit.image >= 128) < 4.5
        rows, columns = np.nonzero(digit.image >= 64)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)


def shadowed(image: Image.Image) -> Pixels:
    light = np.ones((image.height, image.width))
    light[:, image.width // 2 :] = 0.5
    ramp = np.linspace(1, 0.6, image.height)[:, None]
    return (np.asarray(image) * light * ramp).astype(np.uint8)


def colourful(image: Image.Image) -> Pixels:
    """Red on green of the same brightness."""
    is_ink = np.asarray(image)[..., None] < 128
    pixels: Pixels = np.where(is_ink, (200, 40, 40), (40, 122, 40)).astype(np.uint8)
    return pixels


def on_a_dark_table(image: Image.Image) -> Pixels:
    """A sheet that is turned by 8°, so that the rectangle around it has corners of the table."""
    sheet = image.resize((1000, 440)).rotate(8, expand=True, fillcolor=35)
    return np.pad(np.asarray(sheet), 60, constant_values=35)


@pytest.mark.parametrize(
    "change",
    [np.asarray, lambda image: 255 - np.asarray(image), shadowed, colourful, on_a_dark_table],
    ids=["plain", "white on black", "shadow", "equally bright colours", "dark table"],
)
def test_light_and_colours_do_not_matter(model: Classifier, change: Callable[[Image.Image], Pixels]) -> None:
    result = read_picture(change(write("417", size=(500, 220))), model)
    assert result.text == "417"


def test_boxes_are_in_pixels_of_the_whole_picture_also_of_a_large_one(model: Classifier) -> None:
    image = write("7", size=(4000, 3000), height=1000, pen=60, start=(2500, 800))
    digit = read_picture(image, model).digits[0]
    assert digit.label == "7"
    assert np.allclose(digit.box, (2500, 770, 3130, 1800), atol=40)


def test_lines_boxes_and_dirt_do_not_become_digits(model: Classifier) -> None:
    pictures = [write("417", size=(600, 300), pen=8, start=(120, 90)) for _ in range(5)]
    ruled, form, dirty, underlined, divided = pictures
    for y in range(25, 300, 45):
        ImageDraw.Draw(ruled).line((0, y, 600, y + 9), fill=90, width=2)
    for left in (105, 219, 333):
        ImageDraw.Draw(form).rectangle((left, 70, left + 104, 230), outline=60, width=2)
    for x, y in ((20, 30), (580, 20), (215, 190), (560, 270)):
        ImageDraw.Draw(dirty).ellipse((x, y, x + 6, y + 6), fill=60)
    ImageDraw.Draw(underlined).line((60, 240, 540, 240), fill=40, width=4)
    ImageDraw.Draw(divided).line((540, 20, 536, 285), fill=40, width=4)
    assert texts(model, *pictures) == ["417"] * 5


def test_the_lines_of_a_row_of_boxes_do_not_become_digits_in_a_low_picture_either(model: Classifier) -> None:
    row = write("4174", size=(420, 84), height=40, pen=4, start=(30, 24))
    for x in range(14, 380, 90):  # printed so faintly that the corners are missing
        ImageDraw.Draw(row).line((x, 18, x, 66), fill=100)
    for y in (12, 72):
        ImageDraw.Draw(row).line((20, y, 368, y), fill=100)
    assert texts(model, row) == ["4174"]


def test_the_top_of_a_digit_near_a_line_stays(model: Classifier) -> None:
    table = write("7777", size=(560, 260), height=70, pen=5, start=(60, 60))
    table.paste(write("7777", size=(560, 100), height=70, pen=5, start=(60, 10)), (0, 155))
    for y in (50, 150, 245):  # 4 pixels above the digits' tops
        ImageDraw.Draw(table).line((20, y, 540, y + 4), fill=60, width=3)
    result = read_picture(table, model)
    assert result.text == "7777" * 2
    assert not any(digit.box[1] - top > 6 for digit, top in zip(result.digits, [58] * 4 + [163] * 4, strict=True))


def test_strokes_that_do_not_touch_stay_one_digit(model: Classifier) -> None:
    image = write("7", pen=9)
    ImageDraw.Draw(image).rectangle((60, 54, 135, 62), fill=225)  # separates the bar from the stem
    result = read_picture(image, model)
    assert len(result.digits) == 1
    assert result.digits[0].box[1] < 45


def test_several_rows_are_read_from_top_to_bottom(model: Classifier) -> None:
    image = write("41", size=(400, 420))
    image.paste(write("77", size=(400, 200), start=(60, 20)), (0, 220))
    assert texts(model, image) == ["4177"]


@pytest.mark.parametrize(
    ("starts", "lines"),
    [
        ((0, 30, 100, 130), ["47 47"]),  # two numbers
        ((0, 60, 120), ["4 7 4"]),  # three numbers, or a few boxes
        ((0, 60, 125, 175, 240, 300), ["474747"]),  # the boxes of a form
        ((0, 30, 60, 130, 160, 190), ["474 747"]),
    ],
)
def test_the_writers_gaps_are_kept_but_not_those_between_boxes(starts: Sequence[int], lines: list[str]) -> None:
    image = np.zeros((28, 28), np.uint8)
    digits = [Digit("47"[at % 2], 1.0, [], (x, 0, x + 25, 30), image) for at, x in enumerate(starts)]
    assert PictureResult("", digits).lines == lines


def empty_grid() -> Image.Image:
    image = Image.new("L", (150, 580), 225)
    for x in range(20, 135, 50):
        ImageDraw.Draw(image).line((x, 20, x + 6, 560), fill=140)
    for y in range(30, 570, 55):
        ImageDraw.Draw(image).line((12, y, 138, y - 5), fill=140)
    return image


def large_blot() -> Image.Image:
    image = Image.new("L", (150, 150), 225)
    ImageDraw.Draw(image).ellipse((26, 30, 122, 126), fill=30)
    return image


def flat_line() -> Image.Image:
    """One line across a picture on which the light falls off: neither is a 1."""
    image = Image.fromarray(np.tile(np.linspace(235, 150, 170), (360, 1)).astype(np.uint8))
    ImageDraw.Draw(image).line((12, 182, 155, 197), fill=90, width=3)
    return image


@pytest.mark.parametrize("draw", [empty_grid, large_blot, flat_line])
def test_what_is_no_digit_is_doubted(draw: Callable[[], Image.Image], model: Classifier) -> None:
    result = read_picture(draw(), model)
    assert result.error or all("does not look like one digit" in digit.doubt for digit in result.digits)


def test_pictures_without_a_digit_are_reported(model: Classifier) -> None:
    random = np.random.default_rng(0)
    blank = read_picture(np.full((100, 100), 200, np.uint8), model)
    noise = read_picture(random.normal(200, 10, (300, 300)).clip(0, 255).astype(np.uint8), model)
    assert "blank" in (blank.error or "")
    assert "blank" in (noise.error or "")
    blot = Image.new("L", (200, 200), 230)
    ImageDraw.Draw(blot).rectangle((60, 60, 140, 140), fill=20)
    assert "does not look like one digit" in read_picture(blot, model).digits[0].doubt
    scribble = write("1", size=(400, 200), pen=8)
    ImageDraw.Draw(scribble).line([(40, 100), (360, 90), (200, 130)], fill=30, width=8)
    assert "does not look like one digit" in read_picture(scribble, model).digits[0].doubt


SEVEN = write("7")


def png_of_16_bits() -> bytes:
    return encoded(Image.fromarray(np.asarray(SEVEN).astype(np.uint16) * 40))


def transparent_palette() -> bytes:
    image = SEVEN.point(lambda value: 0 if value > 128 else 1).convert("P")
    image.putpalette([0, 0, 0, 20, 20, 20])  # black and nearly black: only transparency separates ink from paper
    return encoded(image, transparency=0)


@pytest.mark.parametrize(
    "content",
    [
        encoded(SEVEN.convert("CMYK"), "JPEG"),
        encoded(SEVEN.convert("P"), "GIF", save_all=True, append_images=[Image.new("P", SEVEN.size)]),
        encoded(SEVEN.convert("1")),
        encoded(SEVEN, "TIFF"),
        encoded(SEVEN.convert("LA")),
        encoded(SEVEN.convert("F"), "TIFF"),
        png_of_16_bits(),
        transparent_palette(),
    ],
    ids=["CMYK", "animated GIF", "1 bit", "TIFF", "LA", "float", "16 bit", "transparent palette"],
)
def test_files_of_all_kinds_are_read(model: Classifier, content: bytes) -> None:
    assert read_picture(picture_file.decode(content).pixels, model).text == "7"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_pictures_are_turned_upright_by_their_exif_data(orientation: int, kind: str) -> None:
    stored = np.full((40, 60), 255, np.uint8)
    stored[:8, :8] = 0  # the stored top left corner
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    found = picture_file.decode(encoded(Image.fromarray(stored), kind, exif=exif))
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert found.pixels[corners[orientation]] < 60
    assert found.size == ((60, 40) if orientation < 5 else (40, 60))
    assert found.pixels.shape == found.size[::-1]


def bomb() -> bytes:
    """A PNG that says it has 50,000 × 50,000 pixels."""
    content = bytearray(encoded(Image.new("L", (8, 8))))
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not a picture\n" * 100, "not a picture"),
        (encoded(SEVEN)[:300], "damaged"),
        (encoded(SEVEN, "JPEG")[:900], "damaged"),
        (encoded(Image.new("L", (1, 1))), "only 1 × 1 pixels"),
        (bomb(), "not decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n", "not run here"),
    ],
    ids=["empty", "text", "short PNG", "short JPEG", "1×1", "bomb", "EPS"],
)
def test_unreadable_pictures_are_reported_in_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason) as caught:
        picture_file.decode(content)
    assert "\n" not in str(caught.value)


def test_the_command_reads_on_after_bad_pictures_and_exits_with_1(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty folder").mkdir()
    for name in ("a.png", "folder/a.png", "b 1.jpg"):
        write("7").save(tmp_path / name)
    (tmp_path / "zero.png").write_bytes(b"")
    command = [
        *(sys.executable, "-m", "mnist_accel", "predict", "zero.png", "a.png", "folder", "b*.jpg", "missing.png"),
        *("empty folder", "-", "--weights", str(weights), "--json", "--save-input", "seen", "--top-k", "2"),
        *("--save-picture", "answers"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), input=encoded(write("41")), capture_output=True, check=False
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [one["file"] for one in found] == [
        *("zero.png", "a.png", f"folder{os.sep}a.png", "b 1.jpg", "missing.png", "empty folder", "-")
    ]
    assert ["".join(digit["label"] for digit in one["digits"]) for one in found] == ["", "7", "7", "7", "", "", "41"]
    assert [one["error"] is None for one in found] == [False, True, True, True, False, False, True]
    digit = found[1]["digits"][0]
    assert digit["top"][0] == {"label": digit["label"], "probability": digit["probability"]}
    assert len(digit["top"]) == 2
    assert len(digit["box"]) == 4
    errors = done.stderr.decode().splitlines()
    assert len(errors) == 3
    assert all(line.startswith("mnist-accel: error: ") for line in errors)
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {
        *("a_digit1_7.png", "a-2_digit1_7.png", "b 1_digit1_7.png", "stdin_digit1_4.png", "stdin_digit2_1.png")
    }
    with Image.open(tmp_path / "seen" / "a_digit1_7.png") as seen:
        assert seen.size == (28, 28)
    answers = {path.name for path in (tmp_path / "answers").iterdir()}
    assert answers == {"a_answer.png", "a-2_answer.png", "b 1_answer.png", "stdin_answer.png"}
    with Image.open(tmp_path / "answers" / "stdin_answer.png") as answer:
        left, _, right, bottom = found[-1]["digits"][0]["box"]
        assert answer.size == write("41").size
        assert all(answer.getpixel((x, bottom - 1)) in {(10, 125, 51), (194, 84, 0)} for x in (left, right - 1))


def test_off_a_terminal_each_picture_gives_one_line(weights: Path, run: Run, tmp_path: Path) -> None:
    write("417", size=(500, 220)).save(tmp_path / "a.png")
    done = run("predict", "a.png", "--weights", weights)
    assert done.returncode == 0
    assert done.stdout.split("\t")[:2] == ["a.png", "417"]
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("options", [{"color_system": None}, {"color_system": "truecolor", "no_color": True}])
def test_the_terminal_shows_the_input_of_the_network_without_colours_too(options: dict[str, Any]) -> None:
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 13:15] = 255
    digit = prediction.Digit("1", 0.62, [("1", 0.62), ("7", 0.3)], (0, 0, 28, 28), image, "not sure: 1 or 7")
    console = Console(file=io.StringIO(), width=100, record=True, force_terminal=True, **options)
    predictions_table.show(console, prediction.PictureResult("one.png", [digit]))
    text = console.export_text()
    assert sum(" ██ " in line for line in text.splitlines()) == 10
    for expected in ("one.png", "62.0%", "30.0%", "not sure: 1 or 7"):
        assert expected in text
    assert text.splitlines()[0].split() == ["1", "one.png"]
    assert text.splitlines()[-1].split() == ["1"]


@pytest.mark.parametrize(("show_all", "drawn"), [(False, 1), (True, 2)])
def test_the_terminal_draws_doubtful_digits_or_all_and_counts_the_pictures(show_all: bool, drawn: int) -> None:
    image = np.full((28, 28), 255, np.uint8)
    sure = prediction.Digit("1", 0.99, [("1", 0.99)], (0, 0, 28, 28), image)
    doubtful = prediction.Digit("7", 0.6, [("7", 0.6)], (60, 0, 88, 28), image, "not sure: 7 or 1")
    console = Console(file=io.StringIO(), width=100, record=True, force_terminal=True)
    results = [prediction.PictureResult(f"{len(digits)}.png", digits) for digits in ([sure, doubtful], [sure])]
    predictions_table.show(console, results[0], show_all=show_all)
    text = console.export_text()
    assert text.splitlines()[0].split() == ["1", "7", "2.png"]  # with the writer's gap
    assert text.count(" at ") == drawn
    predictions_table.summarise(console, [*results, prediction.PictureResult("3.png", error="blank")])
    assert console.export_text().strip() == "3 pictures: 1 read, 1 doubtful, 1 not read"


def test_the_function_takes_one_file_or_several(weights: Path, tmp_path: Path) -> None:
    write("7").save(tmp_path / "a.png")
    assert [result.text for result in predict_function(tmp_path / "a.png", weights)] == ["7"]
    assert [result.error is None for result in predict_function(["nowhere.png", str(tmp_path)], weights)] == [
        False,
        True,
    ]
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        predict_function(tmp_path / "a.png", tmp_path / "nowhere.pth")


def test_the_first_answer_comes_before_the_other_pictures_are_read(model: Classifier, tmp_path: Path) -> None:
    names = [str(tmp_path / f"{number}.png") for number in range(4)]
    for name in names:
        write("7").save(name)
    results = prediction.read_pictures(names, model)
    assert next(results).text == "7"
    Path(names[-1]).unlink()
    assert [result.error is None for result in results] == [True, True, False]


def test_reading_pictures_does_not_wait_for_scipy() -> None:
    program = "import sys, mnist_accel.pictures.predict; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_page_of_3000_marks_is_recognised_as_text_quickly(model: Classifier) -> None:
    page = np.full((1500, 1600), 230, np.uint8)
    for number in range(3000):
        y, x = divmod(number, 60)
        page[20 + 29 * y : 32 + 29 * y, 20 + 26 * x : 24 + 26 * x] = 20
    began = time.perf_counter()
    result = read_picture(page, model)
    assert "looks like text" in (result.error or "")
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300 + ".png", "cannot be read: file name too long"),
        ("file/below.png", "cannot be read: not a directory"),
        ("loop", "cannot be read: too many levels"),
        ("*.gif", "no file matches this pattern"),
        ("x" * 300 + "/*.gif", "no file matches this pattern"),
        ("https://example.org/7.png", "a web address, not a file; download the picture first"),
        ("fifo", "cannot be read: not a regular file"),
        ("/dev/zero", "cannot be read: not a regular file"),
    ],
    ids=["long name", "below a file", "loop", "pattern", "long pattern", "URL", "FIFO", "device"],
)
def test_names_that_cannot_be_read_are_reported_like_bad_pictures(
    name: str, reason: str, model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    os.mkfifo("fifo")
    [result] = prediction.read_pictures(picture_file.find([name]), model)
    assert (result.error or "").startswith(reason)
    assert "\n" not in (result.error or "")


def test_a_folder_that_cannot_be_listed_is_reported(
    model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(picture_file, "read_limited", refuse)
    [result] = prediction.read_pictures(picture_file.find([str(tmp_path)]), model)
    assert result.error == "cannot be read: permission denied"


def test_the_command_refuses_a_long_name_in_one_short_line(weights: Path, run: Run) -> None:
    done = run("predict", "x" * 300, "--weights", weights)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "file name too long" in done.stderr


def test_control_characters_in_class_names_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    digit = prediction.Digit("\x1b[2J", 0.5, [("\x1b[2J", 0.5)], (0, 0, 28, 28), np.zeros((28, 28), np.uint8), "\x1b?")
    result = prediction.PictureResult("\x1b.png", [digit])
    predictions_table.show(Console(force_terminal=True, width=100), result)
    predictions_table.show(Console(force_terminal=False), result)
    shown = capsys.readouterr().out
    assert "[2J" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b?" not in shown
    assert "\x1b.png" not in shown


def test_a_closed_pipe_is_not_hidden_from_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    digit = prediction.Digit("1", 0.9, [("1", 0.9)], (0, 0, 28, 28), np.zeros((28, 28), np.uint8))
    with pytest.raises(BrokenPipeError):
        predictions_table.show(Console(force_terminal=False), prediction.PictureResult("one.png", [digit]))


def test_a_character_of_a_data_set_is_read_with_all_its_strokes(tmp_path: Path) -> None:
    write("71", size=(400, 200)).save(tmp_path / "two.png")
    Image.fromarray(np.full((50, 50), 200, np.uint8)).save(tmp_path / "blank.png")
    image = read_character(tmp_path / "two.png")
    assert image.shape == (28, 28)
    rows, columns = np.nonzero(image >= 64)
    assert np.ptp(columns) + 1 in (19, 20)
    assert np.ptp(columns) > np.ptp(rows)
    for name in ("blank.png", "missing.png", "x" * 300):
        with pytest.raises(PictureError):
            read_character(tmp_path / name)
