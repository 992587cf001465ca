"""The program of docs/events.md reads what is published, and skips what it had."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from engine.cluster.events_stream import EventsStream
from engine.testing.nats_server import NatsServer
from tests.architecture.source_tree import ROOT
from tests.cluster.outlet import Outlet, headers

PROGRAM_SECONDS_MAX = 60


@pytest_asyncio.fixture
async def shop(own_nats: NatsServer) -> AsyncIterator[Outlet]:
    shop = Outlet(own_nats.url, EventsStream("seckill"))
    await shop.open()
    yield shop
    await shop.close()


def program(url: str) -> str:
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert "nats://127.0.0.1:4222" in found[1]
    return found[1].replace("nats://127.0.0.1:4222", url)


def run(folder: Path, url: str) -> list[str]:
    path = folder / "reader.py"
    path.write_text(program(url), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        encoding="utf-8",
        timeout=PROGRAM_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def test_the_reader_of_the_documentation_reads_each_commit_once(
    shop: Outlet, tmp_path: Path
) -> None:
    await shop.sell(2, sku="PHONE")
    await shop.sell(1, events=2, partition=1, sku="BAG")
    await shop.started()
    await shop.started(partition=1)
    await shop.until_published(2)
    await shop.until_published(1, partition=1)
    # What a publisher that was paused for days may add.
    first = (await shop.messages())[0]
    again = {name: value for name, value in headers(first).items() if "Nats-" not in name}
    await shop.client.jetstream().publish(shop.stream.subject(0), first.data or b"", headers=again)
    printed = await asyncio.to_thread(run, tmp_path, shop.url)
    assert [line for line in printed if line.startswith("0")] == [
        "0 1 PHONE sold.1",
        "0 2 PHONE sold.1",
    ]
    assert [line for line in printed if line.startswith("1")] == ["1 1 BAG sold.1"] * 2
