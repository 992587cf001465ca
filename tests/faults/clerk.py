"""A whole shop in a process of its own: holds with short deadlines, carts, both managers.

    python -m tests.faults.clerk URL NAME SEED STEP

It writes a line for whatever happened to it, `open` first, and goes on until it is told that its
partitions are another's: then the last line is `lost`. With STEP `read-model` it stops itself
(SIGSTOP) inside a transaction of a read model, with `none` it leaves that to others.

    python -m tests.faults.clerk URL NAME SEED follow

feeds the read models beside whoever sells, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from itertools import count

from engine.clock import SystemClock
from engine.config import Settings, load_settings
from engine.engine import Engine
from engine.errors import EngineClosed, PartitionLost, SeckillError
from engine.inventory.events import Reserved
from engine.inventory.order import Order
from engine.inventory.orders_table import ORDERS
from engine.inventory.sales_table import SALES
from engine.runtime import open_engine, open_queries
from engine.stores import mysql, mysql_views
from engine.stores.mysql_connection import Answer, MysqlConnection

PARTITIONS = 3
SKUS = tuple(f"SKU-{n}" for n in range(4))
STOCK = 40
HOLD_SECONDS = 1
BUYERS = 6
PACE_SECONDS = 0.01
"""Between two requests of a buyer: what is sold out would be asked for without end."""

STEPS_BEFORE = 10
IDLE_SECONDS = 2
"""After so long the server drops a process that is silent in a transaction."""


def shop_settings(url: str) -> Settings:
    return load_settings(None, {"store.url": url, "store.partitions": PARTITIONS}, {})


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Buyer:
    """Buys one thing after the other and does with it whatever buyers do."""

    def __init__(self, engine: Engine, name: str, seed: int) -> None:
        self.engine, self.name = engine, name
        self.chance = random.Random(seed)
        self.numbers = count()
        self.clock = SystemClock()

    async def run(self) -> None:
        while True:
            try:
                await (self.cart() if self.chance.random() < 0.5 else self.one())
            except (PartitionLost, EngineClosed):
                return
            except SeckillError as error:
                say(type(error).__name__)
            await self.clock.sleep(PACE_SECONDS)

    async def one(self) -> None:
        """One hold: paid, given back, made longer and left, or left."""
        engine, sku = self.engine, self.chance.choice(SKUS)
        answer = await engine.reserve(sku, buyer=self.name, quantity=self.chance.randint(1, 2))
        if not isinstance(answer, Reserved):
            return
        say("held")
        fate = self.chance.random()
        if fate < 0.05:
            await engine.confirm(sku, answer.command_id)
            say("confirmed")
        elif fate < 0.3:
            await engine.release(sku, answer.command_id)
            say("released")
        elif fate < 0.5:
            await engine.extend_hold(sku, answer.command_id)

    async def cart(self) -> None:
        """One order over some SKUs: paid, cancelled or left."""
        engine = self.engine
        order_id = f"{self.name}-{next(self.numbers)}"
        lines = dict.fromkeys(self.chance.sample(SKUS, self.chance.randint(2, 3)), 1)
        order = await engine.place_order(order_id, buyer=self.name, lines=lines)
        if not isinstance(order, Order) or order.step != "awaiting_payment":
            return
        say("placed")
        fate = self.chance.random()
        if fate < 0.1:
            await engine.pay_order(order_id)
            say("paid")
        elif fate < 0.4:
            await engine.cancel_order(order_id)
            say("cancelled")


def stop_in_a_step() -> None:
    """Stop this process once between the first statement of a read model's step and its COMMIT."""
    run_all = MysqlConnection.run_all
    seen = count()

    async def run_and_stop(
        self: MysqlConnection, statements: Sequence[str], seconds: float = 20.0
    ) -> list[Answer]:
        answers = await run_all(self, statements, seconds)
        moves = "BEGIN" in statements and statements[-1].startswith("UPDATE checkpoints")
        if moves and next(seen) == STEPS_BEFORE:
            os.kill(os.getpid(), signal.SIGSTOP)
        return answers

    setattr(MysqlConnection, "run_all", run_and_stop)  # noqa: B010


async def sell(url: str, name: str, seed: int) -> None:
    async with open_engine(shop_settings(url)) as engine:
        for sku in SKUS:
            await engine.open_sale(
                sku, stock=STOCK, hold_seconds=HOLD_SECONDS, command_id=f"open-{sku}"
            )
        say("open")
        buyers = [Buyer(engine, f"{name}-{n}", seed * BUYERS + n) for n in range(BUYERS)]
        await asyncio.gather(*(each.run() for each in buyers))
    say("lost")


async def follow(url: str) -> None:
    async with open_queries(shop_settings(url)) as queries:
        for projection in (ORDERS, SALES):
            queries.query_side.start_projection(projection)
        say("open")
        await asyncio.Event().wait()


async def main(url: str, name: str, seed: str, step: str) -> None:
    for module in (mysql, mysql_views):
        vars(module)["WRITER_IDLE_SECONDS"] = IDLE_SECONDS
    if step == "read-model":
        stop_in_a_step()
    await (follow(url) if step == "follow" else sell(url, name, int(seed)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
