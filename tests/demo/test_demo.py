"""The demo as its users have it: the real command, and a real browser that draws."""

import base64
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.conftest import SMALL_MNIST, Run, clean_environment, forks

sync_api = pytest.importorskip("playwright.sync_api", reason='a browser is driven by Playwright: pip install ".[test]"')

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SIZES = ((320, 568), (390, 844), (820, 1180), (1280, 800))
SHOWN = "document.querySelector('#answer .verdict strong').innerText"
TELLS_WHOM_IT_TALKS_TO = """
import sys

def tell(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        print("TALKS TO", arguments[1], file=sys.stderr)
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", None):
        print("ASKS FOR", arguments[0], file=sys.stderr)

sys.addaudithook(tell)
from mnist_accel.cli import main
main()
"""

Point = tuple[float, float]


def arc(x: float, y: float, across: float, down: float, first: float, last: float) -> list[Point]:
    """Points of an ellipse's arc; angles in degrees, clockwise from the right."""
    angles = [math.radians(first + (last - first) * step / 10) for step in range(11)]
    return [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]


STROKES: dict[str, list[list[Point]]] = {
    "0": [arc(0.5, 0.5, 0.2, 0.3, -90, 270)],
    "1": [[(0.5, 0.2), (0.5, 0.8)]],
    "2": [[*arc(0.5, 0.36, 0.18, 0.16, 180, 390), (0.3, 0.8), (0.72, 0.8)]],
    "3": [[*arc(0.48, 0.35, 0.18, 0.15, 200, 450), *arc(0.48, 0.65, 0.2, 0.15, -90, 160)]],
    "4": [[(0.35, 0.2), (0.3, 0.55), (0.7, 0.55)], [(0.62, 0.2), (0.6, 0.82)]],
    "5": [[(0.68, 0.2), (0.36, 0.2), (0.34, 0.47), *arc(0.47, 0.62, 0.2, 0.19, -120, 140)]],
    "6": [[(0.6, 0.18), (0.42, 0.4), *arc(0.5, 0.64, 0.16, 0.16, 180, 540)]],
    "7": [[(0.3, 0.22), (0.7, 0.22), (0.45, 0.82)]],
    "8": [arc(0.5, 0.35, 0.14, 0.14, 90, 450), arc(0.5, 0.65, 0.17, 0.16, -90, 270)],
    "9": [[*arc(0.48, 0.37, 0.16, 0.16, 0, 360), (0.64, 0.37), (0.6, 0.82)]],
}
"""As shares of the drawing area's side."""


class Demo:
    """The command, running."""

    def __init__(self, folder: Path) -> None:
        arguments = ["demo", "--weights", str(folder / "mnist_cnn_model.pth"), "--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TELLS_WHOM_IT_TALKS_TO, *arguments],
            env=clean_environment(TMPDIR=str(folder)),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        self.first_line = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.first_line)
        assert found, self.first_line + self.process.stderr.read()
        self.address = found[0]


class Page:
    """A page of the demo in the browser, and what it asked of whom."""

    def __init__(self, browser: Any, address: str, options: dict[str, Any]) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._asked)
        if options is PHONE:  # browsers hide this from pages that come over http from another machine
            self.page.add_init_script("delete PointerEvent.prototype.getCoalescedEvents")
        self.address = address
        self.page.goto(address)
        self.area = self.page.locator("#paper")
        self.area.wait_for()

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((f"{self.address}/", "data:", "blob:")):
            self.elsewhere.append(request.url)

    def points(self, stroke: list[Point]) -> list[Point]:
        """A stroke in the page's pixels."""
        box = self.area.bounding_box()
        return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]

    def draw(self, strokes: list[list[Point]]) -> None:
        for stroke in strokes:
            first, *others = self.points(stroke)
            self.page.mouse.move(*first)
            self.page.mouse.down()
            for point in others:
                self.page.mouse.move(*point)
            self.page.mouse.up()

    def settle(self) -> None:
        """Wait until the answer belongs to what is drawn."""
        self.wait_for("document.querySelector('#answer').ariaBusy !== 'true'")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true; Playwright's own waiting is against the page's policy."""
        end = time.monotonic() + 60
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(50)

    def reading(self) -> str:
        return str(self.page.locator("#answer .verdict strong").inner_text())

    def sentence(self) -> str:
        return str(self.page.locator("#answer .verdict p").inner_text())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The command, with weights of seconds of training."""
    folder = tmp_path_factory.mktemp("demo")
    trained = forks().run(["train", "--dataset", SMALL_MNIST, "--epochs", "2", "--cpu", "--quiet"], folder, 240)
    assert trained.returncode == 0, trained.stderr
    running = Demo(folder)
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no browser: needs chromium (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])  # for root
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, demo: Demo) -> Iterator[Callable[[dict[str, Any]], Page]]:
    """Opens pages; none asks anything of anyone else, and no script fails."""
    pages: list[Page] = []

    def open_page(options: dict[str, Any]) -> Page:
        pages.append(Page(browser, demo.address, options))
        return pages[-1]

    yield open_page
    for one in pages:
        one.context.close()
        assert one.elsewhere == []
        assert one.errors == []


