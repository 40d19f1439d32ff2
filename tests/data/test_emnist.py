import gzip
import hashlib
import io
import string
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from torchvision.datasets import EMNIST

from mnist_accel.config.settings import DATASETS, TrainConfig
from mnist_accel.data import datasets
from mnist_accel.data.named_sets import NAMED_SETS
from mnist_accel.errors import DataError
from tests.data.test_named_sets import Server

UPRIGHT = np.random.default_rng(0).integers(0, 256, (52, 28, 28), np.uint8)
LABELS = {"letters": np.arange(1, 27).repeat(2), "digits": np.arange(52) % 10, "balanced": np.arange(52) % 47}
CLASSES = {"letters": string.ascii_lowercase, "digits": string.digits}


def packed(array: npt.NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + np.ascontiguousarray(array).tobytes())


def archive() -> bytes:
    """The .zip of EMNIST's form with 52 training and 26 test images in three of its data sets."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as members:
        for split, labels in LABELS.items():
            for part, size in (("train", 52), ("test", 26)):
                name = f"gzip/emnist-{split}-{part}"
                members.writestr(f"{name}-images-idx3-ubyte.gz", packed(UPRIGHT[:size].swapaxes(1, 2)))
                members.writestr(f"{name}-labels-idx1-ubyte.gz", packed(labels[:size].astype(np.uint8)))
            members.writestr(f"gzip/emnist-{split}-mapping.txt", "1 65 97")
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of EMNIST's archive that replaces the real one."""
    server = Server()
    server.files = {"gzip.zip": archive()}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(EMNIST, "url", f"{server.address}gzip.zip")
    monkeypatch.setattr(EMNIST, "md5", hashlib.md5(server.files["gzip.zip"]).hexdigest())
    yield server
    server.shutdown()
    server.server_close()


def test_emnist_is_fetched_once_for_all_its_data_sets_and_read_upright(server: Server, tmp_path: Path) -> None:
    told: list[str] = []
    for split, class_names in CLASSES.items():
        found = datasets.load(f"emnist-{split}", tmp_path, told.append)
        assert found.class_names == tuple(class_names)
        np.testing.assert_array_equal(found.train.images, UPRIGHT)
        np.testing.assert_array_equal(found.test.labels, (LABELS[split] - (split == "letters"))[:26])
    assert told == ["downloading emnist-letters (560 MB)"]
    assert server.requests == ["gzip.zip"]


def test_files_that_torchvision_has_unpacked_are_used(server: Server, tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(archive())) as members:
        for name in (name for name in members.namelist() if "letters" in name and name.endswith(".gz")):
            (raw / Path(name).stem).write_bytes(gzip.decompress(members.read(name)))
    assert len(datasets.load("emnist-letters", tmp_path, print).train) == 52
    assert server.requests == []


@pytest.mark.parametrize("split", EMNIST.splits)
def test_names_and_classes_are_torchvisions(split: str) -> None:
    assert TrainConfig(dataset=f"EMNIST-{split}").dataset in DATASETS
    classes = [name for name in EMNIST.classes_split_dict[split] if name != "N/A"]
    assert list(NAMED_SETS[f"emnist-{split}"].classes) == classes


@pytest.mark.usefixtures("server")
def test_a_label_without_a_class_is_named(tmp_path: Path) -> None:
    datasets.load("emnist-letters", tmp_path, print)
    path = tmp_path / "EMNIST" / "raw" / "emnist-letters-test-labels-idx1-ubyte.gz"
    path.write_bytes(packed(np.zeros(26, np.uint8)))
    told: list[str] = []
    datasets.load("emnist-letters", tmp_path, told.append)
    assert "labels 0 to 0 instead of 1 to 26" in told[0]


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_an_archive_that_is_not_the_published_one_is_refused(server: Server, tmp_path: Path, content: bytes) -> None:
    server.files = {"gzip.zip": content}
    with pytest.raises(DataError, match=r"emnist-letters is not in .*could not be downloaded.*copy the \.gz files in"):
        datasets.load("emnist-letters", tmp_path, print)
    assert list(tmp_path.iterdir()) == []
