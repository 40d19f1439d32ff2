"""The documents agree with the code and with each other: options, files, recipes, exit codes, commands, links."""

import re
import signal
from pathlib import Path

import pytest
from typer.main import get_command

from mnist_accel import api, errors
from mnist_accel.cli import app
from mnist_accel.commands.common import CLOSED_OUTPUT
from mnist_accel.config.settings import TrainConfig, option_name, settings
from mnist_accel.reports.run_report import REPORT_FILE
from tests.docs.blocks import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
LAUNCHERS = {"--nproc-per-node", "--nnodes", "--node-rank", "--master-addr", "--master-port", "--config_file"}
OTHERS = {"--help", "--version", "--install-completion", "--show-completion", "--torch-backend", "--num_processes"}


def options_of_commands() -> set[str]:
    parameters = [parameter for command in COMMANDS.values() for parameter in command.params]
    return {option for parameter in parameters for option in [*parameter.opts, *parameter.secondary_opts]}


def test_every_option_of_train_is_documented_and_no_unknown_one() -> None:
    known = {option_name(name) for name, known in settings(TrainConfig).items() if known.on_command_line}
    assert {option for option in known if option not in OPTIONS} == set()
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", README + OPTIONS))
    assert mentioned <= options_of_commands() | LAUNCHERS | OTHERS


def test_the_readme_is_short() -> None:
    assert len(README.split()) < 1050


def test_the_readme_names_every_command() -> None:
    assert {name for name in COMMANDS if f"mnist-accel {name}" not in README} == set()
    assert set(re.findall(r"^ {4}mnist-accel ([a-z]\w*)", README, re.MULTILINE)) <= set(COMMANDS)


def test_every_result_file_is_explained() -> None:
    for name in (*api.TRAIN_FILES, *api.EVALUATE_FILES, REPORT_FILE):
        assert f"`{name}`" in DOCUMENTS["results.md"], name


def test_the_readme_names_every_recipe_with_its_expected_accuracy() -> None:
    for path in (ROOT / "mnist_accel" / "config").glob("recipe*/*.toml"):
        (expected,) = re.findall(r'expected_accuracy = "([\d.]+% ± [\d.]+)', path.read_text(encoding="utf-8"))
        line = next(line for line in README.splitlines() if line.startswith(f"| `{path.stem}`"))
        assert expected in line


def test_the_architecture_names_every_folder_and_script() -> None:
    folders = [path.parent.name for path in (ROOT / "mnist_accel").glob("*/__init__.py")]
    tree = set(re.findall(r"^ {6}(\w+)/ ", ARCHITECTURE, re.MULTILINE))
    assert tree == set(folders)
    for path in (ROOT / "scripts").glob("[a-z]*.py"):
        assert f"`{path.name}`" in ARCHITECTURE, path.name


def test_the_folders_are_listed_in_the_order_of_the_import_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.findall(r'"(\w+)"', contract[contract.index("layers = [") : contract.index("exhaustive")])
    listed = re.findall(r"^ {6}(\w+)(?:/|\.py) ", ARCHITECTURE, re.MULTILINE)
    assert listed == [layer for layer in layers if layer != "__main__"]


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_document_names_only_files_that_exist(name: str) -> None:
    mentioned = set(re.findall(r"(?<![\w/.:-])((?:[\w-]+/)*[\w-]+\.py)\b", DOCUMENTS[name]))
    known = {
        path.relative_to(ROOT)
        for folder in ("mnist_accel", "scripts", "tests")
        for path in ROOT.glob(f"{folder}/**/*.py")
    }
    for file in mentioned - {"my_net.py", "FILE.py"}:  # the file that the reader writes
        assert any(path.parts[-len(Path(file).parts) :] == Path(file).parts for path in known), file


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_links_of_a_document_lead_somewhere(name: str) -> None:
    path = ROOT / name if (ROOT / name).exists() else ROOT / "docs" / name
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", DOCUMENTS[name]):
        found = path.parent / target if target else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text(encoding="utf-8")), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """The names of the headings of a document, as GitHub makes them."""
    return {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)", text, re.M)
    }


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", DOCUMENTS["index.md"]))
    assert linked == {path.name for path in ROOT.glob("docs/*.md")} - {"index.md"}


def test_every_exit_code_is_documented() -> None:
    known = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    known |= {0, CLOSED_OUTPUT} | {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    section = OPTIONS[OPTIONS.index("## Exit codes") :].split("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(", ")} == known
    assert set(map(int, re.findall(r"(?<=[ ;,])\d+(?= )", str(app.info.epilog)))) == known


def test_the_two_commands_are_those_that_ci_runs() -> None:
    test_command = 'pip install -e ".[test]" && pytest'
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"    {test_command}\n" in README
    assert "    pip install -e . && mnist-accel train\n" in README
    assert test_command.replace("install", "install --quiet") in ci


def test_ci_just_and_pre_commit_run_the_same_checks() -> None:
    just = (ROOT / "justfile").read_text(encoding="utf-8")
    checks = [line.strip() for line in just[just.index("\nlint:") :].split("\n\n")[0].splitlines()[2:]]
    assert len(checks) == 5
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"entry: ([^,]+),", hooks) == checks
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-5:] == checks
