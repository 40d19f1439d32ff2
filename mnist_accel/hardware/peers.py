"""How the processes of a run meet through the launcher's store, and how they name one that is lost."""

import contextlib
import json
import socket
import threading
import time
import uuid
from datetime import timedelta

import psutil
from torch import distributed
from torch.distributed import PrefixStore, Store

from mnist_accel.errors import LaunchError
from mnist_accel.hardware.cores import launched_world_size

BEAT_SECONDS = 0.5
LISTEN_SECONDS = 3 * BEAT_SECONDS  # a process that is alive reports within this time
SIGNS = ("gloo", "closed by peer", "timed out waiting", "monitoredbarrier")  # in torch's message about a lost process


class Heartbeats:
    """The reports of this process to a store that all processes share, made by a thread, and those of the others."""

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self.store, self.rank, self.world_size = store, rank, world_size
        self.move_to("at the start")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._thread.start()

    def move_to(self, position: str) -> None:
        """Note the position of this process in the run, which the messages of the others name."""
        self.position, self._since = position, time.monotonic()

    def end(self) -> None:
        """Report no longer."""
        self._ended.set()
        self._thread.join(BEAT_SECONDS)

    def _report(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store has ended with its process, or cannot be reached
            while not self._ended.is_set():
                self.store.set(f"beat/{self.rank}", json.dumps([time.monotonic(), socket.gethostname(), self.position]))
                self._ended.wait(BEAT_SECONDS)

    def lost_processes(self) -> str:
        """Name the processes that do not report, and kill those of this launcher; else name those that do not go on."""
        waited = f"this process has waited {time.monotonic() - self._since:.0f} s"
        try:
            self.store.set(f"noticed/{self.rank}", "")
            before = self._last_beats()
            time.sleep(LISTEN_SECONDS)
            beats = self._last_beats()
            others = [rank for rank in range(self.world_size) if rank != self.rank]
            silent = [rank for rank in others if beats[rank][0] == before[rank][0]]
            stuck = [rank for rank in others if not self.store.check([f"noticed/{rank}"])]
        except RuntimeError:  # rank 0 or its launcher holds the store
            return f"rank 0 has ended or cannot be reached; {waited}"
        launcher = psutil.Process().parent()
        for other in launcher.children() if launcher else ():
            with contextlib.suppress(psutil.Error):  # it has ended
                if other.environ().get("RANK") in map(str, silent):  # if it is frozen, the launcher waits 30 s for it
                    other.kill()
        state = "has ended, is frozen or cannot be reached" if silent else "is alive, but does not go on"
        found = [f"rank {rank} on {beats[rank][1]} {state}; it was last {beats[rank][2]}" for rank in silent or stuck]
        return "; ".join([*found, waited])

    def _last_beats(self) -> list[tuple[float, str, str]]:
        """Time in the process' own clock, host and position of the last report of each process, by rank."""
        keys = [f"beat/{rank}" for rank in range(self.world_size)]
        texts = [self.store.get(key).decode() if self.store.check([key]) else None for key in keys]
        return [tuple(json.loads(text)) if text else (0, "an unknown host", "not heard of") for text in texts]


_joined: list[Heartbeats] = []  # those of the group that `join` has formed


def join(backend: str, timeout: timedelta) -> Heartbeats | None:
    """Form the process group of this attempt, unless that is done; None if no launcher started several processes."""
    if launched_world_size() is not None and not distributed.is_initialized():
        store, rank, world_size = next(distributed.rendezvous("env://", timeout=timeout))
        own = PrefixStore(attempt_name(store, rank, world_size, timeout), store)
        distributed.init_process_group(backend, store=own, rank=rank, world_size=world_size, timeout=timeout)
        _joined[:] = [Heartbeats(own, rank, world_size)] if world_size > 1 else []
    return _joined[0] if _joined else None


def leave() -> None:
    """Leave the process group. Without this, a process could end while its threads communicate, and abort."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
    for heartbeats in _joined:
        heartbeats.end()


def attempt_name(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """A new name that all processes of this attempt agree on.

    torchrun keeps one store for all attempts. After a restart it still holds the addresses of dead processes, for which
    Gloo waits (torch 2.14). So each attempt uses names of its own. On several machines the restart counts differ.
    Delete this function when launchers give each attempt a new store, as TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 does.

    Every rank but 0 sends a request with a random key and waits for the reply to it. Rank 0 replies to all requests,
    even of dead processes, until each rank has confirmed the name. Raises RuntimeError if not all join in time.
    """
    if rank > 0:
        key = uuid.uuid4().hex
        store.set(f"mnist-accel/request/{rank}", key)
        store.wait([f"mnist-accel/reply/{key}"], timeout)
        name = store.get(f"mnist-accel/reply/{key}").decode()
        store.set(f"mnist-accel/confirmed/{name}/{rank}", "")
        return name
    name, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    missing = set(range(1, world_size))
    while missing:
        for other in missing:
            if store.check([f"mnist-accel/request/{other}"]):
                store.set(f"mnist-accel/reply/{store.get(f'mnist-accel/request/{other}').decode()}", name)
        missing = {other for other in missing if not store.check([f"mnist-accel/confirmed/{name}/{other}"])}
        if missing and time.monotonic() > deadline:
            raise RuntimeError(f"timed out waiting for {len(missing)} other processes")
        time.sleep(0.005)
    return name


def lost_contact(error: Exception) -> LaunchError | None:
    """The error to report if `error` means that another process no longer answers; otherwise None."""
    text = str(error).partition("\n")[0]
    has_sign = isinstance(error, RuntimeError) and any(sign in text.lower() for sign in SIGNS)
    if not isinstance(error, distributed.DistError) and not has_sign:
        return None
    unnamed = f"another process has ended or did not answer within --timeout ({text[:150]})"
    message = _joined[0].lost_processes() if _joined else unnamed
    return LaunchError(message, "see what happened to it; continue with --resume auto")
