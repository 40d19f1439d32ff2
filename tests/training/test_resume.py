"""Checkpoints and resuming within one process: whole or refused, and exact."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_accel import TrainConfig, TrainResult, train
from mnist_accel.errors import DataError, OutputError
from mnist_accel.files import checkpoint
from mnist_accel.files.checkpoint import CheckpointError, CheckpointFolder
from mnist_accel.files.untrusted import read_limited
from mnist_accel.training import loop
from mnist_accel.training.events import Observer
from mnist_accel.training.guard import Guard
from mnist_accel.training.optimizer import NumbersError
from mnist_accel.training.setup import Progress, Setup
from mnist_accel.training.state import SavedState, capture
from tests.conftest import small_mnist

pytestmark = pytest.mark.usefixtures("blank_pictures")
SMALL = {
    "dataset": small_mnist(test=100),
    "train_samples": 300,
    "epochs": 3,
    "batch_size": 50,
    "cpu": True,
    "mixed_precision": "no",
    "threads": 1,
}


class Unplugged(Exception):  # noqa: N818  # no error of the program
    """The run ends here, as if killed."""


class Listener(Observer):
    """Keeps notices; ends the run after so many steps."""

    def __init__(self, steps: int | None = None) -> None:
        self.notices: list[str] = []
        self.steps_left = steps

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def step_finished(self, step: int, sums: object) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                raise Unplugged


def run(folder: Path, listener: Listener | None = None, **settings: object) -> TrainResult:
    return train(TrainConfig(output_dir=folder, **SMALL | settings), listener)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainResult]:
    """The result of an uninterrupted run, which is made once for all tests."""
    known: dict[str, TrainResult] = {}

    def whole(**settings: object) -> TrainResult:
        name = str(settings)
        if name not in known:
            known[name] = run(tmp_path_factory.mktemp("whole"), None, **settings)
        return known[name]

    return whole


def unplugged_after(steps: int, folder: Path, **settings: object) -> None:
    with pytest.raises(Unplugged):
        run(folder, Listener(steps), **settings)


@pytest.fixture(scope="module")
def unfinished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unfinished")
    unplugged_after(8, folder, checkpoint_every=4)
    return folder


@pytest.fixture
def unfinished(unfinished_run: Path, tmp_path: Path) -> Path:
    """The folder of a run that ended after 8 of 18 steps, in its second epoch, with checkpoints after steps 4 and 8."""
    return shutil.copytree(unfinished_run, tmp_path / "unfinished")


BF16 = {"mixed_precision": "bf16", "model": "small-cnn"}


@pytest.mark.parametrize(
    ("every", "steps", "settings"), [(None, 7, {}), (4, 9, {}), (1, 6, {}), (5, 17, {}), (4, 9, BF16)]
)
def test_a_resumed_run_ends_with_the_same_weights_and_figures(
    tmp_path: Path, whole: Callable[..., TrainResult], every: int | None, steps: int, settings: dict[str, str]
) -> None:
    expected = whole(**settings)
    unplugged_after(steps, tmp_path / "cut", checkpoint_every=every, **settings)
    torch.rand(7)  # whatever random numbers were drawn meanwhile
    listener = Listener()
    resumed = run(tmp_path / "cut", listener, resume="auto", **settings)
    assert any("continuing from" in text for text in listener.notices)
    assert resumed.weights_sha256 == expected.weights_sha256
    for mine, theirs in zip(resumed.history, expected.history, strict=True):
        for key in ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr"):
            assert getattr(mine, key) == getattr(theirs, key)
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    assert not (tmp_path / "cut" / "checkpoints").exists()


@pytest.mark.parametrize("steps", [3, 7])
def test_a_run_with_batch_norm_distortions_a_schedule_and_averaged_weights_resumes_exactly(
    tmp_path: Path, whole: Callable[..., TrainResult], steps: int
) -> None:
    settings: dict[str, Any] = {"recipe": "accurate", "train_samples": 150, "batch_size": 40, "checkpoint_every": 2}
    expected = whole(**settings)
    unplugged_after(steps, tmp_path / "cut", **settings)
    resumed = run(tmp_path / "cut", resume="auto", **settings)
    assert resumed.weights_sha256 == expected.weights_sha256
    assert [record.lr for record in resumed.history] == [record.lr for record in expected.history]


def test_a_run_that_was_done_but_for_its_files_is_finished(
    tmp_path: Path, whole: Callable[..., TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole()
    with monkeypatch.context() as patch:
        patch.setattr("mnist_accel.files.atomic.publish", lambda _: (_ for _ in ()).throw(OutputError("full")))
        with pytest.raises(OutputError):
            run(tmp_path / "cut")
    resumed = run(tmp_path / "cut", resume="auto")
    assert resumed.weights_sha256 == expected.weights_sha256
    assert resumed.test_accuracy == expected.test_accuracy


def test_auto_starts_a_new_run_where_there_is_no_checkpoint(tmp_path: Path, whole: Callable[..., TrainResult]) -> None:
    assert run(tmp_path / "new", resume="auto").weights_sha256 == whole().weights_sha256


def test_never_starts_a_new_run_and_names_the_unfinished_one(
    unfinished: Path, whole: Callable[..., TrainResult]
) -> None:
    listener = Listener()
    assert run(unfinished, listener).weights_sha256 == whole().weights_sha256
    assert any("unfinished run" in text and "--resume auto" in text for text in listener.notices)


def flipped(content: bytes) -> bytes:
    """`content` with one bit flipped in the middle."""
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda content: content[:-1],
    "empty": lambda _: b"",
    "a bit of a tensor flipped": flipped,
    "a value of the state changed": lambda content: content.replace(b"threads", b"threadz"),
    "without SHA-256": lambda content: content.replace(b"sha256", b"sha255"),
    "another SHA-256": lambda content: content.replace(b'"sha256":"', b'"sha256":"0')[:-1],
    "a later format": lambda content: content.replace(b'"format_version":"3"', b'"format_version":"4"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    tmp_path: Path, whole: Callable[..., TrainResult], damage: str
) -> None:
    expected = whole(epochs=1)
    unplugged_after(5, tmp_path / "cut", epochs=1, checkpoint_every=2)
    checkpoints = [path for _, path in CheckpointFolder(tmp_path / "cut" / "checkpoints").numbered()]
    assert len(checkpoints) == 2
    checkpoints[-1].write_bytes(DAMAGES[damage](checkpoints[-1].read_bytes()))
    with pytest.raises(CheckpointError):
        run(tmp_path / "cut", epochs=1, resume=str(checkpoints[-1]))
    listener = Listener()
    assert run(tmp_path / "cut", listener, epochs=1, resume="auto").weights_sha256 == expected.weights_sha256
    assert str(checkpoints[-1]) in listener.notices[0]
    assert str(checkpoints[-2]) in listener.notices[1]


@pytest.mark.parametrize("given", ["checkpoints/checkpoint-000001.safetensors", "checkpoints", "."])
def test_a_checkpoint_can_be_named(tmp_path: Path, whole: Callable[..., TrainResult], given: str) -> None:
    expected = whole(epochs=1)
    unplugged_after(4, tmp_path / "cut", epochs=1, checkpoint_every=3)
    resumed = run(tmp_path / "elsewhere", epochs=1, resume=str(tmp_path / "cut" / given))
    assert resumed.weights_sha256 == expected.weights_sha256


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        run(tmp_path, resume=str(tmp_path / "nowhere"))


def test_a_checkpoint_of_another_run_is_refused_with_the_differences(unfinished: Path) -> None:
    with pytest.raises(CheckpointError, match="another run") as caught:
        run(unfinished, resume="auto", lr=0.002, train_samples=400)
    for part in ("lr was 0.001, is 0.002", "train_samples was 300, is 400"):
        assert part in str(caught.value)
    with pytest.raises(CheckpointError, match="mixed_precision"):
        run(unfinished, resume="auto", mixed_precision="bf16")


def test_a_resume_names_the_changes_that_may_alter_the_last_bits(unfinished: Path) -> None:
    listener = Listener(1)
    with pytest.raises(Unplugged):
        run(unfinished, listener, resume="auto", threads=2, speedups=False)
    for part in ("threads was 1, is 2", "speedups was True, is False"):
        assert any(part in text for text in listener.notices)


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, keep: int) -> None:
    unplugged_after(10, tmp_path, checkpoint_every=1, keep=keep)
    numbers = [number for number, _ in CheckpointFolder(tmp_path / "checkpoints").numbered()]
    assert numbers == list(range(10 - keep + 1, 11))


TENSORS = {"numbers": torch.arange(3)}


def test_a_save_reads_back_only_its_own_checkpoint_and_a_resume_reads_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path, limit: int) -> bytes:
        read.append(path.name)
        return read_limited(path, limit)

    monkeypatch.setattr("mnist_accel.files.checkpoint.read_limited", counted)
    unplugged_after(5, tmp_path, checkpoint_every=1, keep=50)
    names = [path.name for _, path in CheckpointFolder(tmp_path / "checkpoints").numbered()]
    assert len(names) >= 4
    assert read == names
    read.clear()
    unplugged_after(1, tmp_path, checkpoint_every=100, keep=50, resume="auto")
    assert read == names[-1:]


@pytest.mark.parametrize("kind", ["text", "fifo", "endless", "sparse", "loop", "many digits"])
def test_entries_that_only_look_like_checkpoints_are_passed_over(tmp_path: Path, kind: str) -> None:
    folder = CheckpointFolder(tmp_path / "c", keep=1)
    folder.save(TENSORS, b"first")
    stray = tmp_path / "c" / f"checkpoint-{'9' * 225 if kind == 'many digits' else '000002'}.safetensors"
    if kind == "fifo":
        os.mkfifo(stray)
    elif kind in ("endless", "loop"):
        stray.symlink_to(stray if kind == "loop" else "/dev/zero")
    else:
        stray.write_text("no checkpoint")
        os.truncate(stray, 8 * 2**30 if kind == "sparse" else 5)
    found = folder.newest_valid(lambda _: None)
    assert found is not None
    assert found.state == b"first"
    folder.save({"numbers": torch.ones(1)}, b"second")
    again = folder.newest_valid(lambda _: None)
    assert again is not None
    assert again.state == b"second"


def test_a_state_may_hold_any_text(tmp_path: Path) -> None:
    state = json.dumps({"step": 10**400, "sha256": "0" * 64}, separators=(",", ":")).encode()
    for _ in range(8):  # safetensors writes its metadata in any order
        assert checkpoint.read(CheckpointFolder(tmp_path / "c").save(TENSORS, state)).state == state


def test_a_save_that_fails_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.save(TENSORS, b"first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            folder.save(TENSORS, b"second")
    assert [path.name for path in folder.folder.iterdir()] == ["checkpoint-000001.safetensors"]
    assert checkpoint.read(folder.folder / "checkpoint-000001.safetensors").state == b"first"


def test_a_checkpoint_holds_position_history_environment_and_tensors(tmp_path: Path) -> None:
    unplugged_after(8, tmp_path, checkpoint_every=4, validation_samples=100)
    found = checkpoint.read(CheckpointFolder(tmp_path / "checkpoints").numbered()[-1][1])
    state = SavedState.model_validate_json(found.state)
    assert state.step == 2
    assert [record.epoch for record in state.history] == [1]
    assert state.identity["epochs"] == 3
    assert {"compile", "exchange", "speedups", "threads", "torch"} <= state.environment.keys()
    for name in (
        "model.features.0.weight",
        "optimizer.0.exp_avg",
        "best.features.0.weight",
        "process.0.random",
        "process.0.sums",
    ):
        assert name in found.tensors
    assert found.tensors["step_losses"].shape == (6,)


def rewritten(path: Path, **changes: object) -> None:
    """Change values in the state of a checkpoint, with a SHA-256 that fits."""
    found = checkpoint.read(path)
    state = json.loads(found.state) | changes
    path.write_bytes(checkpoint.encode(found.tensors, json.dumps(state).encode()))


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch_seconds": float("nan")},
        {"epoch_seconds": float("inf")},
        {"epoch_seconds": 10**400},
        {"epoch_seconds": -1.0},
        {"step": 10**400},
        {"step": -1},
        {"step": True},
        {"step": 10**30},
        {"history": [None]},
        {"history": [{"epoch": 10**400}]},
        {"history": []},
        {"identity": []},
        {"something": "else"},
    ],
)
def test_values_that_no_run_writes_are_a_clear_error(unfinished: Path, changes: dict[str, object]) -> None:
    rewritten(CheckpointFolder(unfinished / "checkpoints").numbered()[-1][1], **changes)
    with pytest.raises(CheckpointError, match="--resume never"):
        run(unfinished, resume="auto")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("process.0.sums", torch.ones(3, 5)),
        ("optimizer.0.exp_avg", torch.zeros(7)),
        ("optimizer.0.step", torch.zeros(7)),
        ("process.0.random", torch.zeros(7, dtype=torch.uint8)),
        ("model.features.0.weight", None),
    ],
)
def test_tensors_of_other_shapes_or_types_are_a_clear_error(
    unfinished: Path, name: str, tensor: torch.Tensor | None
) -> None:
    path = CheckpointFolder(unfinished / "checkpoints").numbered()[-1][1]
    found = checkpoint.read(path)
    tensors = dict(found.tensors)
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    CheckpointFolder(path.parent, keep=9).save(tensors, found.state)
    with pytest.raises(CheckpointError, match="does not fit"):
        run(unfinished, resume="auto")


def test_more_epochs_continue_a_run_with_a_constant_learning_rate(
    tmp_path: Path, whole: Callable[..., TrainResult]
) -> None:
    unplugged_after(9, tmp_path / "cut", epochs=2)
    assert run(tmp_path / "cut", resume="auto").weights_sha256 == whole().weights_sha256


def test_a_run_with_a_schedule_says_why_it_cannot_be_extended(tmp_path: Path) -> None:
    unplugged_after(15, tmp_path, recipe="speedrun")
    with pytest.raises(CheckpointError, match="learning rate of each step depends on the number of epochs"):
        run(tmp_path, recipe="speedrun", epochs=4, resume="auto")


def test_resuming_a_finished_run_says_that_it_is_finished(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    listener = Listener()
    run(tmp_path, listener, epochs=1, resume="auto")
    assert any("is finished; this run starts anew" in text for text in listener.notices)
    with pytest.raises(CheckpointError, match="the run there is finished"):
        run(tmp_path / "other", epochs=1, resume=str(tmp_path))


def test_a_name_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for name in ("missing", "x" * 300):
        with pytest.raises(CheckpointError, match="no such checkpoint"):
            run(tmp_path, epochs=1, resume=name)


def test_epoch_figures_appear_while_the_run_goes_on_and_survive_a_crash(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    unplugged_after(15, tmp_path)
    partial = tmp_path / "metrics.partial.jsonl"
    lines = [json.loads(line) for line in partial.read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    result = run(tmp_path, resume="auto")
    assert not partial.exists()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    losses = [line.split(",") for line in (tmp_path / "step_losses.csv").read_text().splitlines()]
    assert losses[0] == ["epoch", "step", "loss"]
    assert [(row[0], row[1]) for row in losses[1:4]] == [("1", "1"), ("1", "2"), ("1", "3")]
    assert len(losses) == 1 + result.steps
    last = [float(row[2]) for row in losses[-6:]]
    assert sum(last) / 6 == pytest.approx(result.train_loss, rel=1e-4)


@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_bad_numbers_stop_the_run_by_name_and_never_reach_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Step 9 is bad; the weights stay those after step 8."""
    seen: list[dict[str, torch.Tensor]] = []
    original = loop.train_step

    def spoil(setup: Setup, batch: torch.Tensor, *place: Any) -> None:
        if len(seen) == 8:
            if where == "loss":
                monkeypatch.setattr(loop, "summed_loss", lambda logits, *_: logits.sum() * 0 + float("inf"))
            else:
                parameter = next(setup.module.parameters())
                parameter.register_hook(lambda gradient: torch.full_like(gradient, float("-inf")))
        original(setup, batch, *place)
        seen.append({name: value.clone() for name, value in setup.module.state_dict().items()})

    monkeypatch.setattr(loop, "train_step", spoil)
    with pytest.raises(NumbersError, match="epoch 2, step 3"):
        run(tmp_path)
    assert all(torch.equal(seen[7][name], seen[-1][name]) for name in seen[7])
    assert not all(torch.equal(seen[6][name], seen[7][name]) for name in seen[7])


