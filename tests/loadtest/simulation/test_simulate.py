"""A simulated sale on a real engine: proven, repeatable, resumable."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from engine.config import load_settings
from engine.errors import ConfigError, StoreLocked
from engine.inventory.history import read_history
from engine.runtime import open_engine, open_reader
from loadtest.settings import WorkloadSettings
from loadtest.simulation.crowd import Tally
from loadtest.simulation.simulate import Outcome, Plan, Watch, simulate
from loadtest.simulation.summary import batches_text
from loadtest.workload import Workload, generate
from tests.loadtest.test_results import RUN
from tests.runs import read_run

SALE = WorkloadSettings(
    seed=7,
    buyers=900,
    orders_per_buyer=2,
    skus=3,
    stock=300,
    quantity="1-3",
    duplicates=0.1,
    limit_per_buyer=3,
)


def plan_for(
    folder: Path, sale: WorkloadSettings = SALE, store: str = "sqlite", concurrency: int = 200
) -> Plan:
    url = "memory:" if store == "memory" else f"sqlite:{folder / 'sale.db'}"
    # Only orders leave events, so that they can be counted.
    counted = {"store.url": url, "query_side.refusals_every_seconds": 0}
    settings = load_settings(None, counted, environ={})
    return Plan(generate(sale), settings, folder, concurrency, folder / "history.jsonl")


def accepted(plan: Plan) -> set[str]:
    assert plan.history is not None
    orders = read_history(plan.history).orders
    return {command_id for command_id, order in orders.items() if order.answer == "ok"}


def stop_after(answers: int) -> Watch:
    """A watch that presses Ctrl-C once so many orders are answered."""

    @asynccontextmanager
    async def watch(tally: Tally, workload: Workload) -> AsyncIterator[None]:
        def press() -> None:
            if tally.answered < answers:
                asyncio.get_running_loop().call_soon(press)
            else:
                signal.raise_signal(signal.SIGINT)

        press()
        yield

    return watch


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_sale_is_proven_and_written_down(tmp_path: Path, store: str) -> None:
    outcome = simulate(plan_for(tmp_path / "run", store=store))
    assert outcome.exit_code == 0
    assert all(check.ok for check in outcome.checks)
    run = read_run(tmp_path / "run")
    assert run == outcome.run
    orders = run.orders
    assert orders.offered == 1_980
    assert orders.offered == (
        orders.accepted
        + orders.rejected_sold_out
        + orders.rejected_limit
        + orders.rejected_other
        + orders.duplicate
        + orders.unknown
        + orders.failed
    )
    assert (orders.duplicate, orders.unknown, orders.failed) == (180, 0, 0)
    assert min(orders.accepted, orders.rejected_sold_out, orders.rejected_limit) > 0
    assert 0 < sum(outcome.sold.values()) <= 900
    assert run.audit.checked_events == orders.accepted + 3
    assert sum(run.batches.closed_by.values()) == run.batches.count
    assert run.machine.store == store
    assert run.throughput.durable_per_s < run.throughput.decided_per_s
    assert run.latency_ms.max >= run.latency_ms.p50 > 0
    assert run.orders.accepted_before == 0
    assert 0 < run.batches.transactions <= run.batches.count


def test_the_result_names_no_place(tmp_path: Path) -> None:
    outcome = simulate(plan_for(tmp_path))
    assert str(tmp_path) not in msgspec.json.encode(outcome.run).decode()
    store = {"url": "sqlite:", "partitions": 1, "durability": "strict"}
    assert outcome.run.config["store"] == store


def test_one_after_the_other_the_same_seed_has_the_same_winners(tmp_path: Path) -> None:
    plans = [
        plan_for(tmp_path / name, store=store, concurrency=1)
        for name, store in (("a", "memory"), ("b", "memory"), ("c", "sqlite"))
    ]
    orders = [simulate(plan).run.orders for plan in plans]
    assert orders[0] == orders[1] == orders[2]
    assert accepted(plans[0]) == accepted(plans[1]) == accepted(plans[2]) != set()


def test_another_seed_has_other_winners(tmp_path: Path) -> None:
    plans = [
        plan_for(tmp_path / str(seed), msgspec.structs.replace(SALE, seed=seed), "memory", 1)
        for seed in (1, 2)
    ]
    for plan in plans:
        simulate(plan)
    assert accepted(plans[0]) != accepted(plans[1])


def interrupted_run(plan: Plan, answers: int = 300) -> Outcome:
    return simulate(plan, stop_after(answers))


def test_ctrl_c_ends_with_an_audited_part_of_the_sale(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, concurrency=20)
    before = signal.getsignal(signal.SIGINT)
    outcome = interrupted_run(plan)
    assert outcome.interrupted
    assert outcome.exit_code == 130
    assert outcome.run.audit.ok
    assert 300 <= outcome.run.orders.offered < 1_980
    assert not (tmp_path / "run.json").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_run_is_resumed_by_running_it_again(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, concurrency=20)
    first = interrupted_run(plan)
    winners = accepted(plan)
    second = simulate(plan)
    assert second.exit_code == 0
    assert second.resumed == sum(first.sold.values()) > 0
    assert second.run.orders.offered == 1_980
    assert first.run.stopped_early
    assert not second.run.stopped_early
    assert second.run.orders.accepted_before == first.run.orders.accepted
    assert winners < accepted(plan)
    assert second.run.audit.checked_events == second.run.orders.accepted + 3


def test_a_finished_sale_run_again_elsewhere_sells_nothing_more(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    first = simulate(plan)
    again = simulate(msgspec.structs.replace(plan, directory=tmp_path / "again"))
    assert again.exit_code == 0
    assert again.run.orders.accepted == first.run.orders.accepted
    assert again.run.throughput.durable_per_s == 0
    assert again.sold == first.sold


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"stock": 301}, {"buyers": 901}, {"limit_per_buyer": 0}]
)
def test_a_store_of_another_sale_is_refused_and_left_alone(
    tmp_path: Path, change: dict[str, int]
) -> None:
    simulate(plan_for(tmp_path))
    other = plan_for(tmp_path, msgspec.structs.replace(SALE, **change))
    other = msgspec.structs.replace(other, directory=tmp_path / "other", history=None)
    versions = asyncio.run(stream_versions(tmp_path))
    with pytest.raises(
        ConfigError, match=r"already holds SKU-1.* \(300 units, limit per buyer 3, held for 0 s\)"
    ):
        simulate(other)
    assert asyncio.run(stream_versions(tmp_path)) == versions
    assert not (tmp_path / "other").exists()


async def stream_versions(folder: Path) -> dict[str, int]:
    reader = await open_reader(f"sqlite:{folder / 'sale.db'}")
    try:
        return {each.aggregate_id: each.version for each in await reader.read_streams()}
    finally:
        await reader.close()


def test_a_store_in_use_is_refused_and_no_folder_is_left(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(plan_for(tmp_path), directory=tmp_path / "run", history=None)

    async def while_open() -> None:
        async with open_engine(plan.settings):
            with pytest.raises(StoreLocked):
                await asyncio.to_thread(simulate, plan)

    asyncio.run(while_open())
    assert not (tmp_path / "run").exists()


def test_a_full_queue_makes_buyers_retry_and_loses_nobody(tmp_path: Path) -> None:
    sale = WorkloadSettings(buyers=300, stock=100)
    overrides = {"store.url": "memory:", "queue.depth_max": 50, "batch.size_max": 10}
    plan = Plan(generate(sale), load_settings(None, overrides, environ={}), tmp_path, 300)
    outcome = simulate(plan)
    assert outcome.exit_code == 0
    assert outcome.run.orders.refused_overload > 0
    assert outcome.run.orders.accepted == 100
    assert outcome.run.orders.rejected_sold_out == 200


def test_batches_are_told_in_commands_because_payments_are_among_them() -> None:
    assert str(batches_text(RUN.batches)).startswith("Batches: 2 of 5.0 commands on average (")
