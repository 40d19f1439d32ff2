import io
import os
import pickle
import subprocess
import sys
import time
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
def test_prefixes_of_wrappers_are_removed(model: torch.nn.Module, prefix: str) -> None:
    content = saved({prefix + name: tensor for name, tensor in model.state_dict().items()})
    assert list(weights.load(content, HERE)) == list(model.state_dict())


def test_a_prefix_repeated_many_times_does_not_hang() -> None:
    started = time.monotonic()
    assert list(weights.load(saved({"module." * 10_000 + "w": torch.zeros(1)}), HERE)) == ["w"]
    with pytest.raises(WeightsError, match="bytes of names and shapes"):
        weights.load(saved({"module." * 590_000 + "w": torch.zeros(1)}), HERE)
    assert time.monotonic() - started < 2


def archive_of(pickled: bytes) -> bytes:
    """An archive as of torch.save with a pickle written by hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


PUT_AND_GET = [b"q" + bytes([number]) + b"h" + bytes([number]) for number in range(100)]


@pytest.mark.parametrize(
    "pickled",
    [
        b"})" + b"".join(step + b"\x86" for step in PUT_AND_GET) + b"K\x01s.",  # pairs of pairs: 2**100 elements
        b"}(" + b"K\x01" * 100_000 + b"tK\x01s.",  # a long tuple
        b"}("
        + b"".join(b"\x8a\x0a" + (number * (2**61 - 1)).to_bytes(10, "little") + b"N" for number in range(50_000))
        + b"u.",  # integers with one hash
        b"ccollections\nOrderedDict\n](]()eNeae\x85R.",  # keys that no SETITEM shows
        b"ctorch._utils\n_rebuild_tensor_v2\n)\x81.",
        b"}" + b"(" * 200_000 + b".",
    ],
    ids=["shared tuples", "long tuple", "equal hashes", "call", "opcode", "marks"],
)
def test_a_pickle_that_takes_long_to_load_is_refused_at_once(pickled: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsError):
        weights.load(archive_of(pickled), HERE)
    assert time.monotonic() - started < 5


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.proof}",))


def test_no_code_in_a_file_runs(tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    for content in (saved({"w": Hostile(proof)}), pickle.dumps(Hostile(proof)), saved(Hostile(proof))):
        with pytest.raises(WeightsError):
            weights.load(content, HERE)
    assert not proof.exists()


@pytest.mark.parametrize(
    "value", [[1, 2], {}, {"a": 1}, {1: torch.zeros(1)}, torch.zeros(3), "text", {"model": {"w": torch.zeros(1)}}]
)
def test_a_file_without_a_state_dict_is_refused(value: Any) -> None:
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
    """7 MB that unpack to 1.5 GB; refused within 1 GB of memory, in a process of its own so that this can be seen."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        with archive.open("archive/data/0", "w", force_zip64=True) as entry:
            for _ in range(150):
                entry.write(bytes(10_000_000))
    program = (
        "import sys; from pathlib import Path; from mnist_accel.files import weights\n"
        "try: weights.load(sys.stdin.buffer.read(), Path('bomb.pth'))\n"
        "except weights.WeightsError as error: print(error)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], input=buffer.getvalue(), capture_output=True, check=True)
    assert b"packed archive" in done.stdout
    assert int(done.stdout.splitlines()[-1]) < 2**20  # kB
