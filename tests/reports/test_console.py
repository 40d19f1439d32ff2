import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from mnist_accel.reports import console as console_module
from mnist_accel.reports.console import TrainingConsole, headline, summary
from mnist_accel.reports.tables import result_console
from mnist_accel.training.train import TrainResult
from tests.reports.examples import LOSSES, facts, record, shown, sums, terminal

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plain() -> Console:
    return Console(file=io.StringIO(), width=10_000, highlight=False)


@pytest.mark.parametrize("is_last", [False, True])
def test_the_epoch_table_fits_a_terminal_of_80_columns(is_last: bool) -> None:
    screen = terminal(80)
    console = TrainingConsole(screen)
    console.run_started(facts(epochs=100))
    before = len(shown(screen))
    console.epoch_finished(record(100 if is_last else 1), LOSSES)
    lines = ESCAPES.sub("", shown(screen)[before:]).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 79
    assert "100,0" not in lines[0]
    assert "123,456" in lines[1]


def test_the_progress_bar_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "READ_SECONDS", 0.0)
    screen = terminal(80)
    console = TrainingConsole(screen)
    console.run_started(facts(epochs=10))
    console.epoch_started(9, 0)
    console.step_finished(399, sums(400))
    console.close()
    assert re.search(r"epoch 10/10.*400/469  loss 1\.0000  acc\. 100\.00%.*images/s  \S+ (s|min) left", shown(screen))


def test_reading_pictures_shows_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "READ_SECONDS", 0.0)
    monkeypatch.setattr(console_module, "LINE_SECONDS", 0.0)
    for screen, expected in ((terminal(80), r"pictures.*500/70000"), (plain(), r"  500 of 70,000 pictures are read\n")):
        console = TrainingConsole(screen)
        console.pictures_read(500, 70_000)
        console.pictures_read(70_000, 70_000)
        assert console.bar is None
        assert re.search(expected, shown(screen))


def test_a_notice_is_not_wrapped_so_that_its_command_can_be_copied() -> None:
    for width in range(60, 90):
        screen = terminal(width)
        TrainingConsole(screen).notice("an unfinished run is in out/checkpoints: --resume auto continues it")
        assert "--resume auto continues" in ESCAPES.sub("", shown(screen))


def test_a_notice_shows_no_control_characters_of_a_file() -> None:
    screen = plain()
    TrainingConsole(screen).notice("folder \x1b[2J\x07 of\nanother" + "x" * 5000)
    text = shown(screen)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count("\n") == 1
    assert len(text) < 1100


@pytest.mark.parametrize("screen", [plain(), terminal(200, dumb=True)], ids=["piped", "TERM=dumb"])
def test_plain_progress_lines_name_the_epoch_and_the_time_left_in_the_run(
    screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([99.0, 100.0, 110.0])
    monkeypatch.setattr("mnist_accel.reports.console.time.perf_counter", lambda: next(clock))
    console = TrainingConsole(screen)
    console.run_started(facts(epochs=4))
    console.epoch_started(1, 0)
    console.step_finished(468, sums(469))
    last = shown(screen).splitlines()[-1]
    # 60,000 samples in 10 s; 2 epochs of 60,000 samples are left.
    assert last.startswith("  epoch 2/4  step 469/469  loss 1.0000")
    assert last.endswith("6,000 images/s  20 s left")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "* running average; others: after"),
        ({"dropout": 0.5}, "* running average, with dropout; "),
        ({"dropout": 0.5, "model": "my_net.py:MyNet"}, "* running average; others: after"),
        ({"shift": 2.0}, "* running average, with augmentation; "),
        ({"dropout": 0.5, "rotation": 12.0}, "* running average, with dropout and augmentation; "),
    ],
)
def test_the_footnote_names_dropout_and_augmentation_only_where_they_are_on(
    settings: dict[str, object], expected: str
) -> None:
    screen = terminal(80)
    console = TrainingConsole(screen)
    console.run_started(facts(**settings))
    console.epoch_finished(record(1), LOSSES)
    console.show_result("done", [])
    footnote = next(line for line in ESCAPES.sub("", shown(screen)).splitlines() if line.startswith("*"))
    assert footnote.startswith(expected)
    assert len(footnote) <= 79


def test_the_result_is_on_its_own_console_and_progress_is_not() -> None:
    progress, results = plain(), plain()
    console = TrainingConsole(progress, results=results)
    console.run_started(facts())
    console.epoch_finished(record(1), LOSSES)
    console.show_result("mnist: test accuracy 99.23%", [Path("a" * 120) / "mnist_cnn_model.pth"])
    assert shown(results) == f"mnist: test accuracy 99.23%\n  {'a' * 120}/mnist_cnn_model.pth\n"
    assert "99.23%" not in shown(progress)


def test_results_go_to_stdout_unless_it_carries_json() -> None:
    assert not result_console(to_stderr=False).stderr
    assert result_console(to_stderr=True).stderr


def test_quiet_shows_notices_alone() -> None:
    screen = plain()
    console = TrainingConsole(screen, quiet=True)
    console.run_started(facts())
    console.epoch_started(0, 0)
    console.step_finished(0, sums(1))
    console.epoch_finished(record(1), LOSSES)
    console.show_result("done", [Path("file")])
    assert shown(screen) == ""
    console.notice("read this")
    assert shown(screen) == "NOTICE: read this\n"


@pytest.mark.parametrize(
    ("train_seconds", "expected"),
    [(9.4, "9.4 s of training, 12.0 s in total"), (943.5, "943.5 s of training, 12.0 s for this call, after a resume")],
)
def test_the_times_of_a_resumed_run_do_not_contradict_each_other(train_seconds: float, expected: str) -> None:
    result = TrainResult(
        **vars(facts()),
        steps=1,
        train_loss=0.1,
        train_accuracy=0.9,
        test_loss=0.1,
        test_accuracy=0.9,
        train_seconds=train_seconds,
        images_per_second=1.0,
        wall_seconds=12.0,
        weights_sha256="",
        chosen_epoch=1,
        history=(),
        step_losses=(),
    )
    assert headline(result).endswith(expected)


def test_the_summary_states_recipe_batch_and_precision() -> None:
    lines = summary(facts(epochs=1, dropout=0.5, shift=2.0, average=0.9, schedule="one-cycle"))
    assert lines["recipe"] == (
        "classic: 1 epoch, Adam, learning rate 0.001 at the peak of one cycle, dropout 0.5, augmentation, "
        "averaged weights, seed 0"
    )
    assert lines["processes"] == "1, each with 1 CPU thread"
    assert lines["batch"] == "128 samples per step = 1 process × 1 accumulation × 128; 469 steps per epoch"
    assert lines["precision"] == "fp32 (asked for)"
    assert summary(facts(checkpoint_every=1))["checkpoint"].startswith("every 1 step;")
