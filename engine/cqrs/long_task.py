"""A task that runs until somebody cancels it."""

from __future__ import annotations

import asyncio
import logging

logger = logging.getLogger(__name__)


def say_why(task: asyncio.Task[None]) -> None:
    """Log what ended a task that was to run until it is cancelled; for its `add_done_callback`."""
    if not task.cancelled() and (error := task.exception()) is not None:
        name = task.get_name()
        logger.critical("%s stopped until the next start: %r", name, error, exc_info=error)
