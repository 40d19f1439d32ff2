"""A block device that records every write and every flush, so that a power cut can be played at each of them.

It is a loop device on a file that a child process serves through FUSE: the child sees what a file system sends to its
disk. Linux only; needs root, /dev/fuse and loop devices.
"""

import ctypes
import errno
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ENTRY = struct.Struct("<qI")
"""Offset and length of a recorded write, whose content follows; the offset of a flush is -1."""
LARGEST_WRITE, SECTOR = 2**17, 4096
GETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT = 3, 14, 15, 16, 17, 18, 20, 25, 26
"""Requests of the kernel, as in linux/fuse.h."""
WITHOUT_REPLY = (2, 36, 42)
"""FORGET, INTERRUPT and BATCH_FORGET."""


@dataclass(frozen=True)
class Cut:
    """A power cut.

    Attributes:
        position: the length of the record at the cut.
        flushed: writes that a flush has made durable since the cut before.
        pending: later writes; the disk may have done any of them.
    """

    position: int
    flushed: list[tuple[int, bytes]]
    pending: list[tuple[int, bytes]]


class RecordedDisk:
    """A disk of `size` bytes; its files are in `folder`."""

    def __init__(self, folder: Path, size: int) -> None:
        self.blank, self.image, self.record = folder / "blank", folder / "image", folder / "record"
        self.served = folder / "served"
        for path in (self.image, self.record, self.served):
            path.touch()
        os.truncate(self.image, size)

    @contextmanager
    def mounted(self, kind: str, options: str, at: Path) -> Iterator[None]:
        """Make a file system of a `kind` and mount it at `at`. What is written inside the block is recorded."""
        subprocess.run([f"mkfs.{kind}", "-q", str(self.image)], check=True)
        copy_sparse(self.image, self.blank)
        server = os.fork()
        if server == 0:
            _serve(self.image, self.record, self.served)
        try:
            while self.served.stat().st_size == 0:
                time.sleep(0.01)
            with mounted(self.served, options, at):
                yield
        finally:
            # Lazily: the loop device may hold the file for a moment longer. The server ends when nothing uses it.
            subprocess.run(["umount", "--lazy", str(self.served)], check=False)
            os.waitpid(server, 0)

    def position(self) -> int:
        """The length of the record so far."""
        return self.record.stat().st_size

    def cuts(self) -> Iterator[Cut]:
        """A power cut after each write."""
        flushed: list[tuple[int, bytes]] = []
        pending: list[tuple[int, bytes]] = []
        with self.record.open("rb") as record:
            while head := record.read(ENTRY.size):
                offset, length = ENTRY.unpack(head)
                if offset < 0:
                    flushed, pending = flushed + pending, []
                    continue
                pending.append((offset, record.read(length)))
                yield Cut(record.tell(), flushed, list(pending))
                flushed = []


def survivors(pending: list[tuple[int, bytes]], how: str, generator: random.Random) -> list[tuple[int, bytes]]:
    """The pending writes that the disk has done before a cut: "none", "all", or "some", with the last one torn."""
    if how != "some":
        return pending if how == "all" else []
    kept = [write for write in pending if generator.random() < 0.5]
    offset, content = pending[-1]
    return [*kept, (offset, content[: SECTOR * generator.randrange(len(content) // SECTOR + 1)])]


def apply(writes: list[tuple[int, bytes]], image: Path) -> None:
    """Write to an image."""
    with image.open("r+b") as file:
        for offset, content in writes:
            file.seek(offset)
            file.write(content)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy an image; its holes stay holes."""
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)


@contextmanager
def mounted(image: Path, options: str, at: Path) -> Iterator[None]:
    """Mount an image, as after a restart: the file system recovers."""
    subprocess.run(["mount", "-o", f"loop,{options}", str(image), str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


def is_possible() -> bool:
    """Whether this machine has what a RecordedDisk needs."""
    needed = os.geteuid() == 0 and os.access("/dev/fuse", os.W_OK) and os.access("/dev/loop-control", os.W_OK)
    return needed and shutil.which("mkfs.ext4") is not None


def _serve(image: Path, record: Path, served: Path) -> None:
    """Serve `image` as the file `served` and record what is written, until it is unmounted. Never returns."""
    code = 1
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
        settings = f"fd={device},rootmode=100000,user_id=0,group_id=0".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"recorder", os.fsencode(served), b"fuse", ctypes.c_ulong(0), settings) != 0:
            raise OSError(ctypes.get_errno(), "cannot mount a file with FUSE")
        file, log = os.open(image, os.O_RDWR), os.open(record, os.O_WRONLY | os.O_APPEND)
        while True:
            request = os.read(device, LARGEST_WRITE + 4096)
            _, opcode, unique = struct.unpack_from("<IIQ", request)
            if opcode not in WITHOUT_REPLY:
                reply = _reply(opcode, request[40:], file, log)
                number = -errno.ENOSYS if reply is None else 0
                os.write(device, struct.pack("<IiQ", 16 + len(reply or b""), number, unique) + (reply or b""))
    except OSError as error:
        code = 0 if error.errno == errno.ENODEV else error.errno or 1  # ENODEV: it was unmounted
    finally:
        os._exit(code)


def _reply(opcode: int, body: bytes, image: int, record: int) -> bytes | None:
    """The reply to a request of the kernel; None if it is not supported."""
    size = os.fstat(image).st_size
    if opcode == WRITE:
        _, offset, length = struct.unpack_from("<QQI", body)
        content = body[40 : 40 + length]
        os.pwrite(image, content, offset)
        os.write(record, ENTRY.pack(offset, length) + content)
        return struct.pack("<II", length, 0)
    if opcode == READ:
        _, offset, length = struct.unpack_from("<QQI", body)
        return os.pread(image, length, offset)
    if opcode == FSYNC:
        os.write(record, ENTRY.pack(-1, 0))
    replies = {
        INIT: struct.pack("<4I2H2I2H8I", 7, 31, 0, 32, 12, 9, LARGEST_WRITE, 1, 0, 0, *[0] * 8),
        GETATTR: struct.pack("<QII6Q10I", 0, 0, 0, 1, size, size // 512, *[0] * 6, 0o100600, 1, 0, 0, 0, 4096, 0),
        OPEN: bytes(16),
        STATFS: bytes(80),
    }
    return replies.get(opcode, b"" if opcode in (FSYNC, FLUSH, RELEASE) else None)
