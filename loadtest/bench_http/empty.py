"""`python -m loadtest.bench_http.empty`: a handler that does nothing, on the server class of the service.

What an order over HTTP costs is told beside it: the same protocol, the same limits, no order.
"""

from __future__ import annotations

import asyncio
from typing import Final

import typer

from engine.clock import SystemClock
from engine.config import ServiceSettings
from engine.event_loop import Terminated, run_async
from engine.runtime import tune_garbage_collector
from engine.service.door import Door
from engine.service.http import Receive, Scope, Send, respond
from engine.service.replies import Reply
from engine.service.server import BACKLOG, Listener, bind, url_of

CREATED: Final = Reply(201, b"{}")


async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
    """Takes the body, as every handler of a POST has to, and says 201."""
    await receive()
    await respond(send, CREATED)


async def serve() -> None:
    """Serve until told to stop; says where in the words of `seckill serve`."""
    settings, clock = ServiceSettings(), SystemClock()
    door = Door(settings, clock)
    with bind("127.0.0.1", 0, "service.port") as address:
        # From here on a client may come: it is kept waiting until somebody accepts it.
        address.listen(BACKLOG)
        typer.echo(f"Buyers {url_of(address)}")
        sweeping = asyncio.create_task(door.sweep())
        await Listener(handler, address, settings, door).run_until_told()
        sweeping.cancel()


def main() -> None:
    """Serve until SIGTERM."""
    tune_garbage_collector()
    try:
        run_async(serve())
    except Terminated:
        return


if __name__ == "__main__":
    main()
