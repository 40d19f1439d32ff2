import gc
import gzip
import hashlib
import http.server
import json
import os
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
from torchvision.datasets import FashionMNIST

from mnist_accel.data import datasets as data
from mnist_accel.data.digits import DataSet, fingerprint
from mnist_accel.data.named_sets import NAMED_SETS
from mnist_accel.errors import DataError
from tests.conftest import clean_environment

FASHION = "FashionMNIST"
FILES = NAMED_SETS["mnist"].files

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see `server`


def idx_file(name: str) -> bytes:
    """A file of the right header and size: black images, labels 0 … 9 in turn."""
    samples = 60_000 if "train" in name else 10_000
    shape = (samples, 28, 28) if "images" in name else (samples,)
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    body = bytes(np.prod(shape)) if len(shape) == 3 else bytes(range(10)) * (shape[0] // 10)
    return header + body


class Server(http.server.ThreadingHTTPServer):
    """Serves the packed files; counts requests; can be told to misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {f"{name}.gz": gzip.compress(idx_file(name), 1) for name in FILES}
        self.requests: list[str] = []
        self.behaviour = "serve"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def checksums(self) -> dict[str, str]:
        return {name: hashlib.md5(content).hexdigest() for name, content in self.files.items()}


def serve_fashion_from(url: str, checksums: dict[str, str]) -> None:
    """Let Fashion-MNIST come from this address."""
    FashionMNIST.mirrors, FashionMNIST.resources = [url], list(checksums.items())


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
    """A server of Fashion-MNIST that replaces the real one."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(FashionMNIST, "mirrors", [])
    monkeypatch.setattr(FashionMNIST, "resources", [])
    serve_fashion_from(server.address, server.checksums)
    yield server
    server.shutdown()
    server.server_close()
    gc.collect()  # connections that pooch leaves open after an error; their warnings belong to this module


def load(name: str, folder: Path, told: list[str] | None = None) -> DataSet:
    """Load a data set; the notices are added to `told`."""
    return data.load(name, folder, (told if told is not None else []).append)


def test_a_missing_data_set_is_fetched_once_into_torchvisions_layout(server: Server, tmp_path: Path) -> None:
    told: list[str] = []
    first = load("fashion-mnist", tmp_path, told)
    assert (len(first.train), len(first.test), len(first.class_names)) == (60000, 10000, 10)
    assert told == ["downloading fashion-mnist"]
    assert (tmp_path / FASHION / "raw" / "train-images-idx3-ubyte").read_bytes() == idx_file("train-images-idx3-ubyte")
    assert len(server.requests) == 4
    assert sorted(path.name for path in (tmp_path / FASHION / "raw").iterdir()) == sorted(FILES)  # no lock file
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
    told: list[str] = []
    load("fashion-mnist", tmp_path, told)
    assert server.requests == ["t10k-labels-idx1-ubyte.gz"]
    assert "t10k-labels-idx1-ubyte is damaged" in told[0]
    assert path.read_bytes() == good


@pytest.mark.parametrize("behaviour", ["refuse", "cut short", "other file"])
def test_a_file_that_does_not_arrive_whole_never_appears(server: Server, tmp_path: Path, behaviour: str) -> None:
    server.behaviour = behaviour
    if behaviour == "other file":
        server.files = {name: gzip.compress(b"something else") for name in server.files}
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load("fashion-mnist", tmp_path)
    assert server.address in str(caught.value)
    assert "check --data-dir and the network" in str(caught.value)
    assert len(str(caught.value)) < 300 + 2 * len(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_that_never_answers_is_given_up_in_time(server: Server, tmp_path: Path) -> None:
    server.behaviour = "hang"
    began = time.monotonic()
    with pytest.raises(DataError, match="could not be downloaded"):
        load("fashion-mnist", tmp_path)
    assert time.monotonic() - began < 15


def test_a_mistyped_data_directory_gets_a_short_error_and_nothing_is_created(server: Server, tmp_path: Path) -> None:
    server.behaviour = "refuse"
    with pytest.raises(DataError) as caught:
        load("fashion-mnist", tmp_path / "mistyped" / "data")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300
    assert list(tmp_path.iterdir()) == []


def test_without_a_connection_the_error_is_short_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", [])
    monkeypatch.setattr(FashionMNIST, "resources", [])
    serve_fashion_from("http://127.0.0.1:9/", dict.fromkeys((f"{name}.gz" for name in FILES), "0" * 32))
    with pytest.raises(DataError, match="Connection refused") as caught:
        load("fashion-mnist", tmp_path)
    assert "HTTPConnectionPool" not in str(caught.value)


PARALLEL = """
import json, sys
from pathlib import Path
from mnist_accel.data import datasets as data
from mnist_accel.errors import DataError
from tests.data.test_named_sets import serve_fashion_from
folder, url, checksums = sys.argv[1:]
serve_fashion_from(url, json.loads(checksums))
print("ready", flush=True)
sys.stdin.readline()
try:
    print(len(data.load("fashion-mnist", Path(folder), lambda _: None).train))
except DataError as error:
    print(error)
"""


def parallel_loads(server: Server, folder: Path, processes: int) -> list[str]:
    """The output of several processes of one machine that load the same missing data set at the same time."""
    command = [sys.executable, "-c", PARALLEL, str(folder), server.address, json.dumps(server.checksums)]
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


def test_packed_files_that_the_user_put_there_are_used(server: Server, tmp_path: Path) -> None:
    raw = tmp_path / FASHION / "raw"
    raw.mkdir(parents=True)
    for name, content in server.files.items():
        (raw / name).write_bytes(content)
    assert len(load("fashion-mnist", tmp_path).test) == 10000
    assert server.requests == []


@pytest.fixture
def copy(data_dir: Path, tmp_path: Path) -> Path:
    """A data directory with the four files of MNIST, which a test may damage."""
    shutil.copytree(data_dir, tmp_path / "copy")
    return tmp_path / "copy"


def test_mnist_is_read_from_the_package_without_a_copy_elsewhere(tmp_path: Path) -> None:
    told: list[str] = []
    dataset = load("mnist", tmp_path / "missing", told)
    assert (len(dataset.train), len(dataset.test), told) == (60000, 10000, [])
    assert dataset.source == "the mnist-accel package"
    assert np.bincount(dataset.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert list(tmp_path.iterdir()) == []


def test_a_complete_copy_of_mnist_in_the_data_directory_is_used(data_dir: Path, tmp_path: Path) -> None:
    dataset, packaged = load("mnist", data_dir), load("mnist", tmp_path)
    assert dataset.source == str(data_dir / "MNIST" / "raw")
    assert fingerprint(dataset) == fingerprint(packaged)
    assert np.array_equal(dataset.train.images, packaged.train.images)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("damage", ["altered", "fifo", "endless device", "sparse file", "folder"])
def test_a_damaged_copy_of_mnist_is_named_and_the_packaged_one_is_used(copy: Path, damage: str) -> None:
    path = copy / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "altered":
        content[1000] ^= 1
        path.write_bytes(content)
    elif damage == "fifo":
        os.mkfifo(path)
    elif damage == "endless device":
        path.symlink_to("/dev/zero")
    elif damage == "sparse file":
        with path.open("wb") as file:
            file.truncate(8 * 2**30)
    else:
        path.mkdir()
    told: list[str] = []
    dataset = load("mnist", copy, told)
    assert dataset.source == "the mnist-accel package"
    assert len(told) == 1
    assert f"{path} is damaged" in told[0]
    assert "using the files of the mnist-accel package" in told[0]


def test_an_incomplete_copy_of_mnist_is_not_used(copy: Path) -> None:
    (copy / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    assert load("mnist", copy).source == "the mnist-accel package"


@pytest.mark.parametrize("name", ["mnist-5k", "auto", "ixd:here"])
def test_an_unknown_name_such_as_an_old_record_holds_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"unknown data set {name}; (did you mean|known are)"):
        load(name, tmp_path)


def test_damaged_packaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_accel.data.named_sets.PACKAGED_MNIST", tmp_path)
    with pytest.raises(DataError, match="install mnist-accel again"):
        load("mnist", tmp_path)


def test_reading_mnist_imports_neither_torch_nor_other_slow_packages(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mnist_accel.data import datasets\n"
        "datasets.load('mnist', Path('.'), print)\n"
        "print([name for name in ('torch', 'torchvision', 'scipy', 'pooch', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
