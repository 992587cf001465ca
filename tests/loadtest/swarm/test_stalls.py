"""A server that stalls is seen where orders are due by a timetable, and hidden in a closed loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.swarm.books import ORDER, decode_histogram, percentiles_ms
from tests.loadtest.swarm.locusts import headless, locust
from tests.service.serving import served

USERS, SECONDS, STALL_SECONDS = 5, 6, 2
PER_SECOND = 400
"""In the stall 800 orders become due, a third of all: far more than 1 in 100, and than users."""


@pytest.mark.parametrize("rate", [0, PER_SECOND], ids=["closed loop", "open loop"])
def test_a_stall_is_in_the_latency_of_the_open_loop_only(tmp_path: Path, rate: int) -> None:
    with served(tmp_path) as server:
        server.open("SKU-1", 10_000_000)
        flags = headless(
            *(server.public, "buyer:1", f"--rate={rate}", "--stop-timeout=20", "--progress"),
            users=USERS,
            seconds=SECONDS,
        )
        with locust(tmp_path, *flags) as process:
            assert process.process.stdout is not None
            # A line a second.
            for _ in range(2):
                process.process.stdout.readline()
            server.pause()
            for _ in range(STALL_SECONDS):
                process.process.stdout.readline()
            server.go_on()
            page = process.page()
        sold = server.stock("SKU-1")["reserved"]
    assert page.outcomes.accepted == sold
    # In a closed loop each user has one order in the stall: fewer than 1 in 100 of all.
    assert page.outcomes.accepted > 100 * 2 * USERS or rate
    _, _, p99_ms, _, worst_ms = percentiles_ms(decode_histogram(page.histograms[ORDER]))
    assert worst_ms > 1_000
    assert (p99_ms > 1_000) is bool(rate)
