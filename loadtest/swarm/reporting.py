"""The listeners of a Locust process: they begin and end a run, and bring its books together.

One process may be all there is (a local runner), the master, or one of its workers. Workers send what
their books gained every second; the whole is with the master or the local runner.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any, Final

import gevent
import locust.runners
import locust.stats
import msgspec
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
from locust.event import EventHook, Events
from locust.runners import (
    STATE_MISSING,
    STATE_RUNNING,
    STATE_SPAWNING,
    MasterRunner,
    WorkerRunner,
)

from loadtest.swarm.books import ORDER, Books, Page, new_histogram, percentiles_ms
from loadtest.swarm.calls import About, Calls
from loadtest.swarm.crowd import Crowd, CrowdPlan
from loadtest.swarm.flags import add_flags, sale_of, weights_of
from loadtest.swarm.mix import DEFAULT_MIX, parse_mix
from loadtest.swarm.users import Buyer, Impatient, ListBuyer, Reader, Shopper

PLAN: Final = "seckill-plan"
ASK: Final = "seckill-plan-wanted"
"""A worker is connected before it can hear its share, so it asks once it can."""

BAD_INPUT_CODE: Final = 2
REPORT_SECONDS: Final = 1.0
WORKER_SECONDS: Final = 10.0
"""What a worker may take to end, once its users are done."""

FINISH_SECONDS: Final = 5.0
"""What a payment may take that is begun when the run has ended."""

UNDER_WAY: Final = (STATE_SPAWNING, STATE_RUNNING)

CLASSES: Final[dict[str, type[Shopper]]] = {
    "buyer": Buyer,
    "list": ListBuyer,
    "reader": Reader,
    "impatient": Impatient,
}


class BadStart(Exception):
    """The run cannot begin; the message says why and what to do."""


class Reporter:
    """Of one process. `books` are those of the run, whole where the run is led from."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._master_books = Books()
        self._runs = 0
        self._run = ""
        """Of the plan that this process has, or has given."""
        self._shares: dict[str, dict[str, Any]] = {}
        """Of the run that is under way, by worker."""
        self.crowd: Crowd | None = None

    @property
    def books(self) -> Books:
        return self._master_books if self._is_master or self.crowd is None else self.crowd.books

    @property
    def _is_master(self) -> bool:
        return isinstance(self._environment.runner, MasterRunner)

    @property
    def _is_worker(self) -> bool:
        return isinstance(self._environment.runner, WorkerRunner)

    # -- a run begins and ends

    def begin(self, **_: Any) -> None:
        """A run begins; workers wait for the master's plan."""
        if self._is_worker:
            return
        try:
            plan = self._plan()
        except BadStart as error:
            self._refuse(error)
            return
        self._runs += 1
        if not self._is_master:
            self.join(plan, 0, 1)
            return
        runner = self._environment.runner
        assert isinstance(runner, MasterRunner)
        self._master_books = Books()
        ids = [each.id for each in runner.clients.ready + runner.clients.running]
        self._run, self._shares = secrets.token_hex(8), {}
        for place, client in enumerate(ids):
            self._give_share(client, plan, place, len(ids))

    def _refuse(self, error: BadStart) -> None:
        """End what has begun; the web page stays, for another try."""
        runner = self._environment.runner
        assert runner is not None
        if self._environment.web_ui is None:
            sys.stderr.write(f"error: {error}\n")
            self._environment.process_exit_code = BAD_INPUT_CODE
            runner.quit()
            return
        logging.getLogger(__name__).error("%s", error)

        def stop_once_begun() -> None:
            while runner.state not in UNDER_WAY:
                gevent.sleep(0.05)
            runner.stop()

        gevent.spawn(stop_once_begun)

    def join(self, plan: CrowdPlan, place: int, of: int) -> None:
        """Take a share of the run."""
        self.crowd = Shopper.crowd = Crowd(plan, place, of)

    def _give_share(self, client: str, plan: CrowdPlan, place: int, of: int) -> None:
        data = {"plan": msgspec.to_builtins(plan), "place": place, "of": of, "run": self._run}
        self._shares[client] = data
        self._send_share(client)

    def _send_share(self, client: str) -> None:
        runner = self._environment.runner
        assert isinstance(runner, MasterRunner)
        runner.send_message(PLAN, self._shares[client], client)

    def receive_plan(self, msg: Any, **_: Any) -> None:
        """A worker's share comes from the master, once or twice."""
        if msg.data["run"] == self._run:
            return
        self._run = msg.data["run"]
        plan = msgspec.convert(msg.data["plan"], CrowdPlan)
        self.join(plan, msg.data["place"], msg.data["of"])

    def share_wanted(self, msg: Any, **_: Any) -> None:
        """A worker can hear now. One that joins a run under way gets orders of its own, and no part of
        the timetable."""
        runner, client = self._environment.runner, msg.node_id
        assert isinstance(runner, MasterRunner)
        if client in self._shares:
            self._send_share(client)
            return
        if runner.state not in UNDER_WAY:
            return
        plan = self._plan()
        late = msgspec.structs.replace(plan, prefix=f"{plan.prefix}-{client[-8:]}", seconds=0.0)
        self._give_share(client, late, 0, 1)

    def end(self, **_: Any) -> None:
        """Nothing more is begun; what is under way gets its answer."""
        self._shares = {}
        if self.crowd is not None:
            self.crowd.stop()

    def _plan(self) -> CrowdPlan:
        options = self._environment.parsed_options
        assert options is not None
        host = (self._environment.host or "").rstrip("/")
        if not host.startswith(("http://", "https://")):
            raise BadStart(f"--host must be a URL such as http://127.0.0.1:8080, got {host!r}")
        about = _ask_about(host)
        if about is None:
            raise BadStart(
                f"{host} does not answer GET /v1/about; is `seckill serve` running there?"
            )
        needs_token = about.auth == "token"
        admin_url = (options.admin_url or about.admin_url or "").rstrip("/")
        if needs_token and not admin_url:
            raise BadStart("buyers need purchase tokens there: give --admin-url and --admin-secret")
        prefix = options.order_prefix or secrets.token_hex(4)
        if options.rate and not options.run_time:
            raise BadStart("--rate needs --run-time: the timetable is drawn for all of it")
        return CrowdPlan(
            sale=sale_of(options),
            prefix=f"{prefix}-{self._runs}" if self._runs else prefix,
            shape=options.shape or "flash",
            per_second=options.rate,
            seconds=float(options.run_time or 0),
            list_size=options.list_size,
            think_seconds=options.think_seconds,
            admin_url=admin_url,
            admin_secret=options.admin_secret,
            shop_secret=options.shop_secret,
            needs_token=needs_token,
            sku_prefix=options.sku_prefix,
        )

    def finish(self, **_: Any) -> None:
        """The users have ended; buyers who were thinking pay now."""
        if self.crowd is not None:
            self.crowd.finish(self._environment.stop_timeout + FINISH_SECONDS)

    def note_lost_workers(self, count: int) -> None:
        """What a worker counted since its last report went with it."""
        if count:
            self._master_books.note(f"{count} processes of Locust were lost with what they counted")

    def print_outcomes(self, **_: Any) -> None:
        """For whoever started Locust by hand: what its own tables do not tell."""
        options = self._environment.parsed_options
        if options is None or options.progress or self._is_worker or not self.books.answered:
            return
        found = self.books.outcomes
        refused = ", ".join(f"{reason} {count:,}" for reason, count in found.refused.items())
        sys.stderr.write(
            f"\nOrders: {found.sent:,} sent, {found.accepted:,} accepted ({found.units:,} units), refused: "
            f"{refused or 'none'}; {found.duplicate:,} repeats, {found.unknown:,} unknown, "
            f"{found.failed:,} failed, {found.unsent:,} due and never sent\n"
        )
        for sample in self.books.samples:
            sys.stderr.write(f"error: {sample}\n")

    # -- books

    def note_request(self, name: str, response_time: float | None, **_: Any) -> None:
        """`response_time` is in milliseconds, not rounded; Locust names it so."""
        if self.crowd is not None and response_time is not None:
            self.crowd.books.record(name, response_time / 1_000)

    def send_books(self, data: dict[str, Any], **_: Any) -> None:
        if self.crowd is not None:
            data["seckill"] = msgspec.json.encode(self.crowd.books.take()).decode()

    def take_books(self, data: dict[str, Any], **_: Any) -> None:
        if (text := data.get("seckill")) is not None:
            self._master_books.add(msgspec.json.decode(text, type=Page))

    def say_goodbye(self, **_: Any) -> None:
        """Have a worker's last books arrive before its process ends: what ZeroMQ has not sent by then is
        lost, and with it orders that were accepted."""
        runner = self._environment.runner
        assert isinstance(runner, WorkerRunner)
        socket = runner.client.socket
        context = socket.context
        socket.close(linger=int(WORKER_SECONDS * 1_000))
        context.term()

    def print_progress(self) -> None:
        """A line a second, for whoever started this process."""
        last_answered = 0
        while True:
            gevent.sleep(REPORT_SECONDS)
            runner, books = self._environment.runner, self.books
            found = books.outcomes
            latency = percentiles_ms(books.histograms.get(ORDER) or new_histogram())
            p50, _, p99, *_ = latency
            line = {
                "users": runner.user_count if runner is not None else 0,
                "state": runner.state if runner is not None else "",
                "per_second": max(0, books.answered - last_answered),
                "p50_ms": round(p50, 2),
                "p99_ms": round(p99, 2),
                "outcomes": msgspec.to_builtins(found),
            }
            last_answered = books.answered
            try:
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                # Who started this process has died; nobody will read the result.
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def write_books(self, **_: Any) -> None:
        options = self._environment.parsed_options
        if options is None or not options.books or self._is_worker:
            return
        if self._environment.process_exit_code == BAD_INPUT_CODE:
            return  # Nothing began: empty books would look like a result.
        # Written whole or not at all: whoever started this process reads it when it has ended.
        path = Path(options.books)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_bytes(msgspec.json.encode(self.books.page()))
        draft.replace(path)


