"""`seckill serve`: start, serve, drain, close.

    SIGTERM or Ctrl-C: not ready -> accept no more -> finish what was taken -> close the engine

A second signal ends the process at once, which is as safe as a crash: an order that was answered is
durable, and one that was not can be asked for by its id.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from typing import Any, Final

from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.errors import BrokerUnavailable
from engine.gate.feed import GateFeed
from engine.runtime import open_engine, open_gate
from engine.service.door import Door
from engine.service.exposure import check_exposure
from engine.service.gate_source import LiveSource
from engine.service.server import Listener, bind, listen, url_of
from engine.service.service import Service, Urls

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
AGAIN_SECONDS: Final = 1.0


async def serve(settings: Settings, started: Callable[[Urls], None]) -> None:
    """Serve until a signal comes; `started` is told the URLs of both listeners.

    Raises ConfigError for an address that cannot be had or is not safe, what `open_engine` raises, and
    BrokerUnavailable when a node of a cluster can go on no more: whoever looks after it starts it anew.
    """
    check_exposure(settings)
    clock = SystemClock()
    own = settings.service
    async with AsyncExitStack() as opened:
        public: socket.socket | None = None
        if takes_buyers(settings):
            public = opened.enter_context(closing(bind(own.host, own.port, "service.port")))
        admin = opened.enter_context(
            closing(bind(own.admin_host, own.admin_port, "service.admin_port"))
        )
        urls = Urls("" if public is None else url_of(public), url_of(admin))
        engine = await opened.enter_async_context(open_engine(settings, clock=clock))
        gate = await opened.enter_async_context(open_gate(settings, clock))
        service = Service(engine, gate, clock, urls)
        doors = service.tally.doors = (Door(own, clock), Door(own, clock))
        beside = [("live-page", service.run), *(("sweep", each.sweep) for each in doors)]
        if gate is not None:
            feed = GateFeed(gate, LiveSource(engine), settings.gate, clock)
            beside.append(("gate-feed", feed.run))
        tasks = [asyncio.create_task(_keep_running(*each, clock)) for each in beside]
        opened.push_async_callback(_cancel, tasks)
        listeners = [Listener(service.admin, admin, own, doors[1])]
        if public is not None:
            listeners.insert(0, Listener(service.public, public, own, doors[0]))
        with _told_to_stop() as told:
            serving = [asyncio.create_task(each.run_until_told()) for each in listeners]
            opened.push_async_callback(_end, listeners, serving)
            # Who is told the URLs may come at once, before the listeners have had their turn.
            if public is not None:
                listen(public, "service.port")
            listen(admin, "service.admin_port")
            logger.info("serving", extra=urls._asdict())
            started(urls)
            failing = asyncio.create_task(engine.failed())
            opened.push_async_callback(_cancel, [failing])
            # A listener that ends by itself takes the other one with it.
            waited: list[asyncio.Future[Any]] = [told, failing, *serving]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            reason = failing.result() if failing.done() else ""
            await _drain(service, own.drain_delay_seconds)
            await _end(listeners, serving)
        logger.info("everybody is answered; the engine closes")
    logger.info("closed")
    if reason:
        raise BrokerUnavailable(reason)


def takes_buyers(settings: Settings) -> bool:
    """Whether this process has a listener for buyers; an engine of a cluster has none."""
    return not settings.cluster.servers or settings.cluster.role != "engine"


async def _drain(service: Service, delay_seconds: float) -> None:
    logger.info("draining")
    service.drain()
    if delay_seconds:
        await asyncio.sleep(delay_seconds)
    service.stop_taking()


async def _end(listeners: Sequence[Listener], serving: Sequence[asyncio.Task[None]]) -> None:
    """Close the listeners once everybody is answered. Idempotent."""
    for each in listeners:
        each.should_exit = True
    await asyncio.gather(*serving)


async def _keep_running(name: str, work: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Run what is to run beside the listeners; what fails is begun anew, and the sale goes on."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("%s failed and is begun anew", name)
        await clock.sleep(AGAIN_SECONDS)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _told_to_stop() -> Iterator[asyncio.Future[None]]:
    """A future that is done at the first signal; the second one then ends the process."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        if not told.done():
            told.set_result(None)

    if sys.platform == "win32":
        yield told
        return
    for each in SIGNALS:
        loop.add_signal_handler(each, stop)
    yield told
