from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_accel.errors import WeightsError
from mnist_accel.files import weights
from mnist_accel.models import architectures as models

HERE = Path("some.pth")


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return models.build("cnn").to(memory_format=torch.channels_last)


def test_a_weights_file_is_a_plain_state_dict(model: torch.nn.Module) -> None:
    state = torch.load(io.BytesIO(weights.serialise(model.double())), weights_only=True)
    model.float()
    fresh = models.build("cnn")
    fresh.load_state_dict(state)
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, model.state_dict()[name])


def test_equal_weights_are_equal_bytes(model: torch.nn.Module) -> None:
    assert weights.serialise(model) == weights.serialise(model)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(model: torch.nn.Module, prefix: str) -> None:
    content = saved({prefix + name: tensor for name, tensor in model.state_dict().items()})
    name, loaded = weights.into_model(weights.load(content, HERE), None, HERE)
    assert name == "cnn"
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_weights_of_another_architecture_say_which_keys_differ(model: torch.nn.Module) -> None:
    state = model.state_dict()
    del state["features.0.bias"]
    state["extra"] = torch.zeros(1)
    state["classifier.4.bias"] = torch.zeros(11)
    with pytest.raises(WeightsError, match=r"missing features\.0\.bias") as caught:
        weights.into_model(weights.load(saved(dict(state)), HERE), None, HERE)
    assert "unexpected extra" in str(caught.value)
    assert "classifier.4.bias (11,) instead of (10,)" in str(caught.value)


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.proof}",))


def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    for content in (saved({"w": Hostile(proof)}), pickle.dumps(Hostile(proof)), saved(Hostile(proof))):
        with pytest.raises(WeightsError):
            weights.load(content, HERE)
    assert not proof.exists()


@pytest.mark.parametrize(
    "value", [[1, 2], {}, {"a": 1}, {1: torch.zeros(1)}, torch.zeros(3), "text", {"model": {"w": torch.zeros(1)}}]
)
def test_what_is_no_state_dict_is_refused(value: Any) -> None:
    with pytest.raises(WeightsError):
        weights.load(saved(value), HERE)


def test_a_whole_model_is_refused(model: torch.nn.Module) -> None:
    with pytest.raises(WeightsError, match="refers to"):
        weights.load(saved(model), HERE)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99, 0.9999])
def test_a_truncated_file_is_refused(model: torch.nn.Module, share: float) -> None:
    content = weights.serialise(model)
    with pytest.raises(WeightsError):
        weights.load(content[: int(share * len(content))], HERE)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_packed_archive_that_would_fill_the_memory_is_refused() -> None:
    """3 MB that unpack to 3 GB; refused within 2 GB of memory, in a process of its own so that this can be seen."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        with archive.open("archive/data/0", "w", force_zip64=True) as entry:
            for _ in range(300):
                entry.write(bytes(10_000_000))
    program = (
        "import sys; from pathlib import Path; from mnist_accel import weights\n"
        "try: weights.load(sys.stdin.buffer.read(), Path('bomb.pth'))\n"
        "except weights.WeightsError as error: print(error)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], input=buffer.getvalue(), capture_output=True, check=True)
    assert b"packed archive" in done.stdout
    assert int(done.stdout.splitlines()[-1]) < 2 * 2**20  # kB
