"""`seckill serve`: start, serve, drain, close.

    SIGTERM or Ctrl-C: not ready -> accept no more -> finish what was taken -> close the engine

A second signal ends the process at once, which is as safe as a crash: an order that was answered is
durable, and one that was not can be asked for by its id.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.clock import SystemClock
from engine.config import Settings
from engine.errors import ConfigError
from engine.runtime import open_engine, open_gate
from engine.service.server import Door, Listener, bind, url_of
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
        gate = await opened.enter_async_context(open_gate(settings, engine, clock))
        service = Service(engine, gate, clock, urls)
        doors = [Door(own, clock), Door(own, clock)]
        service.tally.doors = doors
        beside = [
            asyncio.create_task(service.run(), name="live-page"),
            *(asyncio.create_task(each.sweep(), name="sweep") for each in doors),
        ]
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


def check_exposure(settings: Settings) -> None:
    """Raise ConfigError when others than this machine could do what only its user may."""
    service, auth = settings.service, settings.auth
    if auth.mode == "none" and not auth.allow_open and not is_loopback(service.host):
        raise ConfigError(
            f'auth.mode is "none", so anybody who reaches {service.host} could buy in any name: set '
            'auth.mode to "token", or auth.allow_open to true where the network keeps others out'
        )
    if auth.admin_secret == DEFAULT_ADMIN_SECRET and not is_loopback(service.admin_host):
        raise ConfigError(
            f"auth.admin_secret is the default, and {service.admin_host} can be reached from "
            "elsewhere: set a secret of your own (SECKILL_AUTH__ADMIN_SECRET, or file:PATH)"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of names only `localhost` is taken for one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
