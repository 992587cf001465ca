"""What makes figures worthless: a check that did not hold."""

from __future__ import annotations

from engine.errors import SeckillError


class WrongAnswer(Exception):
    """A benchmark found that what it measured was not right."""


class NotProven(SeckillError):
    """A run's audit found something: its figures, and those beside it, mean nothing."""