def listen(events: Events) -> None:
    """Register everything with Locust."""
    locust.runners.WORKER_REPORT_INTERVAL = REPORT_SECONDS
    locust.stats.bucket_response_time = three_digits  # type: ignore[assignment]
    events.init_command_line_parser.add_listener(add_flags)
    events.init.add_listener(_init)


def three_digits(response_time_ms: float) -> float:
    """For Locust's own tables: three digits of a latency, not whole milliseconds.

    The figures of a report come from the histograms.
    """
    return float(f"{response_time_ms:.3g}")


def _init(environment: Environment, **_: Any) -> None:
    options, runner = environment.parsed_options, environment.runner
    assert options is not None
    assert runner is not None
    reporter = Reporter(environment)
    if not options.shape:
        # Without a shape the users come and stay as Locust's own flags and page say.
        environment.shape_class = None
    mix = weights_of(options)
    if not mix and not options.user_classes:
        mix = parse_mix(DEFAULT_MIX)
    if not isinstance(runner, WorkerRunner):
        # A worker has all classes: its master says who comes.
        _apply_mix(environment, mix)
    events = environment.events
    events.test_start.add_listener(reporter.begin)
    events.test_stopping.add_listener(reporter.end)
    events.test_stop.add_listener(reporter.finish)
    events.request.add_listener(reporter.note_request)
    events.report_to_master.add_listener(reporter.send_books)
    events.worker_report.add_listener(reporter.take_books)
    events.quit.add_listener(reporter.write_books)
    events.quit.add_listener(reporter.print_outcomes)
    if isinstance(runner, WorkerRunner):
        runner.register_message(PLAN, reporter.receive_plan)
        runner.send_message(ASK)
        events.quit.add_listener(reporter.say_goodbye)
        return
    if isinstance(runner, MasterRunner):
        runner.register_message(ASK, reporter.share_wanted)
        _wait_for_workers(runner, reporter)
    if options.progress:
        # Locust takes SIGTERM only when a shape has ended; before, it would end without a word.
        gevent.signal_handler(signal.SIGTERM, runner.quit)
        gevent.spawn(reporter.print_progress)


