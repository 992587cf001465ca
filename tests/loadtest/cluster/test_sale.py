"""Buyers of a cluster go from gateway to gateway until they know, and note all of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.event_loop import run_async
from engine.inventory.history import HistoryWriter, read_history
from engine.runtime import audit_store
from loadtest.cluster.sale import NO_REPLY, ClusterCrowd, SaleLoad
from tests.loadtest.swarm.scripted_shop import Answer, Asked, Script, ScriptedShop, scripted_shop
from tests.service.serving import served

LOAD = SaleLoad(
    skus=("SKU-1",), buyers=1, per_second=1_000, repeats=0, answer_seconds=20, open_seconds_max=0
)
OVERLOADED = Answer(503, {"reason": "overloaded", "retry_after_ms": 1})


def reserved(asked: Asked) -> Answer:
    return Answer(201, asked.body)


def sold_out(asked: Asked) -> Answer:
    return Answer(409, {"reason": "sold_out"})


class Shops:
    """Two gateways with scripts, and a crowd that buys until the second one was asked so often."""

    def __init__(self, folder: Path, *scripts: Script) -> None:
        self.history = folder / "history.jsonl"
        self._scripts = scripts
        self.asked: list[list[Asked]] = []

    def buy(self, load: SaleLoad, orders: int) -> ClusterCrowd:
        """The crowd when the gateways were asked at least so often in all."""
        with scripted_shop(self._scripts[0]) as one, scripted_shop(self._scripts[1]) as two:
            shops = one, two
            writer = HistoryWriter(self.history)
            crowd = ClusterCrowd([each.url for each in shops], load, writer)
            run_async(_buy_until(crowd, lambda: _asked(shops) >= orders))
            writer.close()
            self.asked = [list(each.asked) for each in shops]
        return crowd


def _asked(shops: tuple[ScriptedShop, ScriptedShop]) -> int:
    return sum(len(each.asked) for each in shops)


async def _buy_until(crowd: ClusterCrowd, enough: Callable[[], bool]) -> None:
    buying = asyncio.create_task(crowd.run())
    while not enough() and not buying.done():  # noqa: ASYNC110 -- what is counted is in threads
        await asyncio.sleep(0)
    crowd.stop()
    await buying


def test_an_order_is_noted_before_it_is_sent(tmp_path: Path) -> None:
    noted: list[bool] = []

    def look(asked: Asked) -> Answer:
        noted.append(asked.key in (tmp_path / "history.jsonl").read_text())
        return reserved(asked)

    crowd = Shops(tmp_path, look, look).buy(LOAD, 20)
    assert len(noted) >= 20
    assert all(noted)
    orders = read_history(tmp_path / "history.jsonl").orders
    assert [each.answer for each in orders.values()] == ["ok"] * crowd.total.accepted


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(202, {"status": "in_doubt"}), "202"),
        (OVERLOADED, "503 overloaded"),
        (Answer(503, {"reason": "of another version"}), "503 of another version"),
        (None, NO_REPLY),
    ],
)
def test_an_open_order_goes_on_through_the_other_gateway_with_the_same_key(
    tmp_path: Path, answer: Answer | None, kind: str
) -> None:
    shops = Shops(tmp_path, lambda _: answer, reserved)
    load = msgspec.structs.replace(LOAD, open_seconds_max=60)
    crowd = shops.buy(load, 40)
    bad, good = crowd.counts
    assert bad.first > 0
    assert bad.open_answers == {kind: bad.first}
    assert (bad.accepted, bad.again) == (0, 0)
    assert good.again == bad.first
    assert good.accepted == good.first + good.again == len(crowd.sales)
    keys = [{each.key for each in asked} for asked in shops.asked]
    assert keys[0] <= keys[1]
    assert {each.answer for each in read_history(shops.history).orders.values()} == {"ok"}


def test_who_is_left_without_a_reply_asks_the_other_gateway(tmp_path: Path) -> None:
    over = threading.Event()

    def hang(_: Asked) -> None:
        over.wait(60)

    def answer(asked: Asked) -> Answer:
        over.set()
        return reserved(asked)

    load = msgspec.structs.replace(LOAD, open_seconds_max=60, answer_seconds=0.1)
    crowd = Shops(tmp_path, hang, answer).buy(load, 20)
    assert crowd.counts[0].open_answers[NO_REPLY] > 0
    assert crowd.total.accepted == crowd.total.first


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    crowd = Shops(tmp_path, sold_out, sold_out).buy(LOAD, 20)
    total = crowd.total
    assert total.first == total.refused["sold_out"] == len(crowd.decided_at)
    assert (total.again, total.accepted, crowd.sales) == (0, 0, [])


def test_what_nobody_answers_is_given_up_and_counted(tmp_path: Path) -> None:
    crowd = Shops(tmp_path, lambda _: None, lambda _: None).buy(LOAD, 20)
    assert crowd.total.unknown == crowd.total.first > 0
    assert crowd.total.failed == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {"reason": "unknown_sku"}),
        Answer(500, {"reason": "internal"}),
        Answer(201, {"buyer": "somebody else", "quantity": 1}),
    ],
)
def test_a_wrong_answer_is_told(tmp_path: Path, answer: Answer) -> None:
    crowd = Shops(tmp_path, lambda _: answer, lambda _: answer).buy(LOAD, 20)
    assert crowd.total.failed == crowd.total.first > 0
    assert str(answer.status) in crowd.samples[0] or "somebody else" in crowd.samples[0]


@pytest.mark.parametrize(("again", "wrong"), [(reserved, False), (sold_out, True)])
def test_who_asks_again_has_to_be_told_the_same(tmp_path: Path, again: Script, wrong: bool) -> None:
    def answer(asked: Asked) -> Answer | None:
        new = asked.key not in known
        known.add(asked.key)
        return reserved(asked) if new else again(asked)

    known: set[str] = set()
    crowd = Shops(tmp_path, answer, answer).buy(msgspec.structs.replace(LOAD, repeats=1.0), 20)
    total = crowd.total
    assert (total.failed if wrong else total.repeated) == total.accepted > 0
    assert bool(crowd.samples) is wrong


def test_buyers_of_a_sku_that_is_not_sold_hold_up_nobody_else(tmp_path: Path) -> None:
    def only_the_second(asked: Asked) -> Answer:
        return reserved(asked) if "SKU-2" in asked.path else OVERLOADED

    load = msgspec.structs.replace(LOAD, skus=("SKU-1", "SKU-2"), buyers=2, open_seconds_max=0.2)
    crowd = Shops(tmp_path, only_the_second, only_the_second).buy(load, 100)
    assert {each.order.aggregate_id for each in crowd.sales} == {"SKU-2"}
    assert len(crowd.sales) > 20


def test_a_sale_on_a_real_server_is_proven(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    writer = HistoryWriter(history)
    with served(tmp_path) as server:
        server.open("SKU-1", 1_000_000, limit_per_buyer=2)
        load = msgspec.structs.replace(LOAD, buyers=8, per_second=5_000, repeats=0.5, accounts=200)
        crowd = ClusterCrowd([server.public, server.public], load, writer)
        run_async(_buy_until(crowd, lambda: crowd.total.refused["over_limit"] >= 50))
        run_async(crowd.ask_again(crowd.sales[:20]))
    writer.close()
    report = run_async(audit_store(f"sqlite:{tmp_path / 'seckill.db'}", read_history(history)))
    assert report.ok, report.checks
    assert report.reservations == crowd.total.accepted
    assert crowd.total.repeated >= 40
    assert (crowd.total.failed, crowd.total.unknown) == (0, 0)


def test_an_order_that_was_acknowledged_and_not_stored_is_found(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    with served(tmp_path) as server:
        server.open("SKU-1", 1_000)
    crowd = Shops(tmp_path, reserved, reserved).buy(LOAD, 20)
    report = run_async(audit_store(f"sqlite:{tmp_path / 'seckill.db'}", read_history(history)))
    assert report.lost == crowd.total.accepted > 0
