"""A bank account and a counter: the core runs them without a line changed."""

from __future__ import annotations

import msgspec

from engine.cqrs.aggregate import AggregateType, Registry
from engine.cqrs.messages import Answer, Command, Event, Rejected


class Deposit(Command, frozen=True, gc=False):
    amount: int


class Withdraw(Command, frozen=True, gc=False):
    """A withdrawal costs a fee of 1, which is an event of its own."""

    amount: int


class Audit(Command, frozen=True, gc=False):
    """Its `decide` has a bug."""


class Corrupt(Command, frozen=True, gc=False):
    """Its event cannot be applied."""


class Deposited(Event, frozen=True, gc=False, tag="deposited.1"):
    amount: int


class Withdrawn(Event, frozen=True, gc=False, tag="withdrawn.1"):
    amount: int


class FeeCharged(Event, frozen=True, gc=False, tag="fee-charged.1"):
    amount: int


class Corrupted(Event, frozen=True, gc=False, tag="corrupted.1"):
    pass


class Account(msgspec.Struct):
    balance: int = 0


def _decide(state: Account, command: Command, at_us: int) -> Answer:
    match command:
        case Deposit(id=id, amount=amount):
            return (Deposited(id, amount),)
        case Withdraw(id=id, amount=amount):
            if amount + 1 > state.balance:
                return Rejected("insufficient_balance")
            return (Withdrawn(id, amount), FeeCharged(id, 1))
        case Corrupt(id=id):
            return (Corrupted(id),)
    raise ZeroDivisionError("a bug in decide")


def _evolve(state: Account, event: Event) -> Account:
    match event:
        case Deposited(amount=amount):
            return Account(state.balance + amount)
        case Withdrawn(amount=amount) | FeeCharged(amount=amount):
            return Account(state.balance - amount)
    raise ValueError("a bug in evolve")


ACCOUNT: AggregateType[Account] = AggregateType(
    name="account",
    state=Account,
    commands={
        Deposit: (Deposited,),
        Withdraw: (Withdrawn, FeeCharged),
        Audit: (),
        Corrupt: (Corrupted,),
    },
    initial=Account,
    decide=_decide,
    evolve=_evolve,
)


class Increment(Command, frozen=True, gc=False):
    pass


class Incremented(Event, frozen=True, gc=False, tag="incremented.1"):
    pass


class Count(msgspec.Struct):
    value: int = 0


COUNTER: AggregateType[Count] = AggregateType(
    name="counter",
    state=Count,
    commands={Increment: (Incremented,)},
    initial=Count,
    decide=lambda state, command, at_us: (Incremented(command.id),),
    evolve=lambda state, event: Count(state.value + 1),
)


def bank_registry() -> Registry:
    return Registry([ACCOUNT, COUNTER])
