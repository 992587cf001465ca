"""Settings come from defaults, file, environment and flags; whatever is wrong is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from engine.cluster_settings import ClusterSettings
from engine.config import BatchSettings, Settings, check_settings, known_keys, load_settings
from engine.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"

VALUES = {
    "store.url": ("'memory:'", "memory:"),
    "store.urls": (
        '["mysql://u@a/s", "mysql://u@b/s"]',
        ("mysql://u@a/s", "mysql://u@b/s"),
    ),
    "store.partitions": ("3", 3),
    "store.durability": ("'relaxed'", "relaxed"),
    "batch.size_max": ("50", 50),
    "batch.delay_ms_max": ("2.5", 2.5),
    "batch.mode": ("'adaptive'", "adaptive"),
    "batch.latency_aim_ms": ("7.5", 7.5),
    "batch.aggregates_max": ("7", 7),
    "queue.depth_max": ("10_000", 10_000),
    "queue.deadline_ms": ("900", 900),
    "residents.aggregates_max": ("11", 11),
    "residents.idle_seconds": ("12.5", 12.5),
    "residents.snapshot_events_min": ("0", 0),
    "query_side.orders": ("'inline'", "inline"),
    "query_side.sales": ("'off'", "off"),
    "query_side.managers": ("false", False),
    "query_side.refusals_every_seconds": ("0.5", 0.5),
    "gate.url": ("'memory:'", "memory:"),
    "gate.client": ("'asyncio-redis'", "asyncio-redis"),
    "gate.prefix": ("'sale'", "sale"),
    "gate.timeout_ms_max": ("20.5", 20.5),
    "gate.staleness_ms_max": ("1_500", 1_500),
    "gate.rebuild_seconds": ("30.5", 30.5),
    "gate.orders_per_second_max": ("2.5", 2.5),
    "gate.orders_burst_max": ("3", 3),
    "service.host": ("'::1'", "::1"),
    "service.port": ("0", 0),
    "service.admin_host": ("'localhost'", "localhost"),
    "service.admin_port": ("9_000", 9_000),
    "service.public_dashboard": ("false", False),
    "service.connections_max": ("8", 8),
    "service.request_seconds_max": ("2.5", 2.5),
    "service.keep_alive_seconds": ("5", 5),
    "service.body_bytes_max": ("1_024", 1_024),
    "service.lists_bytes_max": ("2_048", 2_048),
    "service.drain_delay_seconds": ("1.5", 1.5),
    "service.drain_seconds_max": ("3", 3),
    "service.log_format": ("'json'", "json"),
    "service.log_level": ("'debug'", "debug"),
    "auth.mode": ("'token'", "token"),
    "auth.allow_open": ("true", True),
    "auth.token_key": (f"'{'k' * 32}'", "k" * 32),
    "auth.token_key_previous": (f"'{'p' * 32}'", "p" * 32),
    "auth.shop_secret": (f"'{'s' * 16}'", "s" * 16),
    "auth.admin_secret": (f"'{'a' * 16}'", "a" * 16),
    "cluster.servers": ("['nats://a:1', 'nats://b:2']", ("nats://a:1", "nats://b:2")),
    "cluster.role": ("'engine'", "engine"),
    "cluster.node": ("'n-1'", "n-1"),
    "cluster.prefix": ("'shop'", "shop"),
    "cluster.credentials": ("'/run/creds'", "/run/creds"),
    "cluster.replicas": ("3", 3),
    "cluster.stream_bytes_max": ("2_000_000", 2_000_000),
    "cluster.durability": ("'relaxed'", "relaxed"),
    "cluster.monitor_urls": ("['http://a:8222']", ("http://a:8222",)),
    "cluster.message_commands_max": ("200", 200),
    "cluster.message_delay_ms_max": ("1.5", 1.5),
    "cluster.heartbeat_ms": ("100", 100),
    "cluster.dead_after_ms": ("5_000", 5_000),
    "cluster.events": ("false", False),
    "cluster.events_seconds_max": ("60", 60),
    "cluster.events_bytes_max": ("0", 0),
}
"""Every setting, a value in TOML other than its default, and what is read."""


def write(folder: Path, *lines: str) -> Path:
    path = folder / "settings.toml"
    path.write_text("\n".join(lines))
    return path


def value_of(settings: Settings, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def small(key: str) -> dict[str, object]:
    """What must fit: no batch is larger than the queue, and secrets need each other."""
    needed: dict[str, dict[str, object]] = {
        "queue.depth_max": {"batch.size_max": 50},
        "auth.mode": {"auth.shop_secret": "s" * 16},
        "auth.token_key_previous": {"auth.token_key": "k" * 32},
        "cluster.role": {"cluster.servers": ("nats://a:1",)},
    }
    return needed.get(key, {})


def test_every_setting_is_tested_here() -> None:
    assert set(VALUES) == set(known_keys())


@pytest.mark.parametrize("key", VALUES)
def test_each_setting_comes_from_the_file_the_environment_or_a_flag(
    tmp_path: Path, key: str
) -> None:
    text, value = VALUES[key]
    section, name = key.split(".")
    path = write(tmp_path, f"[{section}]", f"{name} = {text}")
    variable = f"SECKILL_{section.upper()}__{name.upper()}"
    others = small(key)
    assert value_of(load_settings(), key) != value
    assert value_of(load_settings(path, others, {}), key) == value
    plain = ",".join(map(str, value)) if isinstance(value, tuple) else text.strip("'")
    environ = {variable: plain if "/" in plain else plain.replace("_", ""), "UNRELATED": "x"}
    assert value_of(load_settings(None, others, environ), key) == value
    assert value_of(load_settings(None, {**others, key: value}, {}), key) == value


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[batch]", "size_max = 1", "aggregates_max = 2")
    environ = {"SECKILL_BATCH__SIZE_MAX": "10"}
    assert load_settings(path, {}, environ).batch.size_max == 10
    settings = load_settings(path, {"batch.size_max": 100}, environ)
    assert (settings.batch.size_max, settings.batch.aggregates_max) == (100, 2)


def test_nothing_given_is_the_defaults() -> None:
    assert load_settings(None, None, {}) == Settings()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["[batch]", "size_maxx = 1"],
            "unknown setting batch.size_maxx; did you mean batch.size_max?",
        ),
        (["[bach]", "size_max = 1"], "did you mean batch.size_max?"),
        (["qqqq = 1"], "unknown setting qqqq; known: store.url"),
        (["[batch]", "size_max = 0"], "batch.size_max: Expected `int` >= 1; got 0"),
        (["[bogus]"], "unknown section [bogus]; known: store, batch, queue, residents"),
        (["batch = 5"], "batch must be a section, write [batch]"),
        (["[store]", "url = 5"], "store.url: Expected `str`, got `int`"),
        (["[batch]", "size_max = 50.5"], "batch.size_max: Expected `int`, got `float`"),
        (["[batch]", "size_max = true"], "batch.size_max: Expected `int`, got `bool`"),
        (["[batch]", "delay_ms_max = nan"], "batch.delay_ms_max: Expected `float` >= 0"),
        (["[store]", "partitions = 1025"], "store.partitions: Expected `int` <= 1024"),
        (["[batch]", "size_max = 70_000"], "must not be above queue.depth_max"),
        (["[batch]", "delay_ms_max = 10_000"], "must be below queue.deadline_ms"),
        (["[batch]", "latency_aim_ms = 0.5"], "batch.latency_aim_ms: Expected `float` >= 1"),
        (["[batch]", "mode = 'clever'"], "allowed: fixed, adaptive; got 'clever'"),
        (
            ["[batch]", "mode = 'adaptive'", "delay_ms_max = 5"],
            "batch.delay_ms_max must be 0 when batch.mode is adaptive",
        ),
        (
            ["[batch]", "mode = 'adaptive'", "latency_aim_ms = 10_000"],
            "batch.latency_aim_ms must be below queue.deadline_ms",
        ),
        (["[batch"], "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, *lines), None, {})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("SECKILL_BATCH__SIZE_MAX", "many", "environment variable SECKILL_BATCH__SIZE_MAX: "),
        (
            "SECKILL_BATCH__SIZE_MAX",
            "5k",
            "setting batch.size_max: Expected `int`, got `str`; got '5k'",
        ),
        (
            "SECKILL_STORE__DURABILITY",
            "strickt",
            "Invalid enum value 'strickt'; allowed: strict, relaxed; got 'strickt'",
        ),
        ("SECKILL_BATCH__SIZEMAX", "1", "did you mean batch.size_max?"),
        ("SECKILL_BATCHES__SIZE", "1", "(from the environment variable SECKILL_BATCHES__SIZE)"),
    ],
)
def test_a_wrong_environment_variable_is_named(variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, None, {variable: text})
    assert message in str(caught.value)


def test_file_and_environment_are_refused_in_the_same_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as of_file:
        load_settings(write(tmp_path, "[store]", "durability = 'strickt'"), None, {})
    with pytest.raises(ConfigError) as of_environment:
        load_settings(None, None, {"SECKILL_STORE__DURABILITY": "strickt"})
    assert str(of_environment.value).endswith(f": {of_file.value}")


def test_a_wrong_secret_in_the_environment_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, None, {"SECKILL_CLUSTER__SERVERS": "[hidden"})
    assert "hidden" not in str(caught.value)


def test_a_missing_file_is_named_with_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_settings("none.toml", None, {})
    assert str(tmp_path / "none.toml") in str(caught.value)


def test_other_variables_with_our_prefix_are_none_of_our_business() -> None:
    environ = {"SECKILL_PORT": "tcp://10.0.0.1:80", "SECKILL_SERVICE_HOST": "10.0.0.1"}
    assert load_settings(None, None, environ) == Settings()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(batch=BatchSettings(size_max=0)), "batch.size_max: Expected `int` >= 1"),
        (Settings(batch=BatchSettings(size_max=70_000)), "must not be above queue.depth_max"),
    ],
)
def test_settings_that_a_program_made_are_checked_too(settings: Settings, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings(settings)
    assert message in str(caught.value)
    assert check_settings(Settings()) == Settings()


def test_the_embedded_config_shows_every_setting_with_its_default() -> None:
    text = (CONFIGS / "embedded.toml").read_text(encoding="utf-8")
    # The one that flags usually name stands there as a comment.
    given = tomllib.loads(text.replace("# url =", "url ="))
    assert given == msgspec.json.decode(msgspec.json.encode(Settings()))


def test_the_commented_example_of_the_mysql_config_is_valid(tmp_path: Path) -> None:
    text = (CONFIGS / "mysql.toml").read_text(encoding="utf-8")
    shown = text[text.index("# [service]") :].replace("\n# ", "\n").removeprefix("# ")
    for name in ("token_key", "shop_secret", "admin_secret"):
        (tmp_path / name).write_text(name * 8)
        shown = shown.replace(f"/run/secrets/seckill_{name}", str(tmp_path / name))
    settings = load_settings(write(tmp_path, shown.replace("\n#\n", "\n\n")), None, {})
    assert settings.service.host == "0.0.0.0"
    assert settings.auth.admin_secret == "admin_secret" * 8


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(None, None, {})
    with pytest.raises(AttributeError):
        settings.batch.size_max = 1  # type: ignore[misc]
    assert msgspec.structs.asdict(settings.batch)["size_max"] == 8_190


def test_the_config_of_a_cluster_is_one_for_production() -> None:
    path = CONFIGS / "cluster.toml"
    found = load_settings(path, environ={})
    cluster = found.cluster
    assert len(cluster.servers) == len(cluster.monitor_urls) == cluster.replicas == 3
    assert cluster.durability == found.store.durability == "strict"
    assert found.store.url.startswith("mysql://")
    # Every role is given beside it, and no default of it is out of date.
    for role in ("engine", "gateway"):
        assert load_settings(path, {"cluster.role": role}, {}).cluster.role == role
    written = tomllib.loads(path.read_text(encoding="utf-8"))["cluster"]
    defaults = msgspec.to_builtins(ClusterSettings())
    own = {"servers", "monitor_urls", "replicas"}
    assert {name: written[name] for name in written.keys() - own} == {
        name: defaults[name] for name in written.keys() - own
    }
