"""GET /metrics: the engine's counters as Prometheus reads them.

The engine counts per batch; here the counts are only turned into metrics when somebody asks, so an
order costs nothing for being measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from engine.cqrs.query_side.query_side import Lag
from engine.engine import Engine
from engine.errors import SeckillError
from engine.service.tally import Tally

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST.encode()

K = TypeVar("K")

SIZE_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
DEPTH_BOUNDS: Final = (0, 1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536)
SECONDS_BOUNDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)


class ServiceCollector(Collector):
    """Reads an engine and the service around it. `lags` are set before a scrape, empty while they
    cannot be read."""

    def __init__(self, engine: Engine, tally: Tally) -> None:
        self._engine = engine
        self._tally = tally
        self.lags: Sequence[Lag] = ()

    def collect(self) -> Iterable[Metric]:
        yield from self._orders()
        yield from self._batches()
        yield from self._state()
        yield from self._partitions()
        yield from self._http()

    def _orders(self) -> Iterable[Metric]:
        now = self._engine.statistics()
        outcomes = {
            "accepted": now.accepted,
            "repeated": now.repeated,
            "failed": now.failed,
            "overloaded": now.overloaded,
            "expired": now.expired,
            "unknown": now.unknown,
            "unserved": now.unserved,
        }
        yield _counter("seckill_commands", "Commands by outcome", "outcome", outcomes)
        yield _counter("seckill_refusals", "Commands refused, by reason", "reason", now.rejected)
        yield _histogram(
            "seckill_command_seconds",
            "From the arrival of the oldest command of a batch to its answer, for each command",
            {us / 1_000_000: count for us, count in now.latencies_us.items()},
            SECONDS_BOUNDS,
        )

    def _batches(self) -> Iterable[Metric]:
        now = self._engine.statistics()
        yield _counter(
            "seckill_batches",
            "Batches by why they closed",
            "closed_by",
            now.closed_by,
        )
        yield _histogram("seckill_batch_size", "Commands of a batch", now.batch_sizes, SIZE_BOUNDS)
        yield _histogram(
            "seckill_batch_queue_depth",
            "Commands left in their queue when a batch closed, rounded down to a power of two",
            *(now.queue_depths, DEPTH_BOUNDS),
        )
        size = GaugeMetricFamily(
            "seckill_batch_size_bound",
            "Commands of one aggregate that a batch may hold now",
            labels=("partition",),
        )
        delay = GaugeMetricFamily(
            "seckill_batch_delay_seconds_bound",
            "Seconds the oldest command of a batch may wait for others now",
            labels=("partition",),
        )
        for number, limits in sorted(now.batch_limits.items()):
            size.add_metric((str(number),), limits.size_max)
            delay.add_metric((str(number),), limits.delay_seconds_max)
        yield from (size, delay)
        yield CounterMetricFamily(
            "seckill_transactions", "Transactions made durable", value=now.transactions
        )
        yield CounterMetricFamily(
            "seckill_commit_seconds", "Seconds spent in transactions", value=now.commit_seconds
        )
        yield CounterMetricFamily(
            "seckill_recoveries", "Unknown commit outcomes cleared up", value=now.recoveries
        )
        yield CounterMetricFamily(
            "seckill_conflicts", "Batches decided again on another version", value=now.conflicts
        )

    def _state(self) -> Iterable[Metric]:
        now = self._engine.statistics()
        yield GaugeMetricFamily(
            "seckill_queue_depth", "Commands waiting now", value=now.queue_depth
        )
        yield GaugeMetricFamily("seckill_residents", "Aggregates in memory", value=now.residents)
        yield GaugeMetricFamily(
            "seckill_halted", "Aggregates stopped by a broken invariant", value=now.halted
        )
        info = self._engine.info
        about = GaugeMetricFamily(
            "seckill_store_info", "The store", labels=("kind", "version", "durability")
        )
        about.add_metric((info.kind, info.version, info.durability), 1)
        yield about
        for name, help_, field in (
            ("seckill_lag_commits", "Commits behind the newest", "commits"),
            ("seckill_lag_seconds", "Age of the oldest commit not taken in", "seconds"),
            ("seckill_dead_letters", "Commits that could not be taken in", "dead_letters"),
        ):
            family = GaugeMetricFamily(name, help_, labels=("name", "partition"))
            for lag in self.lags:
                family.add_metric((lag.name, str(lag.partition)), getattr(lag, field))
            yield family

    def _partitions(self) -> Iterable[Metric]:
        """Without a cluster the owner is this process, whose name is empty."""
        served = self._engine.served()
        owned = GaugeMetricFamily(
            "seckill_partitions_served", "Partitions that take commands, by owner", labels=("node",)
        )
        for node, count in sorted(Counter(each.owner for each in served).items()):
            owned.add_metric((node,), count)
        yield owned
        yield GaugeMetricFamily(
            "seckill_partitions_stopped",
            "Partitions whose commands are refused now",
            value=len(self._engine.stopped()),
        )
        epochs = GaugeMetricFamily(
            "seckill_partition_epoch", "How often a partition was taken over", labels=("partition",)
        )
        for each in served:
            epochs.add_metric((str(each.partition),), each.epoch)
        yield epochs
        broker = self._engine.broker()
        if broker is not None:
            yield CounterMetricFamily(
                "seckill_broker_connections", "Connections to a broker", value=broker.connections
            )
            yield GaugeMetricFamily(
                "seckill_broker_silent_seconds",
                "Seconds since anything was heard over the broker, such as this node itself",
                value=broker.silent_seconds,
            )
            yield from self._publishing()

    def _publishing(self) -> Iterable[Metric]:
        """Of the partitions that this node owns: it publishes their events."""
        behind = GaugeMetricFamily(
            "seckill_events_behind_commits",
            "Commits that are not in the stream of events yet",
            labels=("partition",),
        )
        stuck = GaugeMetricFamily(
            "seckill_events_stuck",
            "1 while the events of a partition cannot be published; the log says why",
            labels=("partition",),
        )
        for each in self._engine.publishing():
            stuck.add_metric((str(each.partition),), bool(each.trouble))
            if each.behind is not None:
                behind.add_metric((str(each.partition),), each.behind)
        yield from (behind, stuck)

    def _http(self) -> Iterable[Metric]:
        tally = self._tally
        statuses = {str(status): count for status, count in sorted(tally.replies.items())}
        yield _counter("seckill_http_replies", "Replies by status", "status", statuses)
        yield GaugeMetricFamily(
            "seckill_http_connections", "Connections open now", value=tally.connections()
        )
        yield _counter(
            "seckill_http_connections_closed",
            "Connections closed by a limit",
            *("limit", tally.closed_by_limit()),
        )
        gate = tally.gate
        if gate is None:
            return
        now = gate.statistics()
        checks = {
            "passed": now.passed - now.unasked,
            "sold_out": now.sold_out,
            "too_fast": now.too_fast,
            "failed_open": now.unasked,
        }
        yield _counter("seckill_gate_checks", "Orders by what the gate said", "verdict", checks)
        yield GaugeMetricFamily(
            "seckill_gate_trusted", "1 while the gate's flags are believed", value=now.trusted
        )
        yield CounterMetricFamily(
            "seckill_gate_failures", "Calls of the gate that failed", value=now.failures
        )
        yield CounterMetricFamily(
            "seckill_gate_rebuilds", "Times the gate was filled from the store", value=now.rebuilds
        )


class Metrics:
    """Renders everything as one text."""

    def __init__(self, engine: Engine, tally: Tally) -> None:
        self._engine = engine
        self._collector = ServiceCollector(engine, tally)
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    async def render(self) -> bytes:
        """Everything as text; without lags while the store cannot be read."""
        try:
            self._collector.lags = await self._engine.queries.lag()
        except SeckillError:
            self._collector.lags = ()
        return generate_latest(self._registry)


def _counter(name: str, help_: str, label: str, values: Mapping[K, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_, labels=(label,))
    for value, count in values.items():
        family.add_metric((str(value),), count)
    return family


def _histogram(
    name: str, help_: str, counts: Mapping[int, int] | Mapping[float, int], bounds: Sequence[float]
) -> HistogramMetricFamily:
    buckets = [
        (f"{bound:g}", float(sum(count for value, count in counts.items() if value <= bound)))
        for bound in bounds
    ]
    everything = float(sum(counts.values()))
    total = sum(value * count for value, count in counts.items())
    family = HistogramMetricFamily(name, help_)
    family.add_metric((), [*buckets, ("+Inf", everything)], sum_value=total)
    return family
