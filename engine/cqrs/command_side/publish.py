"""Answer the callers of a batch. Called only once its events are durable, or surely are not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from engine.cqrs.command_side.batch import Batch
from engine.cqrs.messages import Command, Outcome
from engine.errors import SeckillError, StoreUnavailable

ANSWERS_AT_ONCE: Final = 64
"""Requests answered before the event loop looks at the network again.

A thousand callers that all wake up at once keep it busy for ten milliseconds, in which the database
has answered the next transaction's first statement long ago (docs/decisions/0012).
"""


class Publisher:
    """Answers batches in order, a few callers at a time, while the next one is being committed."""

    def __init__(self) -> None:
        self._waiting: deque[Iterator[None]] = deque()
        self._loop = asyncio.get_running_loop()

    def publish(self, batch: Batch, outcomes: list[Outcome]) -> None:
        """Hand every caller of `batch` its outcomes; the first ones at once if none waits."""
        self._waiting.append(_answer(batch, outcomes))
        if len(self._waiting) == 1:
            self._go_on()

    def flush(self) -> None:
        """Answer whoever still waits, now."""
        for answers in self._waiting:
            for _ in answers:
                pass
        self._waiting.clear()

    def _go_on(self) -> None:
        while self._waiting:
            for _ in self._waiting[0]:
                self._loop.call_soon(self._go_on)
                return
            self._waiting.popleft()


def publish_error(batch: Batch, make_error: Callable[[Command], SeckillError]) -> None:
    """Answer every command of `batch` with an error of its own, all of them now."""
    for _ in _answer(batch, [make_error(command) for command in batch.commands]):
        pass


def publish_unavailable(batch: Batch, error: StoreUnavailable) -> None:
    publish_error(batch, lambda _: StoreUnavailable(str(error)))


def _answer(batch: Batch, outcomes: list[Outcome]) -> Iterator[None]:
    """Answer in the order of the commands, pausing after every ANSWERS_AT_ONCE requests."""
    first = 0
    room = ANSWERS_AT_ONCE
    for request, start, stop in batch.slices:
        last = first + stop - start
        request.answer(start, outcomes[first:last])
        first = last
        room -= 1
        if not room:
            room = ANSWERS_AT_ONCE
            yield
