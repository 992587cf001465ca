"""Each driver sells to an empty store, leaves the warm-up out, and has what it sold audited."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from engine.config import load_settings
from engine.errors import ConfigError
from loadtest import http_processes
from loadtest.bench_http.load import Load, Sample
from loadtest.scratch import scratch_store
from loadtest.settings import WorkloadSettings
from loadtest.shop_client import BatchCounters, StoreAbout, batches_between
from loadtest.simulation.simulate import Outcome, Plan, run_sale
from loadtest.tuning import http_driver
from loadtest.tuning.drivers import make_driver
from loadtest.tuning.experiment import CellRun, Experiment
from loadtest.tuning.http_driver import Measured, summarise_load, wrong_answers
from loadtest.wrong import NotProven
from tests.loadtest.tuning.tunings import cell, experiment

ENDLESS = WorkloadSettings(buyers=500_000, stock=500_000)


def settings(url: str, **more: object) -> dict[str, object]:
    return {"settings": load_settings(None, {"store.url": url, **more}, {})}


def run(trial: Experiment) -> CellRun:
    driver = make_driver(trial)
    tried = msgspec.structs.replace(trial.settings, batch=trial.cells[0].batch)
    with scratch_store(tried, trial.directory) as scratch:
        found, machine = driver(trial.cells[0], 1, scratch)
    assert machine.store == trial.settings.store.url.partition(":")[0].replace("mysql", "mariadb")
    assert (found.repeat, found.cell) == (1, trial.cells[0])
    return found


def test_buyers_in_the_process_leave_the_warm_up_out(tmp_path: Path) -> None:
    trial = experiment(
        tmp_path,
        [cell(50, 100)],
        sale=ENDLESS,
        seconds=0.1,
        warmup_seconds=0.1,
        **settings("sqlite:unused"),
    )
    found = run(trial)
    # Everything was audited, and only what was sold later is in the rates.
    assert 0 < found.durable_per_s * found.seconds < found.orders < found.checked_events
    assert found.size_mean <= 50
    assert list(tmp_path.iterdir()) == []


def test_a_run_ends_when_its_time_is_up(tmp_path: Path) -> None:
    trial = experiment(tmp_path, [cell(1, 1)], seconds=0.02, **settings("sqlite:unused"))
    assert 0 < run(trial).orders < 2_000


def test_a_sale_that_is_over_before_the_warm_up_is_no_measurement(tmp_path: Path) -> None:
    trial = experiment(tmp_path, [cell(100)], warmup_seconds=60)
    with pytest.raises(ConfigError, match="answered within the warm-up of 60 s"):
        run(trial)


def test_a_run_that_is_not_proven_ends_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forged(plan: Plan) -> Outcome:
        outcome = run_sale(plan)
        found = msgspec.structs.replace(outcome.run.audit, ok=False, findings=("1 oversold",))
        run = msgspec.structs.replace(outcome.run, audit=found)
        return msgspec.structs.replace(outcome, run=run)

    monkeypatch.setattr("loadtest.tuning.drivers.run_sale", forged)
    with pytest.raises(NotProven, match="batch size 10: 1 oversold"):
        run(experiment(tmp_path, [cell(10)]))


@pytest.mark.parametrize("list_size", [1, 20])
def test_orders_over_http_are_sold_by_a_server_process(tmp_path: Path, list_size: int) -> None:
    trial = experiment(
        tmp_path,
        [cell(7, 8)],
        driver="http",
        list_size=list_size,
        seconds=0.2,
        warmup_seconds=0.1,
        **settings("sqlite:unused"),
    )
    found = run(trial)
    assert 0 < found.durable_per_s * found.seconds < found.orders < found.checked_events
    assert 1 <= found.size_mean <= 7, "the server has the setting"
    assert found.transactions_per_s > 0
    assert list(tmp_path.iterdir()) == []


def test_orders_over_http_are_sold_from_a_scratch_database(
    tmp_path: Path, mariadb_url: str
) -> None:
    relaxed = settings(mariadb_url, **{"store.durability": "relaxed"})
    found = run(experiment(tmp_path, [cell(7, 8)], driver="http", seconds=0.2, **relaxed))
    assert 0 < found.orders < found.checked_events


def test_a_store_that_holds_other_orders_than_were_answered_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = http_processes.check_store

    async def one_more(url: str, sold_min: int, sold_max: int) -> int:
        return await real(url, sold_min + 1, sold_max + 1)

    monkeypatch.setattr(http_driver, "check_store", one_more)
    trial = experiment(
        tmp_path, [cell(7, 4)], driver="http", seconds=0.1, **settings("sqlite:unused")
    )
    with pytest.raises(NotProven, match="orders were answered 201, stored"):
        run(trial)


def test_an_order_that_was_refused_for_good_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_processes, "STOCK", 2)
    trial = experiment(
        tmp_path, [cell(7, 4)], driver="http", seconds=0.2, **settings("sqlite:unused")
    )
    with pytest.raises(NotProven, match=r"orders were answered by status: \{409: "):
        run(trial)


def test_answers_before_the_end_of_the_warm_up_are_not_counted() -> None:
    load = Load()
    load.began, load.ended = 10.0, 13.0
    load.samples = [Sample(10.0, 0.9, 5, 0), Sample(10.8, 0.4, 5, 0), Sample(12.0, 0.1, 5, 3)]
    load.orders = Counter({201: 15, "503 overloaded": 3})
    none = BatchCounters({}, {}, 0, 0)
    measured = Measured(load, batches_between(none, none), StoreAbout("sqlite", "3", "full"), 16)
    found = summarise_load(cell(7), 1, measured, 1.0)
    assert (found.seconds, found.durable_per_s, found.orders, found.refused) == (2.0, 5.0, 15, 3)
    assert found.p99_ms == pytest.approx(400, rel=0.01)


def test_only_a_sale_a_doubt_and_a_request_to_come_later_are_right_answers() -> None:
    found = Counter[int | str]({201: 5, 202: 1, 503: 1, "503 overloaded": 1, "429 too_many": 1})
    assert wrong_answers(found) == {}
    wrong: dict[int | str, int] = {409: 1, "no reply": 2, "500": 1}
    assert wrong_answers(found + Counter(wrong)) == wrong


IMPOSSIBLE = {
    "unknown": ({"driver": "wrk"}, "--driver must be one of inproc, http, locust, got 'wrk'"),
    "lists in the process": ({"list_size": 2}, "--list-size needs --driver http or locust"),
    "connections of Locust": (
        {"driver": "locust", **settings("sqlite:x", **{"service.connections_max": 100})},
        "--concurrency 2,000 is more connections than service.connections_max lets in",
    ),
    "memory": ({"driver": "http"}, "needs a store that can be audited"),
    "several SKUs": (
        {"driver": "http", "sale": WorkloadSettings(skus=2), **settings("sqlite:x")},
        "sells one SKU",
    ),
    "the queue": (
        {"driver": "http", "list_size": 100, **settings("sqlite:x")},
        r"2,000 requests of 100 orders at a time do not fit into queue.depth_max \(65,536\)",
    ),
    "connections": (
        {"driver": "http", **settings("sqlite:x", **{"service.connections_max": 1_000})},
        "more connections than service.connections_max lets in",
    ),
}


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE.values(), ids=list(IMPOSSIBLE))
def test_what_a_driver_cannot_do_is_refused_before_it_begins(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_driver(experiment(tmp_path, [cell(10)], **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_a_killed_run_left_behind_is_not_sold_from(tmp_path: Path) -> None:
    trial = experiment(tmp_path, [cell(100)], **settings("sqlite:unused"))
    driver = make_driver(trial)
    with scratch_store(trial.settings, tmp_path) as scratch:
        driver(trial.cells[0], 1, scratch)
        left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name, data in left.items():
        (tmp_path / name).write_bytes(data)
    assert run(trial).durable_per_s > 0, "what was sold before is not sold now"
