import json
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from mnist_accel import Run, TrainConfig, compare, report, train
from mnist_accel.cli import app
from mnist_accel.data import datasets
from mnist_accel.errors import UserError
from tests.conftest import small_mnist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

sync_api = pytest.importorskip("playwright.sync_api", reason='a browser is driven by Playwright: pip install ".[test]"')
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = ["<b onload=alert(1)>", "\"'&{{7*7}}", "<script>alert(2)"]
SMALL_MNIST = small_mnist()
SMALL: dict[str, Any] = {"dataset": SMALL_MNIST, "threads": 1, "mixed_precision": "no", "model": "small-cnn"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `first`, `second` and `<i>` of data whose class names are hostile."""
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("first", "second")):
        train(TrainConfig(**SMALL, seed=number, epochs=2, train_samples=600, output_dir=folder / name))
    digits = datasets.load(SMALL_MNIST, Path(), print).test
    for label, name in enumerate(HOSTILE):
        (folder / "data" / name).mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.labels == label][:30]):
            Image.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
    hostile = SMALL | {"dataset": f"folder:{folder / 'data'}", "epochs": 1, "output_dir": folder / "<i>"}
    train(TrainConfig(**hostile))
    return folder


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    if BROWSER is None:
        pytest.skip("no browser: needs chromium (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])  # for root
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(runs: Path) -> dict[str, Path]:
    comparison = runs / "comparison.html"
    comparison.write_bytes(compare(runs / "first", runs / "second").html())
    return {"first": report(runs / "first"), "hostile": report(runs / "<i>"), "comparison": comparison}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["first", "hostile", "comparison"])
def test_a_page_opens_without_network_errors_and_horizontal_scrolling(
    browser: "Browser", pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.locator("svg[data-chart]").last.hover()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    # The reader sees the values at the pointer.
    assert re.search(r"(epoch|step|probability) [\d.]+: \S+ [\d.]+", page.locator(".readout").last.inner_text())
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["first", "hostile", "comparison"])
def test_a_page_is_accessible(browser: "Browser", pages: dict[str, Path], name: str, scheme: str) -> None:
    page = browser.new_page(bypass_csp=True, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(pages[name].as_uri())
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    page.close()


def test_text_from_files_is_escaped(pages: dict[str, Path]) -> None:
    text = pages["hostile"].read_text()
    assert "<b onload" not in text
    assert "&lt;b onload=alert(1)&gt;" in text
    assert "{{7*7}}" in text
    assert "<script>alert" not in text
    assert "<i>" not in text


def test_a_page_forbids_everything_from_elsewhere(pages: dict[str, Path]) -> None:
    for page in pages.values():
        text = page.read_text()
        assert "default-src 'none'; img-src data:; style-src 'sha256-" in text
        assert "unsafe" not in text
        assert not re.search(r'(src|href)="(?!data:)', text)
        assert len(text) < 2_000_000


def test_the_confusion_matrix_colours_every_mistake_and_nothing_else(pages: dict[str, Path]) -> None:
    text = pages["first"].read_text()
    table = text[text.index('<table class="matrix">') :].split("</table>")[0]
    cells = re.findall(r"<td(?: class=\"(\w+)\")?>(\d+|·)</td>", table)
    assert len(cells) == 100
    for index, (style, number) in enumerate(cells):
        expected = {"hit"} if index % 11 == 0 else {""} if number == "·" else {"e1", "e2", "e3"}
        assert style in expected
    correct = sum(int(number) for style, number in cells if style == "hit" and number != "·")
    assert f"{correct / 1000:.2%} test accuracy" in text


def test_the_command_in_the_report_makes_the_same_run_again(pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["first"].read_text()
    words = shlex.split(re.findall(r"<pre>(.*?)</pre>", text)[0].replace("&#39;", "'"))
    assert words[:2] == ["mnist-accel", "train"]
    with pytest.raises(SystemExit, match="0"):
        app([*words[1:], "--output-dir", str(tmp_path), "--quiet"], standalone_mode=False)
    assert Run.load(tmp_path).record["weights_sha256"] in text


def test_two_models_are_compared_on_the_digits_on_which_they_disagree(runs: Path) -> None:
    found = compare(runs / "first", runs / "second")
    assert found.models is not None
    first, second = (group.accuracies[0] for group in found.groups)
    assert len(found.models.second_only) - len(found.models.first_only) == round(1000 * (second - first))
    assert 0 < found.models.p <= 1
    assert found.as_json()["verdict"] == "not enough runs"


def test_the_settings_that_differ_are_shown(runs: Path, tmp_path: Path) -> None:
    train(TrainConfig(**SMALL, epochs=1, lr=0.01, train_samples=600, output_dir=tmp_path))
    values = compare(runs / "first", tmp_path).as_json()
    assert values["configuration"] == {"epochs": [2, 1], "lr": [0.001, 0.01]}
    json.dumps(values, allow_nan=False)


def test_runs_of_different_data_are_not_compared(runs: Path) -> None:
    with pytest.raises(UserError, match="were tested on"):
        compare(runs / "first", runs / "<i>")
