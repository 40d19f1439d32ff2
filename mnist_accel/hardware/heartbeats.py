"""Names a process that the run has lost: every process reports to the launcher's store that it is alive."""

import json
import socket
import threading
import time
from typing import Self

from torch.distributed import Store

BEAT_SECONDS = 0.5
LISTEN_SECONDS = 3 * BEAT_SECONDS
"""A process that is alive reports within this time."""


class Heartbeats:
    """The reports of this process, made by a thread inside the `with` block, and those of the others.

    `store` is shared by all processes. `position` of this process in the run appears in the messages of the others.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self.store, self.rank, self.world_size = store, rank, world_size
        self.position = "at the start"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        count = 0
        while not self._ended.wait(BEAT_SECONDS if count else 0):
            count += 1
            try:
                self.store.set(f"beat/{self.rank}", json.dumps([count, socket.gethostname(), self.position]))
            except RuntimeError:  # the store has ended with its process, or cannot be reached
                return

    def lost_processes(self) -> str:
        """The processes that do not report, or else those that do not notice the loss, with host and last position.

        Called by each process that has lost contact. Takes `LISTEN_SECONDS`.
        """
        try:
            self.store.set(f"noticed/{self.rank}", "")
            before = self._last_beats()
            time.sleep(LISTEN_SECONDS)
            beats = self._last_beats()
            others = [rank for rank in range(self.world_size) if rank != self.rank]
            silent = [rank for rank in others if beats[rank][0] == before[rank][0]]
            stuck = [rank for rank in others if not self.store.check([f"noticed/{rank}"])]
        except RuntimeError:  # rank 0 or its launcher holds the store
            return "rank 0 has ended or cannot be reached"
        state = "has ended, is frozen or cannot be reached" if silent else "is alive, but does not go on"
        found = [f"rank {rank} on {beats[rank][1]} {state}; it was last {beats[rank][2]}" for rank in silent or stuck]
        return "; ".join(found)

    def _last_beats(self) -> list[tuple[int, str, str]]:
        """Number, host and position of the last report of each process, by rank."""
        keys = [f"beat/{rank}" for rank in range(self.world_size)]
        texts = [self.store.get(key).decode() if self.store.check([key]) else None for key in keys]
        return [tuple(json.loads(text)) if text else (0, "an unknown host", "not heard of") for text in texts]
