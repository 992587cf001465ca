"""Settings: defaults, a TOML file, the environment, then flags; the later one wins.

This is the only reader of the environment: `SECKILL_BATCH__SIZE_MAX=500` sets `batch.size_max`.
Settings are frozen; wrong values, unknown keys and values that do not fit together are refused
here, with the key named, before anything is opened.
"""

from __future__ import annotations

import difflib
import os
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engine.auth_settings import AuthSettings, check_secrets
from engine.cluster_settings import ClusterSettings, check_cluster
from engine.errors import ConfigError
from engine.store_settings import URL, URLS, StoreSettings, check_urls, merge

ENVIRONMENT_PREFIX = "SECKILL_"
SEPARATOR = "__"

Count = Annotated[int, Meta(ge=1)]


class BatchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a batch closes.

    `size_max`: commands of one aggregate in one batch. 8,190 events of about 75 bytes are 0.6 MB,
    which a local disk takes in about 2 ms; larger batches gain nothing measurable and hold every
    buyer of the batch up longer. `delay_ms_max`: how long the first command of a batch may wait
    for others; 0 never waits: a batch is what arrived while the one before was being written.
    `mode`: `fixed` keeps to these two; `adaptive` moves them by itself, so that an order is answered
    within `latency_aim_ms` with as few transactions as that allows. `size_max` is then the most it may
    choose, and `delay_ms_max` stays 0: half of the aim is the longest delay.
    `aggregates_max`: aggregates that share one transaction, so that a hot one cannot starve the
    others and a transaction stays bounded.
    """

    size_max: Annotated[int, Meta(ge=1, le=100_000)] = 8_190
    delay_ms_max: Annotated[float, Meta(ge=0, le=10_000)] = 0
    mode: Literal["fixed", "adaptive"] = "fixed"
    latency_aim_ms: Annotated[float, Meta(ge=1, le=10_000)] = 20
    aggregates_max: Annotated[int, Meta(ge=1, le=10_000)] = 256


class QueueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may wait, and for how long.

    `depth_max`: commands waiting in one partition; beyond it they are refused at once (Overloaded).
    65,536 is well under a second of work, so nobody queues for an answer that comes too late.
    `deadline_ms`: how long a caller waits when it names no time of its own.
    """

    depth_max: Count = 65_536
    deadline_ms: Annotated[int, Meta(ge=1, le=600_000)] = 10_000


class ResidentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which aggregates stay in memory.

    `aggregates_max`: more than that, and the idle ones that were used longest ago are evicted.
    `idle_seconds`: evicted after so long without a command. `snapshot_events_min`: a snapshot is
    due after that many events since the last one, later while its state is large, and after a tenth
    of them when the engine closes; 0 writes none. Half a million events are replayed in one to two
    seconds.
    """

    aggregates_max: Count = 10_000
    idle_seconds: Annotated[float, Meta(gt=0)] = 3_600
    snapshot_events_min: Annotated[int, Meta(ge=0)] = 500_000


Mode: TypeAlias = Literal["async", "inline", "off"]


class QuerySideSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the read models are fed, and whether holds and orders are looked after.

    `orders` (a row per reservation) and `sales` (figures per SKU and second): `async` follows the
    events a moment later, `inline` writes the rows in the command's own transaction, which costs
    throughput, `off` keeps none. `managers`: holds whose time is up are given back, and orders over
    several SKUs go on; both need it, and it needs `orders`. `refusals_every_seconds`: how often
    the refusals of each SKU are written down for `sales`, as one event; 0 does not.
    """

    orders: Mode = "async"
    sales: Mode = "async"
    managers: bool = True
    refusals_every_seconds: Annotated[float, Meta(ge=0, le=3_600)] = 1


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hint in front of the engine that refuses orders for sold-out SKUs and too fast buyers.

    `url`: empty is no gate, `memory:` one for this process alone, or
    `redis://user:password@host:port/database` (`rediss://` with TLS). `client`: the driver, `redis`
    or, where it is installed, `asyncio-redis`. `prefix`: of every key in Redis. `timeout_ms_max`:
    how long an order may wait for the gate before it passes. `staleness_ms_max`: how long a SKU may
    be called sold out although it is not any more, whatever fails. `rebuild_seconds`: how often all
    flags are read from the store anew. `orders_per_second_max` of one buyer, 0 is no limit, after
    `orders_burst_max` at once; with less than one a second a burst of 1 is the strictest.
    """

    url: str = ""
    client: Literal["redis", "asyncio-redis"] = "redis"
    prefix: Annotated[str, Meta(min_length=1, max_length=64)] = "seckill"
    timeout_ms_max: Annotated[float, Meta(ge=1, le=10_000)] = 50
    staleness_ms_max: Annotated[int, Meta(ge=100, le=60_000)] = 2_000
    rebuild_seconds: Annotated[float, Meta(ge=1, le=3_600)] = 60
    orders_per_second_max: Annotated[float, Meta(ge=0, le=1_000_000)] = 0
    orders_burst_max: Annotated[int, Meta(ge=1, le=1_000)] = 10


class ServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How `seckill serve` meets the network.

    Buyers come to `host`:`port`, the operator to `admin_host`:`admin_port`; port 0 takes a free one.
    `public_dashboard`: whether the page with the figures is also on the buyers' listener.
    `connections_max`: of each listener. A connection has one order under way, so 4,096 are worked off
    in well under a second. `request_seconds_max`: how long a request may take to arrive, and a reply
    to be read, before its connection is closed. `keep_alive_seconds`: how long one may stay idle,
    longer than the 60 seconds of common load balancers. `body_bytes_max`: 10,000 orders of
    400 bytes. `lists_bytes_max`: of all lists being handled at once; beyond it they are refused, and
    earlier those that could not be answered in their callers' time.
    At a stop, `drain_delay_seconds` pass between "not ready" and the last accepted connection, and
    `drain_seconds_max` between that and the end of all requests.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    admin_host: str = "127.0.0.1"
    admin_port: Annotated[int, Meta(ge=0, le=65_535)] = 8081
    public_dashboard: bool = True
    connections_max: Annotated[int, Meta(ge=8, le=1_000_000)] = 4_096
    request_seconds_max: Annotated[float, Meta(gt=0, le=3_600)] = 10
    keep_alive_seconds: Annotated[float, Meta(gt=0, le=3_600)] = 75
    body_bytes_max: Annotated[int, Meta(ge=1_024)] = 4_000_000
    lists_bytes_max: Annotated[int, Meta(ge=1_024)] = 16_000_000
    drain_delay_seconds: Annotated[float, Meta(ge=0, le=600)] = 0
    drain_seconds_max: Annotated[float, Meta(gt=0, le=600)] = 20
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting of the engine."""

    store: StoreSettings = StoreSettings()
    batch: BatchSettings = BatchSettings()
    queue: QueueSettings = QueueSettings()
    residents: ResidentSettings = ResidentSettings()
    query_side: QuerySideSettings = QuerySideSettings()
    gate: GateSettings = GateSettings()
    service: ServiceSettings = ServiceSettings()
    auth: AuthSettings = AuthSettings()
    cluster: ClusterSettings = ClusterSettings()


