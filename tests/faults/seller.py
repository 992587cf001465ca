"""A shop in a process of its own: sells until it is told that it may not, and says what happened.

    python -m tests.faults.seller URL HISTORY STEP

It stops itself (SIGSTOP) at the STEP of one of its transactions; `none` leaves that to others.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from itertools import count

from engine.clock import SystemClock
from engine.config import load_settings
from engine.cqrs.command_side.command_side import CommandSide
from engine.engine import Engine
from engine.errors import OutcomeUnknown, PartitionLost, SeckillError
from engine.inventory.commands import Reserve
from engine.inventory.history import HistoryWriter
from engine.inventory.sale import sale_registry
from engine.stores import mysql
from engine.stores.mysql import MysqlStore
from engine.stores.mysql_url import parse_mysql_url
from engine.testing.bare_engine import bare_engine

BUYERS = 100
TRANSACTIONS_BEFORE = 20


class Shop:
    """Many buyers, each sending one order after the other until the engine has lost its partition."""

    def __init__(self, engine: Engine, history: HistoryWriter) -> None:
        self.engine, self.history = engine, history
        self.told: Counter[str] = Counter()
        self.numbers = count()

    async def buy(self) -> None:
        while True:
            order = Reserve(f"first-{next(self.numbers)}", "SKU-1", "buyer")
            self.history.invoke([order])
            try:
                answer = await self.engine.execute(order)
            except SeckillError as error:
                self.history.answered(order.id, error)
                self.told[type(error).__name__] += 1
                if not isinstance(error, OutcomeUnknown):
                    return
            else:
                self.history.answered(order.id, answer)
                self.told["sold"] += 1


async def main(url: str, history: str, step: str) -> None:
    # The server drops a silent writer after this many seconds; the default would be a long test.
    vars(mysql)["WRITER_IDLE_SECONDS"] = 2
    seen = count()

    def stop_here(at: str) -> None:
        if at == step and next(seen) == TRANSACTIONS_BEFORE:
            os.kill(os.getpid(), signal.SIGSTOP)

    registry, clock = sale_registry(), SystemClock()
    settings = load_settings(None, {"store.url": url}, {})
    address = parse_mysql_url(url)
    store = await MysqlStore.open(address, tables=registry.tables, failpoint=stop_here)
    side = await CommandSide.open(store, registry, settings, clock)
    shop = Shop(bare_engine(store, side, settings, clock), HistoryWriter(history))
    await asyncio.gather(*(shop.buy() for _ in range(BUYERS)))
    await side.close()
    await store.close()
    assert PartitionLost.__name__ in shop.told
    sys.stdout.write(json.dumps(shop.told))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
