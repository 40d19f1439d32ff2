import contextlib
from collections.abc import Iterator

import pytest
from torch.distributed import HashStore, Store

from mnist_accel.hardware.heartbeats import Heartbeats


@pytest.fixture
def ranks() -> Iterator[list[Heartbeats]]:
    store = HashStore()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Heartbeats(store, rank, 3)) for rank in range(3)]


def test_a_process_that_no_longer_reports_is_named_with_its_last_position(ranks: list[Heartbeats]) -> None:
    ranks[2].position = "in epoch 1, after step 7 of 9"
    wait_for_beat(ranks[2])
    ranks[2].__exit__()
    said = ranks[0].lost_processes()
    assert said.startswith("rank 2 on ")
    assert said.endswith("it was last in epoch 1, after step 7 of 9")
    assert "rank 1" not in said


def test_a_process_that_is_alive_but_stuck_is_named(ranks: list[Heartbeats]) -> None:
    ranks[2].store.set("noticed/2", "")
    said = ranks[0].lost_processes()
    assert said.startswith("rank 1 on ")
    assert "is alive, but does not go on" in said
    assert "rank 2" not in said


def test_without_a_store_the_process_that_holds_it_is_named(
    ranks: list[Heartbeats], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks[1], "store", Broken())
    assert ranks[1].lost_processes() == "rank 0 has ended or cannot be reached"


class Broken(Store):
    """A store that cannot be reached."""

    def set(self, *_: object) -> None:
        raise RuntimeError("connection reset")


def wait_for_beat(process: Heartbeats) -> None:
    """Until the process has reported its position."""
    while process.position.encode() not in process.store.get(f"beat/{process.rank}"):
        pass
