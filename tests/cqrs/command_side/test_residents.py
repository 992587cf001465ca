"""Idle aggregates leave memory, oldest first; those with something to do never do."""

from __future__ import annotations

from engine.cqrs.command_side.mailbox import Mailbox
from engine.cqrs.command_side.residents import Residents
from engine.errors import AggregateHalted
from engine.testing.virtual_clock import VirtualClock
from tests.cqrs.command_side.queued import ACCOUNT, request


def residents(*names: str, aggregates_max: int = 100, idle_seconds: float = 10.0) -> Residents:
    """Residents that came one second after the other."""
    clock = VirtualClock()
    found = Residents(aggregates_max, idle_seconds, clock)
    for name in names:
        clock.advance(1.0)
        of(found, name)
    return found


def of(found: Residents, name: str) -> Mailbox:
    return found.mailbox(ACCOUNT, ("account", name))


def names_in(found: Residents) -> list[str]:
    return [each.stream[1] for each in found]


def test_a_stream_has_one_mailbox() -> None:
    found = residents("a")
    assert of(found, "a") is of(found, "a")
    assert len(found) == 1


def test_those_used_longest_ago_leave_first() -> None:
    found = residents("a", "b", "c", aggregates_max=2)
    found.touch(of(found, "a"), 1_003.0)
    found.evict()
    assert names_in(found) == ["c", "a"]


async def test_busy_and_loading_ones_stay_whatever_the_bound() -> None:
    found = residents("queued", "loading", "idle", aggregates_max=0)
    of(found, "queued").put(request("1"))
    of(found, "loading").loading = True
    found.evict()
    assert names_in(found) == ["queued", "loading"]


def test_an_idle_one_leaves_after_its_time_and_not_before() -> None:
    clock = VirtualClock()
    found = Residents(100, 10.0, clock)
    of(found, "old")
    clock.advance(5.0)
    of(found, "young")
    clock.advance(4.9)
    found.evict()
    assert names_in(found) == ["old", "young"]
    clock.advance(0.1)
    found.evict()
    assert names_in(found) == ["young"]


def test_its_idle_time_starts_anew_whenever_it_is_used() -> None:
    clock = VirtualClock()
    found = Residents(100, 10.0, clock)
    for name in ("used", "idle"):
        of(found, name)
    clock.advance(9.0)
    found.touch(of(found, "used"), clock.monotonic())
    clock.advance(9.0)
    found.evict()
    assert names_in(found) == ["used"]


def test_a_halted_one_stays_and_does_not_resume_by_being_forgotten() -> None:
    found = residents("halted", "well", aggregates_max=0)
    of(found, "halted").halted = AggregateHalted(("account", "halted"), "broken")
    found.evict()
    assert names_in(found) == ["halted"]
