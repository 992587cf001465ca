"""Requests of a counter, and what of them waits where: shared by the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from engine.cqrs.command_side.batch import Batch
from engine.cqrs.command_side.mailbox import Mailbox, Request, Slice
from engine.cqrs.messages import Outcome
from tests.cqrs.bank_account import COUNTER, Increment, Incremented


def waiting(*ids: str, queued_at: float = 0.0, deadline: float = 10.0) -> Request:
    """A request of one command for each id. Needs a running event loop."""
    future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    return Request([Increment(each, "c") for each in ids], future, queued_at, deadline)


def mailbox_with(*requests: Request, name: str = "c") -> Mailbox:
    mailbox = Mailbox(COUNTER, ("counter", name))
    for request in requests:
        mailbox.put(request)
    return mailbox


def batch_of(mailbox: Mailbox, size_max: int) -> Batch:
    return Batch(mailbox, mailbox.take(size_max), "idle")


def ids_of(slices: Iterable[Slice]) -> list[str]:
    return [each.id for request, start, stop in slices for each in request.commands[start:stop]]


def increments(ids: Iterable[str]) -> list[Outcome]:
    """What a counter answers to `ids`."""
    return [(Incremented(each),) for each in ids]
