import io
from pathlib import Path

from rich.console import Console

from mnist_accel.reports.tables import as_text, print_facts, print_line, print_report
from mnist_accel.training.evaluate import EvaluateResult
from tests.reports.examples import shown, terminal


def evaluation(names: list[str]) -> EvaluateResult:
    classes = len(names)
    rows = [{"class": name, "precision": 0.9, "recall": 0.8, "f1": 0.85, "samples": 100} for name in names]
    matrix = [[1135 if row == column else 0 for column in range(classes)] for row in range(classes)]
    return EvaluateResult("mnist", 1000, 990, 0.99, (0.981, 0.994), 0.03, rows, matrix)


def test_an_evaluation_of_ten_digits_fits_80_columns_and_shows_every_figure() -> None:
    screen = terminal(80)
    print_report(screen, evaluation(list("0123456789")), [Path("mistakes.png")])
    text = shown(screen)
    for expected in ("test accuracy 99.00%", "990 of 1,000", "98.10% to 99.40%", "1135", "mistakes.png"):
        assert expected in text
    assert "…" not in text


def test_class_names_out_of_files_are_shown_without_control_characters_or_markup() -> None:
    screen = Console(file=io.StringIO(), width=10_000)
    print_report(screen, evaluation(["\x1b[2Jbad", "[red]b[/red]", "x" * 5000]), [])
    text = shown(screen)
    assert "\x1b" not in text
    assert "[red]b[/red]" in text
    assert max(map(len, text.splitlines())) < 1000


def test_typed_values_are_shown_as_one_printable_line() -> None:
    screen = Console(file=io.StringIO(), width=10_000)
    print_facts(screen, {"last epoch": {"epoch": 5, "test_loss": None, "lr": 0.001}, "classes": ["0", "\x07"]})
    assert shown(screen) == "last epoch  epoch 5, lr 0.001\nclasses     0, \N{REPLACEMENT CHARACTER}\n"
    assert len(as_text("x" * 100_000)) == 300


def test_a_warning_that_quotes_a_file_is_one_line() -> None:
    screen = Console(file=io.StringIO(), width=10_000)
    print_line(screen, "WARNING: one\ntwo", "bold yellow")
    assert shown(screen) == "WARNING: one two\n"
