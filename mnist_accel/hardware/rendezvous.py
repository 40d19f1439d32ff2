"""Forms the process group, also when torch's elastic launcher has restarted the processes.

The launcher keeps one store for all attempts. After a restart it still holds the addresses of the processes that died,
and Gloo waits for them (torch 2.15). So the processes of one attempt first agree on a new name, and store everything
under it. The restart count is no such name: on several machines the launchers count differently.
"""

import time
import uuid
from datetime import timedelta

from torch import distributed
from torch.distributed import PrefixStore, Store

from mnist_accel.hardware.cores import launched_world_size


def join(backend: str, timeout: timedelta) -> Store | None:
    """Form the process group of this attempt and return its store; None if no launcher started this process.

    A group that the calling program has formed is left alone. Raises RuntimeError if the others do not join in time.
    """
    if launched_world_size() is None or distributed.is_initialized():
        return None
    store, rank, world_size = next(distributed.rendezvous("env://", timeout=timeout))
    own = PrefixStore(attempt_name(store, rank, world_size, timeout), store)
    distributed.init_process_group(backend, store=own, rank=rank, world_size=world_size, timeout=timeout)
    return own


def attempt_name(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """A new name that all processes of this attempt agree on, whatever earlier attempts have left in `store`.

    Every rank but 0 sends a request with a random key and waits for the reply to that key. Rank 0 replies to every
    request, even to one that a dead process left behind, until each rank has confirmed the new name. Raises
    RuntimeError if not all processes join in time.
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
