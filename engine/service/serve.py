"""`seckill serve`: start, serve, drain, close.

    SIGTERM or Ctrl-C: not ready -> accept no more -> finish what was taken -> close the engine

A second signal ends the process at once, which is as safe as a crash: an order that was answered is
durable, and one that was not can be asked for by its id.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from engine.clock import SystemClock
from engine.config import Settings
from engine.gate.feed import GateFeed
from engine.runtime import open_engine, open_gate
from engine.service.door import Door
from engine.service.exposure import check_exposure
from engine.service.gate_source import LiveSource
from engine.service.server import BACKLOG, Listener, bind, url_of
from engine.service.service import Service, Urls

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def serve(settings: Settings, started: Callable[[Urls], None]) -> None:
    """Serve until a signal comes; `started` is told the URLs of both listeners.

    Raises ConfigError for an address that cannot be had or is not safe, and what `open_engine`
    raises.
    """
    check_exposure(settings)
    clock = SystemClock()
    own = settings.service
    async with AsyncExitStack() as opened:
        addresses = [
            bind(own.host, own.port, "service.port"),
            bind(own.admin_host, own.admin_port, "service.admin_port"),
        ]
        for each in addresses:
            opened.callback(each.close)
        urls = Urls(*map(url_of, addresses))
        engine = await opened.enter_async_context(open_engine(settings, clock=clock))
        gate = await opened.enter_async_context(open_gate(settings, clock))
        service = Service(engine, gate, clock, urls)
        doors = [Door(own, clock), Door(own, clock)]
        service.tally.doors = doors
        beside = [
            asyncio.create_task(service.run(), name="live-page"),
            *(asyncio.create_task(each.sweep(), name="sweep") for each in doors),
        ]
        if gate is not None:
            feed = GateFeed(gate, LiveSource(engine), settings.gate, clock)
            beside.append(asyncio.create_task(feed.run(), name="gate-feed"))
        opened.push_async_callback(_cancel, beside)
        apps = (service.public, service.admin)
        listeners = [
            Listener(app, address, own, door)
            for app, address, door in zip(apps, addresses, doors, strict=True)
        ]
        with _told_to_stop() as told:
            serving = [
                asyncio.create_task(each.run_until_told(), name="listener") for each in listeners
            ]
            for each in addresses:
                # Who is told the URLs may come at once, also before a listener's first turn.
                each.listen(BACKLOG)
            logger.info("serving", extra=urls._asdict())
            started(urls)
            # A listener that ends by itself takes the other one with it.
            await asyncio.wait([told, *serving], return_when=asyncio.FIRST_COMPLETED)
            await _drain(service, listeners, own.drain_delay_seconds)
            await asyncio.gather(*serving)
        logger.info("everybody is answered; the engine closes")
    logger.info("closed")


async def _drain(service: Service, listeners: Sequence[Listener], delay_seconds: float) -> None:
    logger.info("draining")
    service.drain()
    if delay_seconds:
        await asyncio.sleep(delay_seconds)
    service.stop_taking()
    for each in listeners:
        each.should_exit = True


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
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
