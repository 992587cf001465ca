"""What a load test asks a running service besides orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.errors import ConfigError, StoreUnavailable
from loadtest.locust_process import free_port
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
    assert found.by_size == {1: 1, 5: 2}
    assert found.size_mean == 8.0
    assert (found.size_p50, found.size_max) == (5, 5)
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


def test_who_does_not_answer_as_the_service_does_is_named() -> None:
    with scripted_shop(lambda _: Answer(200, {})) as shop:
        client = ShopClient(shop.url, None, "")
        with pytest.raises(ConfigError, match="does not answer as `seckill serve` does"):
            client.about()
        with pytest.raises(ConfigError, match="give --admin-url"):
            client.audit()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        ShopClient(f"http://127.0.0.1:{free_port()}", None, "").about()


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://shop", "http://", "http://shop/v1"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--host must be like"):
        check_url("--host", url)
