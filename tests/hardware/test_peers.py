import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from torch.distributed import HashStore, Store

from mnist_accel.hardware.peers import Heartbeats, attempt_name

SECONDS = timedelta(seconds=5)


@pytest.fixture
def ranks() -> Iterator[list[Heartbeats]]:
    store = HashStore()
    found = [Heartbeats(store, rank, 3) for rank in range(3)]
    yield found
    for one in found:
        one.end()


def test_a_process_that_no_longer_reports_is_named_with_its_last_position(ranks: list[Heartbeats]) -> None:
    ranks[2].move_to("in epoch 1, after step 7 of 9")
    wait_for_beat(ranks[2])
    ranks[2].end()
    said = ranks[0].lost_processes()
    assert said.startswith("rank 2 on ")
    assert "it was last in epoch 1, after step 7 of 9; this process has waited " in said
    assert "rank 1" not in said


def test_a_process_that_is_alive_but_stuck_is_named(ranks: list[Heartbeats]) -> None:
    ranks[2].store.set("noticed/2", "")
    said = ranks[0].lost_processes()
    assert said.startswith("rank 1 on ")
    assert "is alive, but does not go on" in said
    assert "rank 2" not in said


def test_the_time_that_a_process_has_waited_is_said(ranks: list[Heartbeats], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks[0], "_since", ranks[0]._since - 40)
    assert "this process has waited 40 s" in ranks[0].lost_processes()


def test_without_a_store_the_process_that_holds_it_is_named(
    ranks: list[Heartbeats], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks[1], "store", Broken())
    assert ranks[1].lost_processes().startswith("rank 0 has ended or cannot be reached; ")


class Broken(Store):
    """A store that cannot be reached."""

    def set(self, *_: object) -> None:
        raise RuntimeError("connection reset")


def wait_for_beat(process: Heartbeats) -> None:
    """Until the process has reported its position."""
    while process.position.encode() not in process.store.get(f"beat/{process.rank}"):
        pass


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