COMMAND_SIDE_ONLY: Final = QuerySideSettings("off", "off", managers=False, refusals_every_seconds=0)
"""For measuring the command side alone, and for other aggregates than the sale's."""

SECRET_KEYS: Final = (URL, URLS, "gate.url", "cluster.servers")
"""Never shown: a URL may hold a password."""

COMMAND_SIDE_KEYS: Final = {
    f"query_side.{name}": value for name, value in msgspec.to_builtins(COMMAND_SIDE_ONLY).items()
}
"""The same as overrides of `load_settings`."""


def known_keys() -> dict[str, type]:
    """Every dotted key and its section's type, such as `batch.size_max`."""
    keys: dict[str, type] = {}
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            keys[f"{section.name}.{field.name}"] = section.type
    return keys


def load_settings(
    path: str | Path | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Merge defaults, the TOML file at `path`, the environment and `overrides` (dotted keys).

    Raises ConfigError naming the key, the value and what is allowed.
    """
    merged: dict[str, object] = {}
    if path is not None:
        merged = merge(merged, _flatten(_read_toml(Path(path)), str(path)))
    merged = merge(merged, _from_environment(os.environ if environ is None else environ))
    merged = merge(merged, dict(overrides or {}))
    for key in merged:
        _check_key(key)
    tree: dict[str, dict[str, object]] = {}
    for key, value in merged.items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        key = _name_key(str(error)).split("[")[0]
        raise ConfigError(_what_is_wrong(key, error, merged)) from None
    auth = check_secrets(settings.auth)
    return _check_relations(msgspec.structs.replace(settings, auth=auth))


def check_settings(settings: Settings) -> Settings:
    """Return settings that a program made itself, checked like those of a file.

    Raises ConfigError naming the key and what is allowed.
    """
    return load_settings(None, flatten(settings), {})


def flatten(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key, secrets included."""
    return {
        f"{section}.{name}": value
        for section, each in msgspec.to_builtins(settings).items()
        for name, value in each.items()
    }


def _check_relations(settings: Settings) -> Settings:
    check_urls(settings.store.urls, URLS)
    if settings.batch.size_max > settings.queue.depth_max:
        raise ConfigError(
            "batch.size_max must not be above queue.depth_max: a batch could never fill "
            f"({settings.batch.size_max:,} > {settings.queue.depth_max:,})"
        )
    if settings.batch.delay_ms_max >= settings.queue.deadline_ms:
        raise ConfigError(
            "batch.delay_ms_max must be below queue.deadline_ms: a lonely command would always "
            f"miss its deadline ({settings.batch.delay_ms_max:g} >= {settings.queue.deadline_ms:,})"
        )
    _check_adaptive(settings)
    query = settings.query_side
    if query.managers and query.orders == "off":
        raise ConfigError(
            'query_side.managers needs query_side.orders: set it to "async" or "inline", or '
            "managers to false, and then nobody gives back what is not paid in time"
        )
    if settings.store.url == "memory:" and "inline" in (query.orders, query.sales):
        raise ConfigError('query_side: a store in memory keeps no inline read models; use "async"')
    _check_gate(settings.gate)
    check_cluster(settings.cluster, settings.queue.deadline_ms)
    if settings.store.url == "memory:" and settings.cluster.role != "all":
        raise ConfigError(
            "a memory: store ends with its process; a cluster needs one that is shared"
        )
    return settings


def _check_adaptive(settings: Settings) -> None:
    batch = settings.batch
    if batch.mode != "adaptive":
        return
    if batch.delay_ms_max:
        raise ConfigError(
            "batch.delay_ms_max must be 0 when batch.mode is adaptive: the delay follows from "
            f"batch.latency_aim_ms (got {batch.delay_ms_max:g})"
        )
    if batch.latency_aim_ms >= settings.queue.deadline_ms:
        raise ConfigError(
            "batch.latency_aim_ms must be below queue.deadline_ms: an order that is answered within "
            "the aim would miss its deadline "
            f"({batch.latency_aim_ms:g} >= {settings.queue.deadline_ms:,})"
        )


def _check_gate(gate: GateSettings) -> None:
    if gate.timeout_ms_max * 3 > gate.staleness_ms_max:
        raise ConfigError(
            "gate.timeout_ms_max must not be above a third of gate.staleness_ms_max: flags are set "
            "again so often, and each time may take so long "
            f"({gate.timeout_ms_max:g} > {gate.staleness_ms_max:,} / 3)"
        )
    if gate.rebuild_seconds * 1_000 < gate.staleness_ms_max:
        raise ConfigError(
            "gate.rebuild_seconds must not be below gate.staleness_ms_max: flags end by themselves "
            f"before ({gate.rebuild_seconds:g} s < {gate.staleness_ms_max:,} ms)"
        )
    longest_seconds = 3_600
    if gate.orders_per_second_max and (
        gate.orders_burst_max / gate.orders_per_second_max > longest_seconds
    ):
        raise ConfigError(
            "gate.orders_burst_max orders at gate.orders_per_second_max must not take more than an "
            f"hour: a buyer would be told to wait so long ({gate.orders_burst_max:,} at "
            f"{gate.orders_per_second_max:g} a second)"
        )


def _what_is_wrong(key: str, error: Exception, values: Mapping[str, object]) -> str:
    """In the same words wherever it was said; what may be a secret is not repeated."""
    shown = key in values and key not in SECRET_KEYS and not key.startswith("auth.")
    got = f"; got {values[key]!r}" if shown else ""
    return f"setting {key}: {str(error).split(' - at ')[0]}{_allowed(key)}{got}"


def _allowed(key: str) -> str:
    """The values a setting may have, where they can be listed."""
    section = known_keys().get(key)
    if section is None:
        return ""
    kind = typing.get_type_hints(section)[key.split(".")[1]]
    values = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return f"; allowed: {', '.join(map(str, values))}" if values else ""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        # A relative path says little when the reader is not where they think they are.
        raise ConfigError(f"cannot read config {path.absolute()}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not valid TOML: {error}") from None


def _flatten(tree: Mapping[str, Any], path: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for section, values in tree.items():
        known = section in Settings.__struct_fields__
        if not isinstance(values, dict):
            if not known:
                _check_key(section)
            raise ConfigError(f"config {path}: {section} must be a section, write [{section}]")
        if not known and not values:
            sections = ", ".join(Settings.__struct_fields__)
            raise ConfigError(f"config {path}: unknown section [{section}]; known: {sections}")
        for name, value in values.items():
            flat[f"{section}.{name}"] = value
    return flat


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for variable, text in environ.items():
        # Others may begin so too: Kubernetes sets SECKILL_PORT for a service called seckill.
        if not variable.startswith(ENVIRONMENT_PREFIX) or SEPARATOR not in variable:
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace(SEPARATOR, ".")
        section = _check_key(key, f" (from the environment variable {variable})")
        name = key.split(".")[1]
        field = next(f for f in msgspec.structs.fields(section) if f.name == name)
        try:
            value = _split(text) if typing.get_origin(field.type) is tuple else text
            found[key] = msgspec.convert(value, field.type, strict=False)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            what = _what_is_wrong(key, error, {key: text})
            raise ConfigError(f"environment variable {variable}: {what}") from None
    return found


def _split(text: str) -> object:
    """A list in the environment: JSON, or words with commas between them."""
    if text.lstrip().startswith("["):
        return msgspec.json.decode(text)
    return [each for word in text.split(",") if (each := word.strip())]


def _check_key(key: str, origin: str = "") -> type:
    keys = known_keys()
    if key in keys:
        return keys[key]
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else f"; known: {', '.join(keys)}"
    raise ConfigError(f"unknown setting {key}{origin}{hint}")


def _name_key(message: str) -> str:
    return message.split("`$.")[-1].rstrip("`") if "`$." in message else "value"
