"""Replays aggregates beside the loop of their partition, so that the others sell on meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from engine.clock import Clock
from engine.cqrs.command_side.mailbox import Mailbox
from engine.cqrs.command_side.repository import Repository
from engine.errors import AggregateHalted, StoreUnavailable

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 0.5
"""Between two tries while the store cannot be read; buyers are answered at their deadlines."""


class Loader:
    """Loads the aggregates of one partition.

    `ready(mailbox, error)` is called when one is loaded, or with the error that stops it;
    `changed()` once its task is gone from `busy`.
    """

    def __init__(
        self,
        repository: Repository,
        clock: Clock,
        ready: Callable[[Mailbox, AggregateHalted | None], None],
        changed: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._clock = clock
        self._ready = ready
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def start(self, mailbox: Mailbox) -> None:
        mailbox.loading = True
        task = asyncio.get_running_loop().create_task(self._load(mailbox))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _load(self, mailbox: Mailbox) -> None:
        halted: AggregateHalted | None = None
        # Once all who waited were answered, nobody needs it; the next command asks again.
        while mailbox.resident is None and halted is None and mailbox.queue:
            try:
                mailbox.resident = await self._repository.load(mailbox.aggregate, mailbox.stream)
            except StoreUnavailable as error:
                logger.warning("%s %r cannot be loaded yet: %s", *mailbox.stream, error)
                await self._clock.sleep(RETRY_SECONDS)
            except AggregateHalted as error:
                halted = error
            except Exception as error:
                halted = AggregateHalted(mailbox.stream, repr(error))
        mailbox.loading = False
        self._ready(mailbox, halted)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed()