def _wait_for_workers(runner: MasterRunner, reporter: Reporter) -> None:
    """By itself a master that quits waits half a second for the last books of its workers, whose users
    may still wait for replies."""
    quit_at_once = runner.quit
    told: list[bool] = []

    def quit_in_order() -> None:
        runner.stop(send_stop_to_client=False)
        for client in runner.clients.all:
            runner.send_message("quit", None, client.id)
        # A worker that has sent its books and ended is no client any more, one that died is missing.
        with gevent.Timeout(runner.environment.stop_timeout + WORKER_SECONDS, exception=False):
            while any(each.state != STATE_MISSING for each in runner.clients.all):
                gevent.sleep(0.05)
        if not told:
            reporter.note_lost_workers(len(runner.clients.all))
            told.append(True)
        quit_at_once()

    runner.quit = quit_in_order  # type: ignore[method-assign]


def _apply_mix(environment: Environment, mix: Any) -> None:
    if not mix:
        return
    for name, weight in mix.items():
        CLASSES[name].weight = weight
    environment.user_classes = [CLASSES[name] for name in mix]


def _ask_about(host: str) -> About | None:
    # Not by a user, and in nobody's statistics.
    session = FastHttpSession(host, EventHook(), None, connection_timeout=5.0, network_timeout=5.0)
    return Calls(session).about()
