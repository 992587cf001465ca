"""Orders among other requests on one connection: each is answered as its own, in its turn.

Small orders take a shortcut through the server. A batch is kept open for a while here, so that an
order is in the engine while something happens to its connection.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.faults.raw_http import RawClient, chunked, order, raw, request
from tests.service.serving import Served, served

BATCH_MS = 1_500
REQUEST_SECONDS_MAX = 0.6
"""Shorter than an order takes here, with the sweep that comes every half second."""

POLL_SECONDS = 0.02
POLLS_MAX = 500

PAUSE = threading.Event()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("quick")) as server:
        server.open("PHONE", 1_000_000)
        server.open("HELD", 100, hold_seconds=600)
        yield server


def slow_server(directory: Path) -> Iterator[Served]:
    with served(
        directory,
        batch__delay_ms_max=str(BATCH_MS),
        batch__size_max="1000",
        service__request_seconds_max=str(REQUEST_SECONDS_MAX),
    ) as server:
        server.open("PHONE", 1_000_000)
        yield server


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from slow_server(tmp_path_factory.mktemp("slow"))


@pytest.fixture
def ending(tmp_path: Path) -> Iterator[Served]:
    """A slow server of its own, for a test that ends it."""
    yield from slow_server(tmp_path)


def wait_for_queue(server: Served, orders: int) -> None:
    with httpx.Client(base_url=server.admin) as admin:
        for _ in range(POLLS_MAX):
            if f"seckill_queue_depth {orders}.0" in admin.get("/metrics").text:
                return
            PAUSE.wait(POLL_SECONDS)
    raise AssertionError("the order did not arrive")


def status_of(server: Served, key: str) -> int:
    return httpx.get(f"{server.public}/v1/commands/PHONE:{key}", timeout=20).status_code


def next_status(client: RawClient) -> int:
    reply = client.reply()
    assert reply is not None
    return reply.status


def test_a_connection_serves_a_thousand_orders(quick: Served) -> None:
    with raw(quick.public) as client:
        for number in range(1_000):
            client.send(order(f"reuse-{number}"))
            reply = client.reply()
            assert reply is not None
            assert reply.json()["id"] == f"PHONE:reuse-{number}"


def test_requests_of_every_kind_are_answered_in_their_order(quick: Served) -> None:
    listed = json.dumps([{"id": f"list-{n}", "sku": "PHONE", "buyer": "b"} for n in range(500)])
    body = listed.encode()
    chunks = ("Idempotency-Key: mixed-chunked", "Transfer-Encoding: chunked")
    each = [
        (request("POST /v1/reservations:batch", f"Content-Length: {len(body)}", body=body), 200),
        (order("mixed-1"), 201),
        (order("mixed-2", b"{"), 400),
        (request("GET /v1/skus/PHONE"), 200),
        (order("mixed-3"), 201),
        (request("POST /v1/skus/PHONE/reservations", *chunks, body=chunked(b'{"buyer":"b"}')), 201),
        (order("mixed-4", sku="NONE"), 404),
        (order("mixed-5", b'{"buyer":"b"}', "Upgrade: h2c", "Connection: Upgrade"), 201),
        (request("GET /nowhere"), 404),
        (order("mixed-1"), 201),
        (order("mixed-6", b'{"buyer":"b"}', "Connection: close"), 201),
    ]
    data = b"".join(sent for sent, _ in each)
    expected = [status for _, status in each]
    for size in (len(data), 7_777, 50):
        with raw(quick.public) as client:
            for start in range(0, len(data), size):
                client.send(data[start : start + size])
            assert client.statuses() == expected


def test_heads_and_looks_between_orders_confuse_nobody(quick: Served) -> None:
    with raw(quick.public) as client:
        for number in range(20):
            client.send(request("HEAD /v1/skus/PHONE/reservations") + order(f"heads-{number}"))
            client.skip_to(b"HTTP/1.1 201")
            reply = client.reply()
            assert reply is not None
            assert reply.json()["id"] == f"PHONE:heads-{number}"


def test_many_orders_in_one_piece_are_all_answered(quick: Served) -> None:
    """Sixty kilobytes: twice what the head of one request may have."""
    orders = [order(f"piece-{n}", b'{"buyer":"b"}', f"X-Filler: {'x' * 120}") for n in range(250)]
    data = b"".join(orders)
    assert len(data) > 60_000
    with raw(quick.public) as client:
        # It ends in the middle of a head.
        client.send(data[:-100])
        assert [next_status(client) for _ in orders[1:]] == [201] * 249
        client.send(data[-100:])
        assert next_status(client) == 201


def test_many_bad_orders_behind_a_good_one_are_answered_one_by_one(quick: Served) -> None:
    with raw(quick.public) as client:
        client.send(order("leader") + order("bad", b"{") * 250)
        assert [next_status(client) for _ in range(251)] == [201, *[400] * 250]


def test_behind_the_last_request_of_a_connection_nothing_is_begun(quick: Served) -> None:
    last = order("last", b"{", "Connection: close")
    with raw(quick.public) as client:
        client.send(last + order("behind-the-last"))
        assert client.statuses() == [400]
    assert status_of(quick, "behind-the-last") == 404


def test_a_change_whose_request_turns_out_broken_is_not_made(quick: Served) -> None:
    with raw(quick.public) as client:
        client.send(order("held-1", sku="HELD"))
        assert next_status(client) == 201
        client.send(
            request("POST /v1/reservations/HELD:held-1/release", "Transfer-Encoding: chunked")
            + b"no chunk\r\n"
        )
        assert client.statuses() == [400]
    found = httpx.get(f"{quick.public}/v1/reservations/HELD:held-1")
    assert found.json()["state"] == "held"


@pytest.mark.parametrize(
    "behind",
    [
        b"no HTTP\r\n\r\n",
        b"POST /v1/skus/PHONE/reservations HTTP/1.1\r\n",
        order("half")[:-3],
        request("GET /healthz", f"X-Fat: {'x' * 40_000}"),
        order("half")[:-3] + b"\r\n",
    ],
)
def test_what_comes_behind_an_order_does_not_take_its_answer(slow: Served, behind: bytes) -> None:
    key = f"before-{len(behind)}"
    with raw(slow.public) as client:
        client.send(order(key))
        wait_for_queue(slow, 1)
        client.send(behind)
        reply = client.reply()
        assert reply is not None
        assert reply.status == 201
        assert reply.json()["id"] == f"PHONE:{key}"
        assert client.ended()


def test_an_order_whose_connection_is_lost_is_decided_all_the_same(slow: Served) -> None:
    client = RawClient(slow.public)
    client.send(order("lost"))
    wait_for_queue(slow, 1)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert status_of(slow, "lost") == 200
    with raw(slow.public) as again:
        again.send(order("lost"))
        assert next_status(again) == 201


def test_a_drain_answers_what_was_taken_and_nothing_behind_it(ending: Served) -> None:
    with raw(ending.public) as client, raw(ending.public) as half, raw(ending.public) as idle:
        idle.send(request("GET /healthz"))
        assert next_status(idle) == 200
        half.send(order("half")[:-1])
        client.send(order("first") + order("second") + order("third"))
        wait_for_queue(ending, 1)
        ending.terminate()
        assert idle.ended()
        half.send(order("half")[-1:])
        replies = client.replies()
        assert [each.status for each in replies] in ([201, 503], [201, 503, 503])
        assert replies[-1].headers["connection"] == "close"
        assert half.statuses() == [201]
        assert ending.wait() == 0
    ending.start()
    keys = ("first", "half", "second", "third")
    with ThreadPoolExecutor() as pool:
        # All in one batch, which is kept open.
        found = list(pool.map(partial(status_of, ending), keys))
    assert found == [200, 200, 404, 404]
