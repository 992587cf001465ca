"""The stages of one batch. `make bench` times them; the normal run executes each once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.cqrs.codec import Codec, checksum
from engine.cqrs.command_side.decide import Decision, Refusals, decide
from engine.cqrs.command_side.mailbox import Mailbox, Request
from engine.cqrs.command_side.repository import Resident
from engine.cqrs.event_store import Lease, NewCommit, StoredCommit
from engine.inventory.commands import OpenSale, Reserve
from engine.inventory.events import Reserved
from engine.inventory.stock import STOCK
from engine.testing.bare_store import open_bare_store, ready_commits

ORDERS = [Reserve(f"7-{n:x}", "HOT", f"buyer-{n}", 1) for n in range(8_190)]
EVENTS = [Reserved(each.id, each.buyer, each.quantity) for each in ORDERS]
STREAM = ("stock", "HOT")


@pytest.mark.parametrize("stock", [1_000_000, 0], ids=["accepted", "sold out"])
def test_decide_a_batch(benchmark: BenchmarkFixture, stock: int) -> None:
    def prepare() -> tuple[tuple[Resident, list[Reserve], Refusals, int], dict[str, object]]:
        resident, refusals = Resident(STOCK, STREAM), Refusals(65_536)
        decide(resident, [OpenSale("open", "HOT", stock, 2)], refusals, 0)
        return (resident, ORDERS, refusals, 0), {}

    decision: Decision = benchmark.pedantic(decide, setup=prepare, rounds=30)  # type: ignore[no-untyped-call]
    assert len(decision.events) == (len(ORDERS) if stock else 0)


def test_encode_a_batch(benchmark: BenchmarkFixture) -> None:
    data: bytes = benchmark(Codec(STOCK.events).encode, EVENTS)
    assert data.count(b"reserved.1") == len(EVENTS)


def test_decode_a_batch(benchmark: BenchmarkFixture) -> None:
    codec = Codec(STOCK.events)
    data = codec.encode(EVENTS)
    stored = StoredCommit(0, 1, *STREAM, 1, len(EVENTS), data, checksum(data), 0)
    assert list(benchmark(codec.decode, stored)) == EVENTS


def test_queue_and_take_a_batch(benchmark: BenchmarkFixture) -> None:
    loop = asyncio.new_event_loop()
    requests = [Request((each,), loop.create_future(), 0.0, 9.0) for each in ORDERS]

    def run() -> int:
        mailbox = Mailbox(STOCK, STREAM)
        for request in requests:
            mailbox.put(request)
        return len(mailbox.take(8_190))

    assert benchmark(run) == len(ORDERS)
    loop.close()


@pytest.mark.parametrize("size", [1, 8_190])
def test_commit_a_batch(benchmark: BenchmarkFixture, tmp_path: Path, size: int) -> None:
    rounds = 20
    commits = ready_commits(rounds, size)
    with asyncio.Runner() as runner:
        store = runner.run(open_bare_store(tmp_path / "store.db"))
        lease = runner.run(store.acquire(0))
        runner.run(store.append(lease, commits[:1]))
        numbers = iter(range(1, rounds + 1))

        def prepare() -> tuple[tuple[Lease, NewCommit], dict[str, object]]:
            position = next(numbers)
            return (Lease(0, lease.epoch, position), commits[position]), {}

        def run(lease: Lease, commit: NewCommit) -> None:
            runner.run(store.append(lease, [commit]))

        benchmark.pedantic(run, setup=prepare, rounds=rounds)  # type: ignore[no-untyped-call]
        (stream,) = runner.run(store.read_streams())
        assert stream.version == 1 + size * (stream.commits - 1)
        runner.run(store.close())
