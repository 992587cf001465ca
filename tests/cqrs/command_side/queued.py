"""Requests of a counter, as the command bus would queue them."""

from __future__ import annotations

import asyncio

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.command_side.mailbox import Mailbox, Request, Slice
from tests.cqrs.bank_account import Account, Deposit, bank_registry

ACCOUNT: AggregateType[Account] = bank_registry().types["account"]


def request(*names: str, queued_at: float = 0.0, deadline: float = 10.0) -> Request:
    """A request of one command for each name. Needs a running loop."""
    commands = [Deposit(name, "a", 1) for name in names]
    return Request(commands, asyncio.get_running_loop().create_future(), queued_at, deadline)


def mailbox(*requests: Request, name: str = "a") -> Mailbox:
    box = Mailbox(ACCOUNT, ("account", name))
    for each in requests:
        box.put(each)
    return box


def names_of(slices: list[Slice]) -> list[str]:
    """The command ids of slices, in order."""
    return [each.id for request, start, stop in slices for each in request.commands[start:stop]]
