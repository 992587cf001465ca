"""Replies of an owner on their way to the gateways' inboxes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from engine.cluster.broker import Broker
from engine.errors import BrokerUnavailable

logger = logging.getLogger(__name__)


class Replies:
    """Sends in order, a little later. What is lost is asked for again by who waits for it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._news = asyncio.Event()

    def send(self, inbox: str, payload: bytes) -> None:
        self._waiting.append((inbox, payload))
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send what waits."""
        while self._waiting:
            try:
                await self._broker.send(*self._waiting.popleft())
            except BrokerUnavailable as error:
                logger.debug("a reply is lost: %s", error)