def test_a_learning_rate_that_blows_up_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NumbersError, match="lower --lr"):
        run(tmp_path, lr=1000, mixed_precision="no")
    assert not (tmp_path / "mnist_cnn_model.pth").exists()


def test_the_folder_deleted_under_the_run_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Guard.after_epoch

    def pull(self: Guard, setup: Setup, progress: Progress) -> None:
        shutil.rmtree(tmp_path / "gone")
        original(self, setup, progress)

    monkeypatch.setattr(Guard, "after_epoch", pull)
    with pytest.raises(OutputError, match="cannot write a checkpoint"):
        run(tmp_path / "gone")


def test_held_out_samples_choose_and_the_test_set_is_used_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[int] = []
    from mnist_accel.training.metrics import predict_dataset as original

    def count(model: object, pipeline: object, *rest: object) -> object:
        evaluated.append(len(pipeline))  # type: ignore[arg-type]
        return original(model, pipeline, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("mnist_accel.training.loop.predict_dataset", count)
    result = run(tmp_path, validation_samples=200, select="best")
    assert evaluated == [200, 200, 200, 100]
    assert all(record.test_loss is None for record in result.history)
    best = min(result.history, key=lambda record: record.validation_loss or 0)
    assert best.validation_accuracy is not None
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["test_accuracy"] is None
    assert line["validation_loss"] == result.history[0].validation_loss
    written = json.loads((tmp_path / "mnist_cnn_model.json").read_text())["metrics"]
    assert written["test_loss"] == result.test_loss
    assert written["epoch"] == result.chosen_epoch == best.epoch


def test_the_best_epochs_weights_are_kept_through_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a learning rate this high in their second half, later epochs are worse than the first."""
    monkeypatch.setattr(loop, "learning_rate", lambda _, step, steps: 0.003 if step < steps // 2 else 0.05)
    chosen: dict[str, Any] = {"validation_samples": 200, "select": "best", "seed": 2, "epochs": 4}
    whole = run(tmp_path / "whole", **chosen)
    assert whole.chosen_epoch < 4, "this test wants a run whose last epoch is not its best"
    unplugged_after(20, tmp_path / "cut", **chosen)
    resumed = run(tmp_path / "cut", resume="auto", **chosen)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert run(tmp_path / "last", **chosen | {"select": "last"}).weights_sha256 != whole.weights_sha256


def test_training_stops_when_validation_no_longer_improves(tmp_path: Path) -> None:
    wild: dict[str, Any] = {"validation_samples": 200, "early_stop": 1, "lr": 0.02, "epochs": 50, "seed": 3}
    whole = run(tmp_path / "whole", **wild)
    losses = [record.validation_loss or 0.0 for record in whole.history]
    assert len(losses) < 50
    assert losses[-1] >= min(losses[:-1])
    assert losses[:-1] == sorted(losses[:-1], reverse=True)
    unplugged_after(len(losses) * 6 - 2, tmp_path / "cut", **wild)
    assert run(tmp_path / "cut", resume="auto", **wild).weights_sha256 == whole.weights_sha256


def test_held_out_samples_are_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give at most 4000"):
        run(tmp_path, validation_samples=4001, train_samples=None)
    with pytest.raises(DataError, match="no training samples are left"):
        run(tmp_path, validation_samples=4000, train_samples=None)
    assert run(tmp_path, validation_samples=3900, train_samples=None, epochs=1).train_samples == 100


def test_capturing_does_not_change_the_run(
    tmp_path: Path, whole: Callable[..., TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = whole().weights_sha256
    original = Guard.after_step

    def look(self: Guard, setup: Setup, progress: Progress) -> None:
        capture(setup, progress, {})
        original(self, setup, progress)

    monkeypatch.setattr(Guard, "after_step", look)
    assert run(tmp_path / "captured").weights_sha256 == plain
