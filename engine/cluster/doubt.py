"""When an error does not say that nothing happened: an earlier try may have gone through."""

from __future__ import annotations

from typing import Final

from engine.cqrs.messages import Outcome
from engine.errors import CommandIdReused, OutcomeUnknown, SeckillError

TRUE_OF_ALL_TRIES: Final = (CommandIdReused, OutcomeUnknown)
"""Errors that hold whatever became of other tries of the command."""


def unless_surely_nothing(outcome: Outcome, command_id: str = "") -> Outcome:
    """The outcome of a command that was tried before: an error of this try is none of that one."""
    if isinstance(outcome, SeckillError) and not isinstance(outcome, TRUE_OF_ALL_TRIES):
        return OutcomeUnknown(command_id)
    return outcome


def named(outcome: Outcome, command_id: str) -> Outcome:
    """The outcome, with the id of the command that is in doubt."""
    if isinstance(outcome, OutcomeUnknown) and not outcome.command_id:
        return OutcomeUnknown(command_id)
    return outcome
