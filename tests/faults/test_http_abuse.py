"""Clients without manners: each gets a plain no or a closed connection, and the sale goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.faults.raw_http import RawClient, chunked, order, raw, request
from tests.service.serving import Served, served

CONNECTIONS_MAX = 64
REQUEST_SECONDS_MAX = 1
SLOW = 500
GROWTH_BYTES_MAX = 150 << 20
"""Generous: Python keeps what it once had. Forty lists of four megabytes would be beyond it."""

RETRY_SECONDS = 0.02
RETRIES_MAX = 400
"""Eight seconds: eight times what a slow connection may take, a tenth of what an idle one may."""

PAUSE = threading.Event()

_numbers = count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    directory = tmp_path_factory.mktemp("abuse")
    with served(
        directory,
        service__connections_max=str(CONNECTIONS_MAX),
        service__request_seconds_max=str(REQUEST_SECONDS_MAX),
    ) as server:
        server.open("PHONE", 1_000_000)
        yield server, directory / "log.jsonl"


@pytest.fixture(scope="module")
def bytes_before(running: tuple[Served, Path]) -> int:
    running[0].sell("PHONE", 5_000, "warm")
    return running[0].resident_bytes()


@pytest.fixture
def service(running: tuple[Served, Path], bytes_before: int) -> Iterator[Served]:
    """Sells as before after each test, has not grown, and met nothing it did not expect."""
    server, log = running
    yield server
    buy_honestly(server)
    assert server.resident_bytes() - bytes_before < GROWTH_BYTES_MAX
    errors = [each for each in log.read_text().splitlines() if '"level": "error"' in each]
    assert errors == []


def a_key() -> str:
    return f"honest-{next(_numbers)}"


def buy_honestly(server: Served) -> None:
    """Buy as an honest client does: who is told 503, or meets a closed door, comes again."""
    key = a_key()
    for _ in range(RETRIES_MAX):
        with raw(server.public) as client:
            client.send(order(key))
            reply = client.reply()
        if reply is not None and reply.status == 201:
            assert reply.json()["id"] == f"PHONE:{key}"
            return
        assert reply is None or reply.status == 503
        PAUSE.wait(RETRY_SECONDS)
    raise AssertionError("nobody can buy any more")


def ask(server: Served, data: bytes) -> list[int]:
    """The statuses that these bytes are answered with, until the connection ends."""
    with raw(server.public) as client:
        client.send(data)
        return client.statuses()


def ask_and_go_on(server: Served, data: bytes) -> int:
    """The status of a request, after which the connection can still be used."""
    with raw(server.public) as client:
        client.send(data)
        first = client.reply()
        client.send(order(a_key()))
        second = client.reply()
    assert first is not None
    assert second is not None
    assert second.status == 201
    return first.status


def close_all(clients: list[RawClient]) -> None:
    for each in clients:
        each.close()


# -- who is slow


@pytest.mark.parametrize("sent", [b"", b"POST /v1/skus/PH", order("slow")[:-4]])
def test_hundreds_who_never_finish_a_request_do_not_stop_who_buys(
    service: Served, sent: bytes
) -> None:
    slow = [RawClient(service.public) for _ in range(SLOW)]
    for each in slow:
        each.send(sent)
    for _ in range(5):
        for each in slow:
            if sent.startswith(b"POST") and b"\r\n\r\n" not in sent:
                each.send(b"x")
        buy_honestly(service)
    assert all(each.ended() for each in slow)
    close_all(slow)


def test_who_dribbles_an_order_byte_by_byte_is_served_when_in_time(service: Served) -> None:
    with raw(service.public) as client:
        for number in range(3):
            for byte in order(f"bytewise-{number}"):
                client.send(bytes([byte]))
            reply = client.reply()
            assert reply is not None
            assert reply.status == 201


def test_who_takes_too_long_is_told_408(service: Served) -> None:
    assert ask(service, order("late")[:-1]) == [408]
    assert ask(service, b"GET /healthz HTTP/1.1\r\nHost:") == [408]


def test_empty_lines_do_not_keep_a_connection_alive(tmp_path: Path) -> None:
    with served(tmp_path, service__keep_alive_seconds="1") as server, raw(server.public) as client:
        client.send(request("GET /healthz"))
        assert client.reply() is not None
        client.send(b"\r\n")
        assert client.ended()


def test_idle_connections_do_not_keep_new_buyers_out(service: Served) -> None:
    idle = [RawClient(service.public) for _ in range(CONNECTIONS_MAX)]
    for each in idle:
        each.send(order(a_key()))
        each.reply()
    buy_honestly(service)
    close_all(idle)


def test_beyond_the_cap_a_connection_is_told_503_or_closed(service: Served) -> None:
    clients = [RawClient(service.public) for _ in range(3 * CONNECTIONS_MAX)]
    for each in clients:
        each.send(order(a_key()))
    replies = [each.reply() for each in clients]
    close_all(clients)
    statuses = [each.status for each in replies if each is not None]
    assert set(statuses) <= {201, 503}
    assert statuses.count(201) >= CONNECTIONS_MAX // 2


def unread(server: Served, data: bytes, times: int) -> list[RawClient]:
    """Clients that send `data` as often as the server takes it, and read nothing."""
    clients = [RawClient(server.public, receive_buffer_bytes=4_096) for _ in range(8)]
    for each in clients:
        each.socket.settimeout(REQUEST_SECONDS_MAX / 4)
        try:
            for _ in range(times):
                each.send(data)
        except TimeoutError:
            # It takes no more, because its replies are not taken.
            pass
    return clients


def wait_until_all_are_gone(server: Served) -> None:
    with httpx.Client(base_url=server.admin) as admin:
        for _ in range(RETRIES_MAX):
            # The one that is left is the one that asks.
            if "\nseckill_http_connections 1.0\n" in admin.get("/metrics").text:
                return
            PAUSE.wait(RETRY_SECONDS)
    raise AssertionError("connections are still there")


@pytest.mark.parametrize("times", [1, 40])
def test_a_reply_that_nobody_reads_does_not_keep_its_connection(
    service: Served, times: int
) -> None:
    listed = [{"id": f"unread-{n}", "sku": "PHONE", "buyer": "b"} for n in range(10_000)]
    body = json.dumps(listed).encode()
    lines = [f"Content-Length: {len(body)}", *(["Connection: close"] if times == 1 else [])]
    clients = unread(service, request("POST /v1/reservations:batch", *lines, body=body), times)
    buy_honestly(service)
    wait_until_all_are_gone(service)
    close_all(clients)


@pytest.mark.parametrize("what", ["orders", "bad orders", "looks"])
def test_thousands_of_pipelined_requests_that_nobody_reads_are_bounded(
    service: Served, what: str
) -> None:
    each = {
        "orders": order("pipelined"),
        "bad orders": order("pipelined", b"{"),
        "looks": request("GET /v1/skus/PHONE"),
    }[what]
    clients = unread(service, each * 1_000, 20)
    buy_honestly(service)
    wait_until_all_are_gone(service)
    close_all(clients)


def test_a_connection_that_is_given_up_in_the_middle_of_many_requests_is_no_error(
    service: Served,
) -> None:
    # Fewer than are too many, and more bytes of replies than a connection holds.
    clients = unread(service, request("GET /v1/openapi.json") * 200, 1)
    wait_until_all_are_gone(service)
    close_all(clients)


# -- who sends too much


def test_a_hundred_megabytes_that_are_announced_are_refused_before_they_come(
    service: Served,
) -> None:
    for path in ("/v1/skus/PHONE/reservations", "/v1/reservations:batch", "/v1/orders"):
        head = request(f"POST {path}", "Idempotency-Key: huge", f"Content-Length: {100 << 20}")
        with raw(service.public) as client:
            client.send(head)
            assert client.statuses() == [413]


@pytest.mark.parametrize("path", ["/v1/skus/PHONE/reservations", "/v1/reservations:batch"])
def test_a_hundred_megabytes_in_chunks_are_cut_off(service: Served, path: str) -> None:
    part = b"[" * (1 << 20)
    with raw(service.public) as client:
        client.send(request(f"POST {path}", "Idempotency-Key: huge", "Transfer-Encoding: chunked"))
        for _ in range(100):
            client.send(b"%x\r\n%b\r\n" % (len(part), part))
        # The reply may be lost with what was under way to a closed connection.
        assert set(client.statuses()) <= {413}


@pytest.mark.parametrize("dribbled", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_forty_kilobytes_of_headers_are_told_431(
    service: Served, dribbled: bool, ends: bool
) -> None:
    filler = [f"X-{n}: {'x' * 1_000}" for n in range(40)]
    data = order("fat", b'{"buyer":"b"}', *filler)
    if not ends:
        data = data[: data.index(b"\r\n\r\n")]
    with raw(service.public) as client:
        client.send(order(a_key()))
        assert client.reply() is not None
        size = 4_000 if dribbled else len(data)
        for start in range(0, len(data), size):
            client.send(data[start : start + size])
        # A reset, because of what it did not read, may overtake its last words.
        assert client.statuses() in ([431], [])


# -- what is not HTTP, or too much of it


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"\x00\xff\x16\x03\x01garbage\r\n\r\n", [400]),
        (b"HELLO / HTTP/1.1\r\n\r\n", [400]),
        (b"GET / HTTP/9.9\r\n\r\n", [400]),
        (b"GET /\r\n\r\n\r\n", [200]),
        (request("POST /v1/skus/PH\xd0ONE/reservations"), [400]),
        (request("CONNECT example.org:443"), [400]),
        (order("two", b'{"buyer":"b"}', "Content-Length: 13"), [400]),
        (order("two", b'{"buyer":"b"}', "Content-Length: 5"), [400]),
        (order("both", b'{"buyer":"b"}', "Transfer-Encoding: chunked"), [400]),
        (request("POST /v1/skus/A/reservations", "Content-Length: -5"), [400]),
        (request("POST /v1/skus/A/reservations", "Content-Length: 9" + "9" * 30), [400]),
        (request("POST /v1/skus/A/reservations", "Transfer-Encoding: gzip"), [400]),
        (request("GET /healthz", "Broken\x00: header"), [400]),
    ],
)
def test_what_is_no_request_is_told_400_and_the_connection_is_closed(
    service: Served, data: bytes, statuses: list[int]
) -> None:
    assert ask(service, data) == statuses


NESTED = b"[" * 5_000 + b"]" * 5_000


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (order("utf-8", b'{"buyer":"\xff\xfe"}'), 400),
        (order("surrogate", b'{"buyer":"\\ud800"}'), 400),
        (order("bad-path", sku="PH%FFONE"), 400),
        (order("nul", sku="%00"), 400),
        (order("k\xe9y").replace("k\xe9y".encode(), b"k\xff"), 400),
        (order("nested", b'{"buyer":' + NESTED[:4_000] + b"}"), 400),
        (order("nested", NESTED), 400),
        (order("array", b"[]"), 400),
        (order("nothing", b""), 400),
        (order("timeout", b'{"buyer":"b"}', f"X-Request-Timeout-Ms: {'9' * 5_000}"), 400),
        (
            request("POST /v1/orders", "Content-Length: 10000", "Idempotency-Key: n", body=NESTED),
            400,
        ),
        (request("POST /v1/reservations:batch", "Content-Length: 10000", body=NESTED), 400),
        (request("GET /v1/skus?limit=000000000000000000019999999"), 400),
        (request("GET /v1/skus/PH%FFONE"), 400),
        (request("GET /v1/buyers/%FF/reservations"), 400),
        (request("PROPFIND /v1/skus/PHONE"), 405),
        (request("OPTIONS /nowhere"), 404),
        (request("GET /static/..%2f..%2f..%2fetc%2fpasswd"), 404),
    ],
)
def test_a_wrong_request_is_told_so_and_the_connection_goes_on(
    service: Served, data: bytes, status: int
) -> None:
    assert ask_and_go_on(service, data) == status


@pytest.mark.parametrize("path", ["/v1/skus/PHONE/reservations", "/v1/reservations:batch"])
def test_a_length_with_thousands_of_zeros_is_a_length(service: Served, path: str) -> None:
    body = b"{"
    data = request(
        f"POST {path}", "Idempotency-Key: zeros", f"Content-Length: {'0' * 5_000}1", body=body
    )
    assert ask_and_go_on(service, data) == 400


# -- orders that are unusual, and honest


def test_an_order_that_asks_whether_it_may_come_is_taken(service: Served) -> None:
    data = order(a_key(), b'{"buyer":"b"}', "Expect: 100-continue")
    end = data.index(b"\r\n\r\n") + 4
    with raw(service.public) as client:
        client.send(data[:end])
        told = client.reply()
        assert told is not None
        assert told.status == 100
        client.send(data[end:])
        reply = client.reply()
        assert reply is not None
        assert reply.status == 201
    assert ask_and_go_on(service, order(a_key(), b'{"buyer":"b"}', "Expect: nothing")) == 201


def test_an_order_in_chunks_is_taken(service: Served) -> None:
    data = request(
        "POST /v1/skus/PHONE/reservations",
        *(f"Idempotency-Key: {a_key()}", "Transfer-Encoding: chunked"),
        body=chunked(b'{"buy', b'er":"b"', b"}"),
    )
    assert ask_and_go_on(service, data) == 201


def test_an_order_that_offers_another_protocol_is_taken(service: Served) -> None:
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert ask_and_go_on(service, order(a_key(), b'{"buyer":"b"}', *upgrade)) == 201


def test_an_order_of_http_1_0_is_answered_and_the_connection_closed(service: Served) -> None:
    data = order(a_key()).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert ask(service, data) == [201]
