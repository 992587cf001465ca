"""Events for other systems: every commit once and in order, whatever happens to the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.js.api import PubAck
from nats.js.errors import APIError

from engine.cluster.events_out import MESSAGES_MAX, EventsOut
from engine.cqrs.event_store import StoredCommit
from engine.testing.nats_proxy import NatsProxy, nats_proxy
from engine.testing.nats_server import NatsServer, nats_server
from tests.cluster.outlet import STEP_SECONDS, Outlet, headers, outlet, stop
from tests.gate.waiting import real_seconds, until
from tests.servers import need_nats

DUPLICATE_SECONDS = 0.1
"""The shortest window that a broker allows."""


@pytest_asyncio.fixture
async def shop(nats: NatsServer) -> AsyncIterator[Outlet]:
    async with outlet(nats.url) as shop:
        yield shop


@pytest_asyncio.fixture
async def proxy(nats: NatsServer) -> AsyncIterator[NatsProxy]:
    """Asked for before `shop`, so that nobody is connected when it goes."""
    async with nats_proxy(nats.port) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def own_shop(own_nats: NatsServer) -> AsyncIterator[Outlet]:
    """On a broker that the test may break."""
    async with outlet(own_nats.url) as shop:
        yield shop


@pytest.fixture
def small_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A broker that takes no long messages."""
    need_nats()
    with nats_server(tmp_path, max_payload="64KB") as server:
        yield server


@pytest_asyncio.fixture
async def small_shop(small_nats: NatsServer) -> AsyncIterator[Outlet]:
    async with outlet(small_nats.url) as shop:
        yield shop


def has_trouble(publisher: EventsOut) -> bool:
    return publisher.statistics().trouble != ""


def up_to(position: int) -> list[int]:
    return list(range(1, position + 1))


async def stored(shop: Outlet) -> list[StoredCommit]:
    return await shop.store.read_partition(0, 0, 1_000)


async def test_a_store_that_is_there_is_published_whole_in_order_and_as_it_is(shop: Outlet) -> None:
    await shop.sell(150, events=3)
    publisher = await shop.started()
    await shop.until_published(150)
    messages = await shop.messages()
    assert [each.data for each in messages] == [each.events for each in await stored(shop)]
    assert await shop.positions() == up_to(150)
    assert {
        name: value
        for name, value in headers(messages[-1]).items()
        if not name.startswith(("Nats-Batch", "Nats-Expected"))
    } == {
        "Nats-Msg-Id": "0:150",
        "Seckill-Partition": "0",
        "Seckill-Position": "150",
        "Seckill-Aggregate-Type": "stock",
        "Seckill-Aggregate-Id": "A%2F%C3%BC",
        "Seckill-First-Version": "448",
        "Seckill-Last-Version": "450",
        "Seckill-Committed-At-Us": str((await stored(shop))[-1].committed_at_us),
    }
    done = publisher.statistics()
    assert (done.position, done.commits, done.events, done.messages) == (150, 150, 450, 150)
    assert (done.refusals, done.trouble) == (0, "")


async def test_what_is_sold_later_follows_and_partitions_do_not_mix(shop: Outlet) -> None:
    await shop.started()
    await shop.started(partition=1)
    for round_ in range(1, 6):
        await shop.sell(1)
        await shop.sell(2, partition=1, sku="B")
        await shop.until_published(round_)
        await shop.until_published(2 * round_, partition=1)
    assert await shop.positions() == up_to(5)
    assert await shop.positions(partition=1) == up_to(10)


async def test_a_restart_goes_on_behind_the_newest_message(shop: Outlet) -> None:
    await shop.sell(5)
    first = await shop.publisher()
    task = shop.start(first)
    await shop.until_published(5)
    await stop(task)
    await shop.sell(5)
    second = await shop.started()
    await shop.until_published(10)
    assert await shop.positions() == up_to(10)
    assert (second.statistics().messages, second.statistics().refusals) == (5, 0)


async def test_a_broker_killed_and_restarted_gets_what_was_sold_meanwhile(
    own_shop: Outlet, own_nats: NatsServer
) -> None:
    publisher = await own_shop.started()
    await own_shop.sell(20)
    await own_shop.until_published(20)
    await asyncio.to_thread(own_nats.kill)
    await own_shop.sell(20)
    await own_shop.until(lambda: publisher.statistics().trouble != "")
    await asyncio.to_thread(own_nats.start)
    await own_shop.sell(20)
    await own_shop.until_published(60)
    assert await own_shop.positions() == up_to(60)
    assert publisher.statistics().trouble == ""


