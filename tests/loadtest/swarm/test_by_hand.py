"""Locust started by hand: with its web page, and as a master with workers."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from tests.loadtest.swarm.locusts import Locust, ended, headless, locust
from tests.loadtest.swarm.scripted_shop import Answer, Asked, scripted_shop
from tests.loadtest.swarm.scripted_shop import sold as of_script
from tests.polling import pause
from tests.service.serving import Served, served

FORM = {"user_count": "5", "spawn_rate": "5"}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "server").mkdir()
    with served(tmp_path / "server") as server:
        server.open("SKU-1", 10_000_000)
        yield server


class WebPage:
    """What Locust's page asks for."""

    def __init__(self, process: Locust, port: int, client: httpx.Client) -> None:
        self.url, self._client = f"http://127.0.0.1:{port}", client
        self._process = process

    def ask(self, method: str, path: str, **form: str) -> httpx.Response:
        return self._client.request(method, f"{self.url}{path}", data=form or None)

    def wait_for(self, what: Callable[[], bool]) -> None:
        while True:
            assert self._process.process.poll() is None, self._process.errors
            try:
                if what():
                    return
            except httpx.TransportError:
                pass  # It does not listen yet.
            pause()

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "/stats/requests").json()
        return found

    def reserved(self) -> int:
        """Requests named `reserve` in this run so far, none of them a failure."""
        for each in self.stats()["stats"]:
            if each["name"] == "reserve":
                assert each["num_failures"] == 0
                return int(each["num_requests"])
        return 0

    def has_stopped(self) -> bool:
        return bool(self.stats()["state"] == "stopped")


def sold(shop: Served) -> Any:
    return shop.stock("SKU-1")["reserved"]


def test_runs_are_started_and_stopped_on_the_web_page(
    tmp_path: Path, shop: Served, held_port: int
) -> None:
    flags = (f"--host={shop.public}", f"--web-port={held_port}", "--web-host=127.0.0.1")
    with locust(tmp_path, *flags, "Buyer") as process, httpx.Client(timeout=30) as client:
        page = WebPage(process, held_port, client)
        page.wait_for(lambda: page.ask("GET", "/").status_code == 200)
        # A shop that is not there is no reason to end the page.
        page.ask("POST", "/swarm", host="http://127.0.0.1:1", **FORM)
        page.wait_for(page.has_stopped)
        assert "does not answer GET /v1/about" in process.errors
        for number in (1, 2):
            wanted = int(sold(shop)) + 50
            assert page.ask("POST", "/swarm", host=shop.public, **FORM).json()["success"]
            while sold(shop) < wanted:
                assert process.process.poll() is None, process.errors
                pause()
            # Its figures are two seconds old at the most.
            page.wait_for(lambda: page.reserved() > 0)
            assert page.ask("POST", "/stop").json()["success"]
            page.wait_for(page.has_stopped)
            assert process.errors.count("All users spawned") == 1 + number
        process.process.send_signal(signal.SIGTERM)
        process.wait()
        assert "Traceback" not in process.errors


def _master(tmp_path: Path, url: str, port: int, *more: str, seconds: float = 3) -> Any:
    bind = ("--master", "--master-bind-host=127.0.0.1", f"--master-bind-port={port}")
    flags = headless(url, "buyer:3,impatient:1,list:1", "--list-size=20", users=10, seconds=seconds)
    return locust(tmp_path, *flags, *bind, "--stop-timeout=20", *more, name="master")


def _worker(tmp_path: Path, port: int, name: str) -> Any:
    return locust(tmp_path, "--worker", f"--master-port={port}", name=name)


def _wait_for(process: Locust, text: str) -> None:
    while text not in process.errors:
        assert process.process.poll() is None, process.errors
        pause()


def test_the_books_of_a_master_and_its_workers_are_one(
    tmp_path: Path, shop: Served, held_port: int
) -> None:
    with ExitStack() as stack:
        master = stack.enter_context(
            _master(tmp_path, shop.public, held_port, "--expect-workers=2", "--rate=200")
        )
        for name in ("first", "second"):
            stack.enter_context(_worker(tmp_path, held_port, name))
        page = master.page()
        assert "Traceback" not in master.errors
    found = page.outcomes
    assert found.units == sold(shop) > 0
    assert found.sent == ended(found)
    assert found.unknown == found.failed == 0


