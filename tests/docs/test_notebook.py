"""The notebook in examples/ runs, shows what it promises, and is the one that its source describes."""

from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after a run on 2,000 samples, with the folder of its files as `done.folder`."""
    notebook = nbformat.read(EXAMPLES / "first_run.ipynb", as_version=4)
    (line,) = [cell for cell in notebook.cells if "train_samples = 20_000" in cell.source]
    line.source = line.source.replace("20_000", "2_000")
    folder = tmp_path_factory.mktemp("notebook")
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    return notebook


def outputs(notebook: Any, text: str) -> list[Any]:
    """The outputs of the cell that contains `text`."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
    return [output.get("data", {"text/plain": output.get("text", "")}) for output in cell.outputs]


def test_the_notebook_is_the_one_of_its_source() -> None:
    written = nbformat.read(EXAMPLES / "first_run.ipynb", as_version=4)
    assert cells(written) == cells(jupytext.read(EXAMPLES / "first_run.py"))
    assert not any(cell.get("outputs") for cell in written.cells)


def test_train_shows_a_table_and_two_pictures_in_a_notebook(done: Any) -> None:
    table, *pictures = [data for data in outputs(done, 'recipe="speedrun"') if "tqdm" not in data["text/plain"]]
    lines = table["text/plain"].splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("  epoch  train loss"))
    assert lines[heading + 1].startswith("    1/2 ")
    assert lines[heading + 2].startswith("    2/2 ")
    assert "mnist: test accuracy" in lines[-1]
    assert table["text/html"].startswith("<pre>model: ")
    assert [list(data) for data in pictures] == [["image/png", "text/plain"]] * 2


def test_the_notebook_shows_mistakes_reads_the_drawn_number_and_trains_the_users_network(done: Any) -> None:
    assert "of 10,000 images are correct" in outputs(done, "evaluate(EvaluateConfig")[0]["text/plain"]
    assert "image/png" in outputs(done, "evaluate(EvaluateConfig")[-1]
    assert outputs(done, "paper.save")[0]["text/plain"] == "read as 47\n"
    assert "MyNet" in outputs(done, "mine = train(")[-1]["text/plain"]