def test_digits_drawn_with_the_mouse_are_read(open_page: Callable[[dict[str, Any]], Page]) -> None:
    one = open_page(DESKTOP)
    read = {}
    for digit, strokes in STROKES.items():
        one.draw(strokes)
        one.settle()
        read[digit] = one.reading()
        one.page.get_by_role("button", name="Clear").click()
    assert sum(read[digit].rstrip("?") == digit for digit in STROKES) >= 8, read  # a ? marks what is doubtful


def test_on_a_phone_everything_fits_and_a_finger_draws(open_page: Callable[[dict[str, Any]], Page]) -> None:
    one = open_page(PHONE)
    finger = one.context.new_cdp_session(one.page)
    first, *others = one.points(STROKES["1"][0][::-1])  # upwards, as one scrolls down
    steps = [(first[0], first[1] + (others[-1][1] - first[1]) * part / 10) for part in range(11)]
    for number, (x, y) in enumerate(steps):
        kind = "touchMove" if number else "touchStart"
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    one.settle()
    assert one.reading() == "1"
    assert one.page.evaluate("window.scrollY") == 0
    assert one.page.evaluate("document.documentElement.scrollHeight > window.innerHeight")  # it could have scrolled
    assert one.page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    assert one.area.bounding_box()["width"] > 300


def test_the_page_shows_probabilities_and_what_the_network_saw_until_it_is_cleared(
    open_page: Callable[[dict[str, Any]], Page],
) -> None:
    one = open_page(DESKTOP)
    one.draw(STROKES["1"])
    one.settle()
    shown = one.page.locator("#digits .bars > span").all_inner_texts()
    assert shown[::3] == [str(digit) for digit in range(10)]
    # The rest is the probability that the drawing is no digit.
    assert 60 < sum(float(text.strip("%")) for text in shown[2::3]) < 102
    seen = one.page.locator("#digits img")
    assert seen.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [28, 28]
    one.page.get_by_role("button", name="Clear").click()
    one.settle()
    assert one.reading() == ""
    assert seen.count() == 0


def test_a_scribble_is_told_to_be_no_digit(open_page: Callable[[dict[str, Any]], Page]) -> None:
    one = open_page(DESKTOP)
    one.draw([[(0.1 + 0.04 * step, 0.45 + 0.1 * (step % 2)) for step in range(20)]])
    one.settle()
    assert "not look like one digit" in one.sentence()
    assert one.reading().endswith("?")


def picture_of_ones(folder: Path, ones: int) -> Path:
    """A file with `ones` upright strokes side by side, the last one after a wide gap."""
    picture = Image.new("L", (1200, 900), 255)
    for number in range(ones):
        x = 200 + 150 * number + (350 if number == ones - 1 > 0 else 0)
        ImageDraw.Draw(picture).line([(x, 300), (x, 600)], fill=0, width=36)
    picture.save(folder / f"{ones}.png")
    return folder / f"{ones}.png"


def test_an_opened_number_is_shown_with_boxes_and_a_refused_file_removes_it(
    open_page: Callable[[dict[str, Any]], Page], tmp_path: Path
) -> None:
    one = open_page(DESKTOP)
    one.page.set_input_files("#file", picture_of_ones(tmp_path, 3))
    one.wait_for(f"{SHOWN} === '11 1'")  # with the writer's gap
    assert one.page.locator("#digits article").count() == 3
    assert one.page.locator("#digits article").first.locator(".bar").count() == 3
    pixel = "document.querySelector('#{}').getContext('2d').getImageData({}, {}, 1, 1).data[{}]"
    assert one.page.evaluate(pixel.format("paper", 93, 280, 0)) < 50  # ink, at 7/15 of the size
    edge = [one.page.evaluate(pixel.format("boxes", x, 280, 3)) for x in range(70, 100)]
    assert max(edge[:22]) > 0  # the left side of the first box
    assert min(edge) == 0

    (tmp_path / "damaged.png").write_bytes((tmp_path / "3.png").read_bytes()[:200])
    one.page.set_input_files("#file", tmp_path / "damaged.png")
    one.wait_for("document.querySelector('#answer .verdict p').innerText.includes('amaged')")
    assert one.reading() == ""
    assert one.page.locator("#digits img").count() == 0
    assert one.page.evaluate(pixel.format("paper", 93, 280, 0)) > 200
    assert not one.page.evaluate(f"{pixel.format('boxes', 88, 280, 3)}")


