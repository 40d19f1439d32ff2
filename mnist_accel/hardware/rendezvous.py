"""How processes find each other when torch's elastic launcher has started them, also for the second time.

The launcher's store outlives its workers: after a restart it still holds the addresses of the processes that died, and
a new process that reads one of them waits for the dead (torch 2.15, Gloo). So the processes of one attempt first agree
on a name that no earlier attempt has used, and keep everything under that name.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

from torch import distributed
from torch.distributed import PrefixStore, Store

POLL_SECONDS = 0.005


def join(backend: str, timeout: timedelta) -> None:
    """Form the process group of this attempt, unless there is one or no elastic launcher.

    Raises:
        RuntimeError: the others did not come in time.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or distributed.is_initialized():
        return
    store, rank, world_size = next(distributed.rendezvous("env://", timeout=timeout))
    name = attempt_name(store, rank, world_size, timeout)
    distributed.init_process_group(
        backend, store=PrefixStore(name, store), rank=rank, world_size=world_size, timeout=timeout
    )


def attempt_name(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """A new name that all processes of this attempt agree on, whatever earlier ones have left in `store`.

    Every process but the first says hello with a word of its own and waits for the answer to that word. The first
    answers whatever hello it sees, which may be a dead process', until everybody has confirmed its new name.

    Raises:
        RuntimeError: not everybody came in time.
    """
    prefix, deadline = "mnist-accel/", time.monotonic() + timeout.total_seconds()
    if rank > 0:
        word = uuid.uuid4().hex
        store.set(f"{prefix}hello/{rank}", word)
        _wait_for(store, f"{prefix}welcome/{word}", deadline)
        name = store.get(f"{prefix}welcome/{word}").decode()
        store.set(f"{prefix}confirmed/{name}/{rank}", "")
        return name
    name = uuid.uuid4().hex
    missing = set(range(1, world_size))
    while missing:
        for other in sorted(missing):
            if store.check([f"{prefix}hello/{other}"]):
                store.set(f"{prefix}welcome/{store.get(f'{prefix}hello/{other}').decode()}", name)
        missing = {other for other in missing if not store.check([f"{prefix}confirmed/{name}/{other}"])}
        if missing and time.monotonic() > deadline:
            raise RuntimeError(f"timed out waiting for the other processes ({len(missing)} did not come)")
        time.sleep(POLL_SECONDS)
    return name


def _wait_for(store: Store, key: str, deadline: float) -> None:
    while not store.check([key]):
        if time.monotonic() > deadline:
            raise RuntimeError("timed out waiting for the main process")
        time.sleep(POLL_SECONDS)
