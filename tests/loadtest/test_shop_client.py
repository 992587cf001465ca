"""What a load test asks a running service besides orders."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.errors import ConfigError, StoreUnavailable
from loadtest.shop_client import BatchCounters, ShopClient, batches_between, check_url
from tests.loadtest.swarm.scripted_shop import Answer, scripted_shop
from tests.service.serving import served

INFINITE = float("inf")
NOTHING = BatchCounters({}, {}, 0, 0)


def test_batches_are_those_between_two_readings() -> None:
    before = BatchCounters({"idle": 10}, {1.0: 4, 2.0: 7, 5.0: 10, INFINITE: 10}, 25, 9)
    after = BatchCounters(
        {"idle": 13, "size": 2}, {1.0: 5, 2.0: 8, 5.0: 13, INFINITE: 15}, 65, 13
    )  # fmt: skip
    found = batches_between(before, after)
    assert found.count == 5
    assert found.by_size == {1: 1, 5: 2, 100_000: 2}
    assert found.size_mean == 8.0
    assert (found.size_p50, found.size_max) == (5, 100_000)
    assert found.closed_by == {"idle": 3, "size": 2}
    assert found.transactions == 4


def test_batches_of_a_server_that_did_nothing_are_none() -> None:
    found = batches_between(NOTHING, NOTHING)
    assert (found.count, found.size_mean, found.size_p50, found.size_max) == (0, 0.0, 0, 0)
    assert found.closed_by == {}


def test_a_real_server_is_asked_for_everything_a_load_test_needs(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        client = ShopClient(server.public + "/", None, DEFAULT_ADMIN_SECRET)
        assert client.about().store.kind == "sqlite"
        assert client.admin_url == server.admin.rstrip("/")
        assert not client.is_on_sale("SKU-1")
        client.open_sale("SKU-1", 10, 0, 60)
        assert client.is_on_sale("SKU-1")
        before = client.batches()
        server.sell("SKU-1", 3)
        found = batches_between(before, client.batches())
        assert found.count >= 1
        assert round(found.size_mean * found.count) == 3
        assert client.audit().units.held == 3
        with pytest.raises(ConfigError, match="does not take this secret"):
            ShopClient(server.public, server.admin, "wrong").audit()


def test_who_does_not_answer_as_the_service_does_is_named(held_port: int) -> None:
    with scripted_shop(lambda _: Answer(200, {})) as shop:
        client = ShopClient(shop.url, None, "")
        with pytest.raises(ConfigError, match="does not answer as `seckill serve` does"):
            client.about()
        with pytest.raises(ConfigError, match="give --admin-url"):
            client.audit()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        ShopClient(f"http://127.0.0.1:{held_port}", None, "").about()


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://shop", "http://", "http://shop/v1"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--host must be like"):
        check_url("--host", url)


def test_a_batch_above_all_bounds_counts_at_the_largest_there_can_be() -> None:
    found = batches_between(NOTHING, BatchCounters({"size": 1}, {10.0: 0, INFINITE: 1}, 20, 1))
    assert (found.by_size, found.size_max) == ({100_000: 1}, 100_000)


def test_the_secret_does_not_go_where_a_server_says_its_operator_is() -> None:
    with (
        scripted_shop(lambda _: Answer(200, {})) as other,
        scripted_shop(
            lambda _: Answer(200, {}),
            admin_url=other.url.replace("127.0.0.1", "localhost"),
            version="1",
            store={"kind": "sqlite", "version": "3", "durability": "strict"},
        ) as shop,
    ):
        client = ShopClient(shop.url, None, "a-secret")
        with pytest.raises(ConfigError, match="operator's listener is on another host"):
            client.about()
        assert other.asked == []


def test_the_secret_follows_no_redirect() -> None:
    came: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/stolen")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 -- the library names it so

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ConfigError, match="answered 302"):
            ShopClient(url, url, "a-secret").audit()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert came == ["/v1/admin/audit"]
