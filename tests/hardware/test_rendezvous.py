import threading
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from mnist_accel.hardware.rendezvous import attempt_name

SECONDS = timedelta(seconds=5)


def attempt(store: HashStore, world_size: int) -> set[str]:
    """The names that the processes of one attempt agree on."""
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda rank=rank: names.append(attempt_name(store, rank, world_size, SECONDS)))
        for rank in range(world_size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == world_size
    return set(names)


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_each_attempt_agrees_on_a_name_of_its_own(world_size: int) -> None:
    store = HashStore()
    names = [attempt(store, world_size) for _ in range(20)]
    assert all(len(found) == 1 for found in names)
    assert len(set.union(*names)) == 20


def test_an_attempt_that_died_half_way_does_not_disturb_the_next() -> None:
    store = HashStore()
    for rank in (1, 2):  # they send a request, and nobody replies
        with pytest.raises(RuntimeError, match="time"):
            attempt_name(store, rank, 3, timedelta(seconds=0.05))
    with pytest.raises(RuntimeError, match="for 2 other"):  # it replies, and nobody is there
        attempt_name(store, 0, 3, timedelta(seconds=0.05))
    assert len(attempt(store, 3)) == 1
