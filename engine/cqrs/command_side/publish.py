"""Answer the callers of a batch. Called only once its events are durable, or surely are not."""

from __future__ import annotations

from collections.abc import Callable

from engine.cqrs.command_side.batch import Batch
from engine.cqrs.messages import Command, Outcome
from engine.errors import SeckillError


def publish(batch: Batch, outcomes: list[Outcome]) -> None:
    """Hand every caller of `batch` its outcomes, in the order of the commands."""
    first = 0
    for request, start, stop in batch.slices:
        last = first + stop - start
        request.answer(start, outcomes[first:last])
        first = last


def publish_error(batch: Batch, make_error: Callable[[Command], SeckillError]) -> None:
    """Answer every command of `batch` with an error of its own."""
    publish(batch, [make_error(command) for command in batch.commands])
