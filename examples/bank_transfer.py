"""The classic two-account transfer, on the same core as the sale: another use of engine.cqrs.

    requested --Withdraw from A--> Deposit to B --> done
                 | refused           | refused
                 v                   v
              failed        Deposit back to A --> failed

`Transfer` holds where the transfer is; the process manager only reacts to its events and sends
commands whose ids follow from them, so it may be killed and started again at any point.

    python examples/bank_transfer.py [FILE]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from engine.clock import SystemClock
from engine.config import Settings
from engine.cqrs.aggregate import AggregateType, Registry
from engine.cqrs.codec import Codec
from engine.cqrs.command_side.command_bus import CommandBus
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.cqrs.process_manager import ProcessManager
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.subscription import Feed
from engine.cqrs.send import Send
from engine.stores.sqlite import SqliteStore
from engine.stores.sqlite_views import SqliteViews, views_path

State = TypeVar("State")


class OpenAccount(Command, frozen=True):
    pass


class CloseAccount(Command, frozen=True):
    """Take no more money in."""


class Deposit(Command, frozen=True):
    amount: int


class Withdraw(Command, frozen=True):
    amount: int


class GiveBack(Command, frozen=True):
    """The compensation of a Withdraw: it is never refused, not even by a closed account."""

    amount: int


class Opened(Event, frozen=True, tag="opened.1"):
    pass


class Closed(Event, frozen=True, tag="closed.1"):
    pass


class Deposited(Event, frozen=True, tag="deposited.1"):
    amount: int


class Withdrawn(Event, frozen=True, tag="withdrawn.1"):
    amount: int


class Account(msgspec.Struct):
    """`balance` in cents."""

    phase: str = "unknown"
    balance: int = 0


def decide_account(state: Account, command: Command, _at_us: int) -> Answer:
    match command:
        case OpenAccount(id=id):
            return (Opened(id),) if state.phase == "unknown" else Rejected("already_open")
        case GiveBack(id=id, amount=amount):
            return (Deposited(id, amount),)
        case _ if state.phase != "open":
            return Rejected(f"account_{state.phase}")
        case CloseAccount(id=id):
            return (Closed(id),)
        case Deposit(id=id, amount=amount):
            return (Deposited(id, amount),)
        case Withdraw(id=id, amount=amount):
            enough = amount <= state.balance
            return (Withdrawn(id, amount),) if enough else Rejected("not_enough")
    raise TypeError(f"no rule for {command}")


def evolve_account(state: Account, event: Event) -> Account:
    match event:
        case Opened():
            state.phase = "open"
        case Closed():
            state.phase = "closed"
        case Deposited(amount=amount):
            state.balance += amount
        case Withdrawn(amount=amount):
            state.balance -= amount
    return state


ACCOUNT = AggregateType(
    name="account",
    state=Account,
    commands={
        OpenAccount: (Opened,),
        CloseAccount: (Closed,),
        Deposit: (Deposited,),
        Withdraw: (Withdrawn,),
        GiveBack: (Deposited,),
    },
    initial=Account,
    decide=decide_account,
    evolve=evolve_account,
)


class RequestTransfer(Command, frozen=True):
    source: str
    target: str
    amount: int


class Finish(Command, frozen=True):
    """`failed` says why the money did not arrive; empty when it did."""

    failed: str = ""


class Requested(Event, frozen=True, tag="requested.1"):
    source: str
    target: str
    amount: int


class Finished(Event, frozen=True, tag="finished.1"):
    failed: str


class Transfer(msgspec.Struct):
    step: str = "unknown"
    failed: str = ""


def decide_transfer(state: Transfer, command: Command, _at_us: int) -> Answer:
    match command:
        case RequestTransfer(id=id, source=source, target=target, amount=amount):
            wanted = Requested(id, source, target, amount)
            return (wanted,) if state.step == "unknown" else Rejected("already_requested")
        case Finish(id=id, failed=failed):
            return (Finished(id, failed),) if state.step == "requested" else Rejected("finished")
    raise TypeError(f"no rule for {command}")


def evolve_transfer(state: Transfer, event: Event) -> Transfer:
    match event:
        case Requested():
            state.step = "requested"
        case Finished(failed=failed):
            state.step, state.failed = "finished", failed
    return state


TRANSFER = AggregateType(
    name="transfer",
    state=Transfer,
    commands={RequestTransfer: (Requested,), Finish: (Finished,)},
    initial=Transfer,
    decide=decide_transfer,
    evolve=evolve_transfer,
)


async def transfer(transfer_id: str, event: Event, send: Send) -> None:
    """Move the money, or put it back. Runs at least once for each request."""
    assert isinstance(event, Requested)
    source, target, amount = event.source, event.target, event.amount
    failed = ""
    taken = await send(Withdraw(send.id(source), source, amount))
    if isinstance(taken, Rejected):
        failed = f"{source}: {taken.reason}"
    else:
        given = await send(Deposit(send.id(target), target, amount))
        if isinstance(given, Rejected):
            failed = f"{target}: {given.reason}"
            await send(GiveBack(send.id(source, 1), source, amount))
    await send(Finish(send.id("finish"), transfer_id, failed))


TRANSFERS = ProcessManager("transfers", TRANSFER.name, (Requested,), transfer)


class Bank:
    """A running bank: commands go to `bus`; `settled` waits until every transfer is over."""

    def __init__(self, store: SqliteStore, bus: CommandBus, query_side: QuerySide) -> None:
        self.bus = bus
        self.settled = query_side.caught_up
        self._store = store

    async def account(self, name: str) -> Account:
        return await self._read(ACCOUNT, name)

    async def transfer(self, name: str) -> Transfer:
        return await self._read(TRANSFER, name)

    async def _read(self, kind: AggregateType[State], name: str) -> State:
        codec, state = Codec(kind.events), kind.initial()
        for commit in await self._store.read_stream((kind.name, name), 0, 10_000):
            for event in codec.decode(commit):
                state = kind.evolve(state, event)
        return state


@asynccontextmanager
async def open_bank(path: str, *, transfers: bool = True) -> AsyncIterator[Bank]:
    """Open the bank in a SQLite file. Without `transfers` nobody works on them."""
    registry, clock, feed = Registry([ACCOUNT, TRANSFER]), SystemClock(), Feed()
    store = await SqliteStore.open(path)
    views = await SqliteViews.open(views_path(path))
    query_side = QuerySide(store, registry, {}, feed, clock)
    command_side = await CommandSide.open(store, registry, Settings(), clock, feed)
    try:
        if transfers:
            query_side.start_manager(TRANSFERS, command_side.bus.execute, views)
        yield Bank(store, command_side.bus, query_side)
    finally:
        await query_side.close()
        await command_side.close()
        await views.close()
        await store.close()


async def main(path: str) -> None:
    async with open_bank(path) as bank:
        for name in ("alice", "bob", "carol"):
            await bank.bus.execute(OpenAccount(f"open-{name}", name))
        await bank.bus.execute(Deposit("pay-day", "alice", 100_00))
        await bank.bus.execute(CloseAccount("close-carol", "carol"))
        wanted = {
            "t1": ("alice", "bob", 30_00),
            "t2": ("bob", "alice", 99_00),
            "t3": ("alice", "carol", 20_00),
        }
        for name, (source, target, amount) in wanted.items():
            await bank.bus.execute(RequestTransfer(name, name, source, target, amount))
        await bank.settled()
        lines = [f"{name}: {(await bank.transfer(name)).failed or 'done'}" for name in wanted]
        lines += [
            f"{name} has {(await bank.account(name)).balance / 100:.2f}"
            for name in ("alice", "bob", "carol")
        ]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "bank.db"))