async def test_a_broker_that_lost_its_disks_gets_everything_again_without_a_new_sale(
    own_shop: Outlet, own_nats: NatsServer
) -> None:
    await own_shop.started()
    await own_shop.sell(100)
    await own_shop.until_published(100)
    await asyncio.to_thread(own_nats.kill)
    await asyncio.to_thread(own_nats.wipe)
    await asyncio.to_thread(own_nats.start)
    await own_shop.until_published(100)
    assert await own_shop.positions() == up_to(100)
    assert [each.data for each in await own_shop.messages()] == [
        each.events for each in await stored(own_shop)
    ]


@pytest.mark.parametrize("sold", [1, 5])
async def test_what_a_replaced_publisher_sends_late_is_refused(
    proxy: NatsProxy, shop: Outlet, sold: int
) -> None:
    """Later than the broker knows message ids: only the expected sequence is left to refuse it."""
    js = shop.client.jetstream()
    config = (await js.stream_info(shop.stream.name)).config
    await js.update_stream(config.evolve(duplicate_window=DUPLICATE_SECONDS))
    old = await shop.started(proxy.url)
    await shop.sell(3)
    await shop.until_published(3)
    await shop.until(lambda: old.statistics().position == 3)
    proxy.hold("to_server")
    await shop.sell(sold)
    await shop.until(lambda: old.statistics().position == 3)
    new = await shop.started()
    await shop.until_published(3 + sold)
    await shop.sell(1)
    await shop.until_published(4 + sold)
    await real_seconds(2 * DUPLICATE_SECONDS)
    proxy.release()
    await shop.until(lambda: old.statistics().position == 4 + sold)
    assert old.statistics().messages == 3
    assert new.statistics().messages == sold + 1
    assert await shop.positions() == up_to(4 + sold)


async def test_two_at_once_publish_everything_once(shop: Outlet) -> None:
    publishers = [await shop.started(), await shop.started()]
    for _ in range(10):
        await shop.sell(7)
        await shop.until_published((await stored(shop))[-1].position)
    assert await shop.positions() == up_to(70)
    assert sum(each.statistics().messages for each in publishers) == 70
    assert sum(each.statistics().refusals for each in publishers) > 0


@pytest.mark.parametrize("sold", [1, 5])
async def test_a_lost_pub_ack_repeats_nothing(proxy: NatsProxy, shop: Outlet, sold: int) -> None:
    publisher = await shop.started(proxy.url)
    await shop.sell(2)
    await shop.until(lambda: publisher.statistics().position == 2)
    proxy.lose_acks(stream=shop.stream.name)
    await shop.sell(sold)
    await shop.until(lambda: publisher.statistics().position == 2 + sold)
    await shop.sell(1)
    await shop.until(lambda: publisher.statistics().position == 3 + sold)
    assert proxy.acks_lost == 1
    assert await shop.positions() == up_to(3 + sold)