def test_what_workers_users_still_wait_for_is_waited_for(tmp_path: Path, held_port: int) -> None:
    """Longer than a report of the books takes, and than Locust's own master waits."""
    never = threading.Event()

    def script(asked: Asked) -> Answer:
        if not asked.path.endswith("/confirm"):
            return of_script(asked, held=True)
        never.wait(5)
        return Answer(200, {"id": "SKU-1:x"})

    with scripted_shop(script) as shop, ExitStack() as stack:
        flags = ("--expect-workers=2", "--mix=buyer:1", "--pay-rate=1")
        master = stack.enter_context(_master(tmp_path, shop.url, held_port, *flags, seconds=1))
        for name in ("first", "second"):
            stack.enter_context(_worker(tmp_path, held_port, name))
        found = master.page().outcomes
        paid = len(shop.to("/confirm"))
    assert found.accepted == found.paid == paid >= 10
    assert found.pay_unknown_units == found.unknown == 0


def test_a_worker_that_joins_late_sends_orders_of_its_own(
    tmp_path: Path, shop: Served, held_port: int
) -> None:
    with ExitStack() as stack:
        flags = ("--expect-workers=1", "--progress", "--enable-rebalancing")
        master = stack.enter_context(_master(tmp_path, shop.public, held_port, *flags, seconds=600))
        first = stack.enter_context(_worker(tmp_path, held_port, "first"))
        _wait_for(master, "All users spawned")
        late = stack.enter_context(_worker(tmp_path, held_port, "late"))
        while not _ids_of_late_workers(shop):
            assert master.process.poll() is None, master.errors
            pause()
        master.process.send_signal(signal.SIGTERM)
        page = master.page()
        for each in (master, first, late):
            assert "Traceback" not in each.errors
    found = page.outcomes
    assert found.units == sold(shop) > len(_ids_of_late_workers(shop)) > 0
    assert found.unknown == found.failed == 0


def _ids_of_late_workers(shop: Served) -> list[str]:
    """Orders whose ids name a worker; those who are there from the begin send `t-BLOCK-NUMBER`."""
    table = httpx.get(
        f"{shop.admin}/v1/admin/skus/SKU-1/export.csv",
        headers={"Authorization": f"Bearer {DEFAULT_ADMIN_SECRET}"},
        timeout=30,
    )
    return re.findall(r"t-1-[0-9a-f]{8}-", table.raise_for_status().text)


def test_a_master_whose_worker_is_killed_ends_and_writes(
    tmp_path: Path, shop: Served, held_port: int
) -> None:
    with ExitStack() as stack:
        flags = ("--expect-workers=2", "--progress")
        master = stack.enter_context(_master(tmp_path, shop.public, held_port, *flags, seconds=5))
        workers = [stack.enter_context(_worker(tmp_path, held_port, name)) for name in ("a", "b")]
        _wait_for(master, "All users spawned")
        os.kill(workers[0].process.pid, signal.SIGKILL)
        assert master.process.stdout is not None
        lines = master.process.stdout.readlines()
        page = master.page()
        assert "Traceback" not in master.errors
    # It does not wait for the dead as long as for those who end: a line a second.
    assert len(lines) < 20
    found = page.outcomes
    # What the dead worker had not told is missing, and no more than it had sold.
    assert 0 < found.units <= sold(shop)


def test_started_by_hand_locust_tells_what_became_of_the_orders(tmp_path: Path) -> None:
    flags = ("--headless", "--users=20", "--spawn-rate=20", "--run-time=2s", "--stop-timeout=5")
    with scripted_shop(of_script) as shop:
        with locust(tmp_path, f"--host={shop.url}", *flags) as process:
            found = process.page().outcomes
        lists = shop.to(":batch")
    assert f"Orders: {found.sent:,} sent, {found.accepted:,} accepted" in process.errors
    # Who comes when nobody is named is the same crowd as that of `seckill loadtest`.
    assert lists == []
    assert found.duplicate > 0