@pytest.mark.parametrize(("event", "holder"), [("paste", "clipboardData"), ("drop", "dataTransfer")])
def test_pictures_can_be_pasted_and_dropped(
    event: str, holder: str, open_page: Callable[[dict[str, Any]], Page], tmp_path: Path
) -> None:
    one = open_page(DESKTOP)
    content = base64.b64encode(picture_of_ones(tmp_path, 1).read_bytes()).decode()
    one.page.evaluate(
        """([name, holder, content]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "1.png", {type: "image/png"}));
            const options = {bubbles: true, [holder]: data};
            const made = name === "paste" ? new ClipboardEvent(name, options) : new DragEvent(name, options);
            document.querySelector("#paper").dispatchEvent(made);
        }""",
        [event, holder, content],
    )
    one.wait_for(f"{SHOWN} === '1'")


def test_strokes_are_undone_and_all_is_cleared_by_keys(open_page: Callable[[dict[str, Any]], Page]) -> None:
    one = open_page(DESKTOP)
    left, right = ([[(x, 0.25), (x, 0.75)]] for x in (0.3, 0.7))
    one.draw(left + right)
    one.wait_for(f"{SHOWN}.replace('?', '').replace(' ', '') === '11'")
    one.page.keyboard.press("Control+z")
    one.wait_for(f"{SHOWN}.replace('?', '') === '1'")
    one.page.keyboard.press("Delete")
    one.wait_for(f"{SHOWN} === ''")
    assert "Draw" in one.sentence()


def test_an_empty_drawing_says_that_nothing_was_found(
    open_page: Callable[[dict[str, Any]], Page], tmp_path: Path
) -> None:
    Image.new("L", (200, 200), 230).save(tmp_path / "empty.png")
    one = open_page(DESKTOP)
    one.page.set_input_files("#file", tmp_path / "empty.png")
    one.wait_for("document.querySelector('#answer .verdict p').innerText.startsWith('Nothing found')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_at_all_sizes(
    scheme: str, open_page: Callable[[dict[str, Any]], Page], tmp_path: Path
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    one = open_page({"color_scheme": scheme})
    one.page.set_input_files("#file", picture_of_ones(tmp_path, 3))
    one.wait_for(f"{SHOWN} === '11 1'")
    for width, height in SIZES:
        one.page.set_viewport_size({"width": width, "height": height})
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.run(one.page)
        assert found.violations_count == 0, found.generate_report()
    one.page.keyboard.press("Delete")
    corner = "document.querySelector('#paper').getContext('2d').getImageData(5, 5, 1, 1).data[0]"
    assert (one.page.evaluate(corner) < 60) == (scheme == "dark")


def test_ctrl_c_ends_it_and_it_talked_to_no_one(open_page: Callable[[dict[str, Any]], Page], demo: Demo) -> None:
    """The last test with this process; a page is open, as it would be."""
    open_page(DESKTOP)
    demo.process.send_signal(signal.SIGINT)
    _, said = demo.process.communicate(timeout=60)
    assert demo.process.returncode == 0
    assert said.strip() == "The demo has ended."


def test_a_port_that_is_taken_is_told_before_torch_is_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "any.pth").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("demo", "--weights", "any.pth", "--port", port, launcher=("-X", "importtime"))
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert errors == [f"mnist-accel: error: port {port} of 127.0.0.1 is taken; choose another one with --port"]
    assert " torch" not in done.stderr


def test_without_weights_it_says_how_to_make_them(run: Run) -> None:
    done = run("demo")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "mnist_cnn_model.pth: no such file; train first (mnist-accel train)" in done.stderr
    done = run("demo", "--weights", "x" * 300)
    assert done.returncode == 2
    assert "no such file" in done.stderr