async def test_a_commit_longer_than_the_broker_takes_comes_in_parts_of_whole_events(
    small_shop: Outlet,
) -> None:
    await small_shop.sell(1)
    await small_shop.append(0, "B", 1, 8_190, big := compact(8_190))
    await small_shop.sell(1)
    await small_shop.started()
    await small_shop.until_published(3)
    messages = [each for each in await small_shop.messages() if "Seckill-Parts" in headers(each)]
    parts = len(messages)
    assert parts == -(-len(big) // 64_000)
    assert [headers(each)["Nats-Msg-Id"] for each in messages] == [
        f"0:2:{part}" for part in range(1, parts + 1)
    ]
    assert {(headers(each)["Seckill-Parts"]) for each in messages} == {str(parts)}
    assert b"[" + b",".join((each.data or b"")[1:-1] for each in messages) + b"]" == big
    first = 1
    for message in messages:
        count = len(json.loads(message.data or b""))
        assert headers(message)["Seckill-First-Version"] == str(first)
        first += count
        assert headers(message)["Seckill-Last-Version"] == str(first - 1)
    assert first == 8_191


def compact(events: int) -> bytes:
    sold = [{"type": "sold.1", "n": n, "text": "x" * 40} for n in range(events)]
    return json.dumps(sold, separators=(",", ":")).encode()


async def test_an_event_that_no_message_can_hold_is_told_and_waits(small_shop: Outlet) -> None:
    await small_shop.sell(3)
    await small_shop.sell(1, text="x" * 65_000)
    publisher = await small_shop.started()
    await small_shop.until(lambda: publisher.statistics().trouble != "")
    assert "raise its max_payload" in publisher.statistics().trouble
    assert "position 4 of partition 0" in publisher.statistics().trouble
    assert await small_shop.positions() == up_to(3)


async def test_a_damaged_commit_is_not_published_nor_what_follows(shop: Outlet) -> None:
    await shop.sell(2)
    await shop.append(0, "B", 1, 1, b'[{"type":"sold.1"}]', crc=1)
    await shop.sell(1)
    publisher = await shop.started()
    await shop.until(partial(has_trouble, publisher))
    assert "its checksum does not match its events" in publisher.statistics().trouble
    assert await shop.positions() == up_to(2)


async def test_a_restart_goes_on_where_limits_have_removed_everything(shop: Outlet) -> None:
    await shop.sell(5)
    task = shop.start(await shop.publisher())
    await shop.until_published(5)
    await until_saved(shop, 5)
    await stop(task)
    await shop.client.jetstream().purge_stream(shop.stream.name)
    await shop.sell(2)
    publisher = await shop.started()
    await shop.until_published(7)
    assert await shop.positions() == [6, 7]
    assert publisher.statistics().messages == 2


async def test_the_position_is_kept_beside_the_stream_while_there_is_no_rest(
    shop: Outlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cluster.events_out.SAVE_SECONDS", 0.0)
    await shop.sell(3 * MESSAGES_MAX)
    await shop.started()
    await until_saved(shop, 3 * MESSAGES_MAX)
    info = await shop.client.jetstream().stream_info(shop.stream.checkpoint_stream)
    assert info.state.last_seq == 3


async def test_a_stream_that_was_deleted_is_filled_again_although_the_bucket_is_there(
    shop: Outlet,
) -> None:
    await shop.sell(5)
    await shop.started()
    await shop.until_published(5)
    await until_saved(shop, 5)
    await shop.client.jetstream().delete_stream(shop.stream.name)
    await shop.until_published(5)
    assert await shop.positions() == up_to(5)


async def test_what_the_bucket_says_of_a_stream_that_is_gone_counts_for_nothing(
    shop: Outlet,
) -> None:
    await shop.sell(5)
    task = shop.start(await shop.publisher())
    await until_saved(shop, 5)
    await stop(task)
    await shop.client.jetstream().delete_stream(shop.stream.name)
    await shop.sell(9, partition=1, sku="B")
    await shop.started(partition=1)
    await shop.until_published(9, partition=1)
    await shop.started()
    await shop.until_published(5)
    assert await shop.positions() == up_to(5)


async def test_a_message_of_somebody_else_stops_nothing(shop: Outlet) -> None:
    publisher = await shop.started()
    await shop.sell(3)
    await shop.until_published(3)
    await until_saved(shop, 3)
    await shop.client.jetstream().publish(shop.stream.subject(0), b"hello")
    await shop.sell(3)
    await shop.until_published(6)
    ours = [each for each in await shop.messages() if each.headers]
    assert [headers(each)["Seckill-Position"] for each in ours] == [str(n) for n in up_to(6)]
    assert publisher.statistics().refusals == 1


async def test_nothing_is_published_from_a_store_that_is_not_the_one_it_was(
    shop: Outlet, nats: NatsServer
) -> None:
    await shop.sell(5)
    await shop.started()
    await shop.until_published(5)
    for sold in (3, 9):
        other = Outlet(nats.url, shop.stream)
        await other.open()
        await other.sell(sold, sku="B")
        publisher = await other.started()
        await other.until(partial(has_trouble, publisher))
        assert "position 5" in publisher.statistics().trouble
        assert f"delete the stream {shop.stream.name}" in publisher.statistics().trouble
        await other.close()
    assert await shop.positions() == up_to(5)


async def test_a_cancellation_that_the_client_swallows_ends_it_all_the_same(
    shop: Outlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await shop.publisher()
    task = shop.start(publisher)
    await shop.until(lambda: True)
    send = publisher._js.publish

    async def swallow(*args: Any, **kwargs: Any) -> PubAck:
        ack = await send(*args, **kwargs)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return ack

    monkeypatch.setattr(publisher._js, "publish", swallow)
    await shop.sell(1)
    await shop.until(task.done)
    assert task.cancelled()
    assert publisher.statistics().messages == 1


async def test_what_nobody_thought_of_is_logged_once_and_tried_again(
    shop: Outlet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = await shop.publisher()
    failures = [ZeroDivisionError("how odd") for _ in range(3)]
    publish = publisher._js.publish

    async def fail(*args: Any, **kwargs: Any) -> PubAck:
        if failures:
            raise failures.pop()
        return await publish(*args, **kwargs)

    monkeypatch.setattr(publisher._js, "publish", fail)
    await shop.sell(2)
    shop.start(publisher)
    await shop.until_published(2)
    assert await shop.positions() == up_to(2)
    assert [each.message for each in caplog.records if each.exc_info] == [
        "events of partition 0 wait: how odd"
    ]


async def until_saved(shop: Outlet, position: int) -> None:
    """Until the bucket has this position."""
    bucket = await shop.client.jetstream().key_value(shop.stream.checkpoints)

    async def is_saved() -> bool:
        shop.clock.advance(STEP_SECONDS)
        try:
            entry = await bucket.get("events.0")
        except APIError:
            return False
        return bool(json.loads(entry.value or b"{}")["position"] == position)

    await until(is_saved)
