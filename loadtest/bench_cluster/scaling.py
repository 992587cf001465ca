"""What the measured parts say of more nodes: arithmetic, whose assumptions docs/scaling.md names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from loadtest.bench_cluster.brokers import PUBLISH, BrokerRow
from loadtest.bench_cluster.runs import Row

NODES: Final = (1, 10, 100)
USED_SHARE: Final = 0.7
"""Of the cores: partitions are not equally busy, and a node that dies leaves its work to the others."""

STREAM_SHARE: Final = 0.5
"""Of what one stream took when nothing else was asked of its brokers."""

HTTP_SECONDS_PER_MILLION: Final = 60.0
"""Of a gateway's core for single orders over HTTP: 14,000 to 20,000 orders/s of one process."""

REPLY_BYTES: Final = 68
"""An accepted order on its way back."""

REPLICAS: Final = 3
COLUMNS: Final = ("", *(f"{each} node" + "s" * (each > 1) for each in NODES))


def scaling(
    lists: Row, hot: Row, singles: Row, brokers: Sequence[BrokerRow], cores: int
) -> list[tuple[str, list[str]]]:
    """What nodes of so many `cores` do together, a line for each question.

    The rows are of REPLICAS brokers with a gateway and an engine of their own: `lists` of many SKUs
    and of one, which is `hot`, and `singles` of many.
    """
    stream, command_bytes = _stream(brokers)
    over_http = {**_medians(singles), "HTTP": HTTP_SECONDS_PER_MILLION}
    found: list[tuple[str, list[str]]] = []
    for what, cpu in (("in lists", _medians(lists)), ("one by one over HTTP", over_http)):
        rates = [_rate(cpu, each * cores) for each in NODES]
        streams = [math.ceil(each / (stream * STREAM_SHARE)) for each in rates]
        found += [
            (f"orders/s {what}", [f"{each:,.0f}" for each in rates]),
            *(
                (f"- cores for {part}", [f"{_cores(cpu[part], rate):,.1f}" for rate in rates])
                for part in cpu
            ),
            ("- streams of commands", [f"{each:,}" for each in streams]),
            (
                "- out of the busiest broker, MB/s",
                [
                    f"{_leader_bytes(command_bytes) * rate / each / 1e6:,.0f}"
                    for rate, each in zip(rates, streams, strict=True)
                ],
            ),
        ]
    one_core = USED_SHARE / hot.cpu["engine"].median * 1e6
    found.append(("orders/s of one SKU, in lists, at most", [f"{one_core:,.0f}"] * len(NODES)))
    return found


def _medians(row: Row) -> dict[str, float]:
    return {part: each.median for part, each in row.cpu.items()}


def _rate(cpu: Mapping[str, float], cores: int) -> float:
    """Orders/s when every core that is used is used by the part that needs it."""
    return cores * USED_SHARE / sum(cpu.values()) * 1e6


def _cores(seconds_per_million: float, rate: float) -> float:
    return seconds_per_million * rate / 1e6 / USED_SHARE


def _stream(brokers: Sequence[BrokerRow]) -> tuple[float, float]:
    """Commands/s of one stream with the largest messages, and the bytes of a command."""
    rows = [each for each in brokers if each.what == PUBLISH and each.replicas == REPLICAS]
    best = max(rows, key=lambda row: row.commands)
    return best.commands_per_s.median, best.message_bytes / best.commands


def _leader_bytes(command_bytes: float) -> float:
    """To two followers and the owner, and a reply to the gateway."""
    return REPLICAS * command_bytes + REPLY_BYTES
