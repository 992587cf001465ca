"""The benchmark of a cluster writes what it measured, and refuses a store that says otherwise."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.cluster.broker import Broker
from engine.cluster.pull_consumer import PullConsumer
from engine.errors import BrokerUnavailable
from engine.event_loop import run_async
from engine.testing.nats_server import NatsServer
from loadtest.bench_cluster.brokers import CONSUME, PUBLISH
from loadtest.bench_cluster.caller import Task
from loadtest.bench_cluster.command import app
from loadtest.bench_cluster.programs import MARIADB, SQLITE, Layout, Servers, Setup, servers_in
from loadtest.bench_cluster.steps import Sizes
from loadtest.wrong import WrongAnswer
from tests.servers import need, need_nats

TINY = Sizes(
    repeats=3,
    callers=4,
    skus=3,
    seconds=0.05,
    list_size=40,
    list_orders=120,
    lists_under_way=2,
    paced_seconds=0.1,
    paced_singles_per_s=100,
    paced_lists_per_s=1_000,
    broker_commands=(2, 5),
    broker_messages=6,
    broker_in_flight=4,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    need("mariadbd", "mysqld")
    need_nats()
    monkeypatch.setattr("loadtest.bench_cluster.command.Sizes", lambda: TINY)
    # It would change the collector of the whole test process.
    monkeypatch.setattr("loadtest.bench.program.tune_garbage_collector", lambda: None)
    few = (Layout(SQLITE), Layout(SQLITE, 1))
    monkeypatch.setattr("loadtest.bench_cluster.steps.HOP_LAYOUTS", few)
    split = (Layout(MARIADB), Layout(MARIADB, 1, True), Layout(MARIADB, 1, True, True))
    monkeypatch.setattr("loadtest.bench_cluster.steps.SPLIT_LAYOUTS", split)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a short name: there are sockets in it."""
    return tmp_path_factory.mktemp("c")


def bench(out: Path, *only: str) -> Result:
    options = [word for name in only for word in ("--only", name)]
    return CliRunner().invoke(app, ["--out", str(out), *options])


def test_every_benchmark_of_a_cluster_runs_and_is_written(place: Path) -> None:
    done = bench(place / "out")
    assert done.exit_code == 0, done.output
    written = json.loads((place / "out" / "run.json").read_text())
    assert (written["kind"], written["audit"]["ok"]) == ("bench-cluster", True)
    assert written["machine"]["store"] == "mariadb"
    assert written["broker"].startswith("nats-server")
    assert len(written["load_average"]) == 5, "at the beginning and after each of four"
    rows = written["rows"]
    assert {name: len(some) for name, some in rows.items()} == {"hop": 6, "lists": 6, "cpu": 6}
    every = [row for some in rows.values() for row in some]
    assert all(len(row["repeats"]) == len(row["cpu_repeats"]) == 3 for row in every)
    assert all(row["per_second"]["median"] > 0 for row in every)
    assert all((row["ratio"] is None) == (row["layout"]["replicas"] == 0) for row in every)
    assert {tuple(row["cpu"]) for row in rows["lists"]} == {
        ("database", "one process"),
        ("database", "brokers", "engine", "gateway"),
    }
    # Lists and paced orders are a fixed number of orders in each layout.
    assert {load["orders"] for row in rows["lists"] for load in row["repeats"]} == {120}
    assert {load["orders"] for row in rows["cpu"] for load in row["repeats"]} == {10, 100}
    stored = sum(load["orders"] for row in every for load in row["repeats"])
    assert written["audit"]["checked_events"] > stored
    brokers = [(each["what"], each["replicas"], each["commands"]) for each in written["brokers"]]
    assert sorted(brokers) == sorted(
        (what, replicas, commands)
        for what in (PUBLISH, CONSUME)
        for replicas in (1, 3)
        for commands in (2, 5)
    )
    readme = (place / "out" / "README.md").read_text()
    assert readme.count("| gateway, engine, 1 broker, MariaDB |") == 6
    assert readme.count("| gateway, engine, 1 broker, MariaDB, events published |") == 6
    assert "NOT reached here" in readme
    assert (place / "out" / "cluster.svg").read_bytes().startswith(b"<?xml")
    assert [path.name for path in place.iterdir()] == ["out"], "the stores were left behind"


def test_a_store_that_holds_other_orders_than_were_answered_fails_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Setup.check

    async def one_more(setup: Setup) -> int:
        setup.sold += 1
        return await real(setup)

    monkeypatch.setattr(Setup, "check", one_more)
    done = bench(place / "out", "hop")
    assert done.exit_code == 1
    assert "wrong answer, nothing is written" in done.output
    assert list(place.iterdir()) == []


def test_events_are_published_only_in_layouts_that_say_so(place: Path) -> None:
    async def streams_of(servers: Servers, layout: Layout) -> set[str]:
        await servers.start(layout)
        broker = await servers.brokers(1)
        assert isinstance(broker, NatsServer)
        found = await asyncio.to_thread(broker.ask, "/jsz?streams=true")
        assert found is not None
        (account,) = found["account_details"]
        return {each["name"] for each in account["stream_detail"]}

    async def start_both() -> tuple[set[str], set[str]]:
        async with servers_in(place) as servers:
            alone = await streams_of(servers, Layout(SQLITE, 1))
            return alone, await streams_of(servers, Layout(SQLITE, 1, has_events=True)) - alone

    without, more = run_async(start_both())
    assert without == {"bench1-commands"}
    assert {"bench2-commands", "bench2-events"} <= more


def test_a_refused_order_ends_the_program_and_is_told(place: Path) -> None:
    async def order_too_much() -> None:
        async with servers_in(place) as servers:
            setup = await servers.start(Layout(SQLITE))
            # More than may wait in a partition.
            await setup.run(Task(kind="lists", name="x", size=70_000, orders=70_000))

    with pytest.raises(WrongAnswer, match="a list may hold at most 65,536"):
        run_async(order_too_much())


def test_a_message_that_is_not_read_as_published_is_a_wrong_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PullConsumer.next

    async def another(consumer: PullConsumer, seconds: float) -> tuple[int, bytes] | None:
        found = await real(consumer, seconds)
        return found and (found[0], found[1] + b"x")

    monkeypatch.setattr(PullConsumer, "next", another)
    done = bench(place / "out", "brokers")
    assert done.exit_code == 1
    assert "was not read as it was published" in done.output
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("call", ["ensure_commands", "life", "publish", "consume", "remove_up_to"])
def test_a_broker_that_does_not_answer_in_time_is_asked_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Every call is carried out, and its first answer does not arrive."""
    real = getattr(Broker, call)
    seen: set[tuple[object, ...]] = set()

    async def late(broker: Broker, *asked: object) -> object:
        found = await real(broker, *asked)
        if asked not in seen:
            seen.add(asked)
            raise BrokerUnavailable("no answer in time")
        return found

    monkeypatch.setattr(Broker, call, late)
    done = bench(place / "out", "brokers")
    assert done.exit_code == 0, done.output
    assert seen


def test_missing_programs_and_unknown_names_are_refused_before_anything_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = bench(place / "out", "speed")
    assert done.exit_code == 2
    assert "'speed' is not one of" in done.output
    monkeypatch.setattr("loadtest.bench_cluster.steps.find_nats_server", lambda: None)
    done = bench(place / "out", "hop")
    assert done.exit_code == 2
    assert "nats-server is not installed" in done.output
    assert list(place.iterdir()) == []
