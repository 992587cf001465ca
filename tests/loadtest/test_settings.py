"""The settings of a workload are checked at the door, and the message names the flag."""

from __future__ import annotations

import math

import pytest

from engine.config import Settings, load_settings
from engine.errors import ConfigError
from loadtest.sale import Quantities
from loadtest.settings import (
    LIMITS,
    WorkloadSettings,
    describe_settings,
    parse_quantity,
    refuse_cluster,
)


def test_the_defaults_are_valid() -> None:
    WorkloadSettings().check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 2**63),
        ("buyers", 0),
        ("buyers", -5),
        ("buyers", 10_000_001),
        ("orders_per_buyer", 0),
        ("skus", 0),
        ("skus", 10_001),
        ("stock", -1),
        ("stock", 10**9 + 1),
        ("limit_per_buyer", -1),
        ("seconds", 0.0),
        ("seconds", math.nan),
        ("popularity", -0.1),
        ("popularity", math.inf),
        ("duplicates", -0.01),
        ("duplicates", 1.01),
        ("duplicates", math.nan),
    ],
)
def test_a_value_out_of_range_is_refused_naming_flag_and_range(name: str, value: float) -> None:
    settings = WorkloadSettings(**{name: value})  # type: ignore[arg-type]
    least, most = LIMITS[name]
    with pytest.raises(ConfigError) as caught:
        settings.check()
    message = str(caught.value)
    assert message.startswith(f"--{name.replace('_', '-')} must be from {least:,} to {most:,}")
    assert message.endswith(f"got {value}")


def test_too_many_orders_in_all_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at most 10,000,000, got 20,000,000"):
        WorkloadSettings(buyers=10_000_000, orders_per_buyer=2).check()


@pytest.mark.parametrize(
    ("text", "quantities"),
    [
        ("1", Quantities(1, 1)),
        ("1-3", Quantities(1, 3)),
        ("1000000", Quantities(1_000_000, 1_000_000)),
        ("1:0.7,2:0.2,5:0.1", Quantities(1, 5, ((1, 0.7), (2, 0.2), (5, 0.1)))),
        ("5:1, 2:3", Quantities(2, 5, ((2, 3.0), (5, 1.0)))),
        ("1:0,2:1", Quantities(1, 2, ((1, 0.0), (2, 1.0)))),
    ],
)
def test_a_quantity_is_a_number_a_range_or_weights(text: str, quantities: Quantities) -> None:
    assert parse_quantity(text) == quantities


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "0-3",
        "3-1",
        "1.5",
        "1000001",
        "9" * 400,
        "one",
        "1:0.5,",
        "1:",
        "1:.",
        "1:-1",
        "1:nan",
        "0:1",
        "1:0",
        "1:0.5,1:0.5",
        "1:1,1000001:1",
        "\u0663",
    ],
)
def test_any_other_quantity_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--quantity must be a number"):
        parse_quantity(text)


def test_every_setting_changes_the_fingerprint() -> None:
    changed = [
        WorkloadSettings(),
        WorkloadSettings(seed=2),
        WorkloadSettings(buyers=9),
        WorkloadSettings(orders_per_buyer=2),
        WorkloadSettings(skus=2),
        WorkloadSettings(stock=1),
        WorkloadSettings(quantity="2"),
        WorkloadSettings(arrival="ramp"),
        WorkloadSettings(seconds=1.0),
        WorkloadSettings(popularity=0.5),
        WorkloadSettings(duplicates=0.5),
        WorkloadSettings(limit_per_buyer=1),
        WorkloadSettings(hold_seconds=1),
        WorkloadSettings(pay_rate=0.5),
        WorkloadSettings(late_payments=0.5),
        WorkloadSettings(cart_size="2"),
    ]
    assert len(changed) == len(WorkloadSettings.__struct_fields__) + 1
    assert len({each.fingerprint() for each in changed}) == len(changed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (WorkloadSettings(pay_rate=0.5), "--pay-rate needs --hold-seconds"),
        (WorkloadSettings(late_payments=0.1), "--late-payments needs --hold-seconds"),
        (WorkloadSettings(skus=2, cart_size="1-2"), "--cart-size needs --hold-seconds"),
        (WorkloadSettings(hold_seconds=1, late_payments=0.1), "at most 1 together"),
        (WorkloadSettings(hold_seconds=1, pay_rate=1.5), "--pay-rate must be from 0 to 1"),
        (WorkloadSettings(hold_seconds=1, pay_rate=float("nan")), "--pay-rate must be from"),
        (WorkloadSettings(hold_seconds=-1), "--hold-seconds must be from 0"),
        (WorkloadSettings(hold_seconds=1, skus=2, cart_size="3"), "at most --skus"),
        (WorkloadSettings(hold_seconds=1, skus=99, cart_size="51"), "--cart-size must be a number"),
        (WorkloadSettings(hold_seconds=1, cart_size="none"), "--cart-size must be a number"),
        (WorkloadSettings(hold_seconds=1, buyers=1_000_001), "at most 1,000,000 with --hold"),
    ],
)
def test_a_life_of_orders_that_cannot_be_is_refused(
    settings: WorkloadSettings, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.check()


def test_shares_that_add_up_to_one_are_taken_in_spite_of_rounding() -> None:
    WorkloadSettings(hold_seconds=1, pay_rate=0.7, late_payments=0.3).check()
    WorkloadSettings(hold_seconds=1, pay_rate=0.9, late_payments=0.1).check()


def test_published_settings_of_a_cluster_tell_neither_where_it_is_nor_its_secrets() -> None:
    servers = ["nats://user:secret@10.0.0.1:4222", "nats://user:secret@10.0.0.2:4222"]
    given = {"cluster.servers": servers, "cluster.monitor_urls": ["http://10.0.0.1:8222"]}
    found = describe_settings(load_settings(None, given, {}))
    assert found["cluster"]["servers"] == 2
    assert found["cluster"]["dead_after_ms"] == 3_000
    assert "secret" not in repr(found)
    assert "10.0.0" not in repr(found)
    # One process alone is described as it was before there were clusters, and can be compared.
    assert "cluster" not in describe_settings(load_settings(None, {}, {}))


def test_a_simulation_in_a_running_cluster_is_refused() -> None:
    brokers = load_settings(None, {"cluster.servers": ("nats://127.0.0.1:4222",)}, {})
    with pytest.raises(ConfigError, match="seckill loadtest --host"):
        refuse_cluster(brokers)
    refuse_cluster(Settings())
