"""What happens to a reservation after it was made, and what became of a command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from engine.cqrs.messages import Rejected
from engine.engine import CommandOutcome, Engine
from engine.errors import OutcomeUnknown
from engine.inventory.events import Confirmed, HoldExpired, HoldExtended, Released, Reserved
from engine.inventory.stock import Standing
from engine.service.access import Caller
from engine.service.ids import command_link, derived_id, make_id, reservation_link, split_id
from engine.service.replies import Reply, in_doubt, json_reply, problem, refused
from engine.service.wire import CommandView, Reservation, State


class Reservations:
    """Every method takes the id of the path and raises what the engine raises, and InvalidCommand."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, caller: Caller, id_: str) -> Reply:
        """GET /v1/reservations/{id}"""
        found = await self._find(caller, id_)
        return found if isinstance(found, Reply) else json_reply(found)

    async def confirm(self, caller: Caller, id_: str, command_id: str | None) -> Reply:
        """It was paid. 409 hold_expired: it had been given back before, so refund the buyer."""
        return await self._change(caller, id_, "confirm", self._engine.confirm, command_id)

    async def release(self, caller: Caller, id_: str, command_id: str | None) -> Reply:
        """Give it back."""
        return await self._change(caller, id_, "release", self._engine.release, command_id)

    async def extend(self, caller: Caller, id_: str, command_id: str | None) -> Reply:
        """Hold it for the sale's time again, counted from now; once."""
        return await self._change(caller, id_, "extend", self._engine.extend_hold, command_id)

    async def command(self, caller: Caller, id_: str) -> Reply:
        """GET /v1/commands/{id}: the definite answer, after a timeout or a crash of either side."""
        sku, command_id = split_id(id_)
        outcome = await self._engine.outcome(sku, command_id)
        if outcome.status == "in_doubt":
            return in_doubt(id_, command_link(sku, command_id))
        if outcome.status == "unknown" or not await self._may_see(caller, sku, command_id, outcome):
            return unknown_command()
        if outcome.rejected is not None:
            reason, detail = outcome.rejected.reason, outcome.rejected.detail
            return json_reply(CommandView(id_, "refused", reason=reason, detail=detail))
        events = [msgspec.to_builtins(each) for each in outcome.events]
        return json_reply(CommandView(id_, "executed", _reservation(sku, id_, outcome), events))

    async def answer(self, caller: Caller, id_: str) -> Reply | None:
        """What the POST of a reservation was or would be answered now; None while not known here."""
        sku, command_id = split_id(id_)
        outcome = await self._engine.outcome(sku, command_id)
        if outcome.status == "in_doubt":
            return in_doubt(id_, command_link(sku, command_id))
        if outcome.status == "unknown" or not await self._may_see(caller, sku, command_id, outcome):
            return None
        if outcome.rejected is not None:
            return refused(outcome.rejected)
        found = _reservation(sku, id_, outcome)
        if found is None:
            return None
        return json_reply(found, 201, [(b"location", reservation_link(sku, command_id).encode())])

    async def _find(self, caller: Caller, id_: str) -> Reservation | Reply:
        sku, command_id = split_id(id_)
        outcome = await self._engine.outcome(sku, command_id)
        if outcome.status == "in_doubt":
            return in_doubt(id_, command_link(sku, command_id))
        found = _reservation(sku, id_, outcome)
        if found is None or not caller.owns(found.buyer):
            return unknown_reservation()
        return found

    async def _may_see(
        self, caller: Caller, sku: str, command_id: str, outcome: CommandOutcome
    ) -> bool:
        """A buyer sees their own purchase, what was done to it, and why theirs was refused."""
        purchase = caller.purchase
        if purchase is None:
            return True
        if outcome.rejected is not None:
            # A refusal names no buyer; the nonce of a token does.
            return command_id == purchase.nonce
        event = outcome.events[0]
        if not isinstance(event, Reserved):
            of = getattr(event, "reservation_id", None)
            if of is None:
                return False
            events = (await self._engine.outcome(sku, of)).events
            if not events or not isinstance(events[0], Reserved):
                return False
            event = events[0]
        return caller.owns(event.buyer)

    async def _change(
        self,
        caller: Caller,
        id_: str,
        verb: str,
        change: Callable[
            ..., Awaitable[Confirmed | HoldExpired | HoldExtended | Released | Rejected]
        ],
        command_id: str | None,
    ) -> Reply:
        sku, reservation_id = split_id(id_)
        found = await self._find(caller, id_)
        if isinstance(found, Reply):
            return found
        # Without an id of its own, a change is the one change of this kind to this reservation.
        given = command_id or derived_id(verb, reservation_id)
        try:
            answer = await change(sku, reservation_id, command_id=given)
        except OutcomeUnknown:
            return in_doubt(make_id(sku, given), command_link(sku, given))
        if isinstance(answer, Rejected):
            return refused(answer)
        if isinstance(answer, HoldExpired):
            return problem(
                *(409, "hold_expired", "The reservation was given back before it was paid"),
                "its units are for sale again, and may be sold to others: refund the buyer",
            )
        state: State = "held"
        until_ms: int | None = None
        if isinstance(answer, HoldExtended):
            until_ms = answer.held_until_us // 1_000
        else:
            state = "paid" if isinstance(answer, Confirmed) else "released"
        return json_reply(msgspec.structs.replace(found, state=state, held_until_ms=until_ms))


def _reservation(sku: str, id_: str, outcome: CommandOutcome) -> Reservation | None:
    if not outcome.events or not isinstance(outcome.events[0], Reserved):
        return None
    event, standing = outcome.events[0], outcome.reservation
    assert standing is None or isinstance(standing, Standing)
    state: State = "final"
    until_ms: int | None = None
    if standing is not None and event.held_until_us:
        state = standing.state
        if state == "held":
            until_ms = (standing.held_until_us or event.held_until_us) // 1_000
    return Reservation(id_, sku, event.buyer, event.quantity, state, until_ms)


def unknown_reservation() -> Reply:
    return problem(404, "unknown_reservation", "There is no such reservation")


def unknown_command() -> Reply:
    return problem(
        *(404, "unknown_command", "No such command was executed"),
        "it changed nothing, or was refused long ago; sending it is safe",
    )
