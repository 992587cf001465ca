"""Which stores have the next batch decided while one is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_settings
from engine.cqrs.command_side import ahead
from engine.cqrs.command_side.rounds import Decider
from engine.cqrs.messages import Rejected
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.runtime import audit_store, initialise_store, open_engine


@pytest.fixture(params=["MariaDB", "SQLite"])
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if request.param == "SQLite":
        return f"sqlite:{tmp_path / 'sale.db'}"
    found: str = request.getfixturevalue("mariadb_url")
    return found


async def test_a_database_server_has_it_on_and_a_file_has_not(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    decide_ahead = Decider.decide_ahead

    async def note(self: Decider, *rounds: Any) -> None:
        taken.append(1)
        await decide_ahead(self, *rounds)

    monkeypatch.setattr(ahead, "COMMANDS_MIN", 2)
    monkeypatch.setattr(Decider, "decide_ahead", note)
    settings = load_settings(None, {"store.url": url, "batch.size_max": 2}, {})
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await engine.open_sale("A", stock=15)
        orders = [Reserve(f"{n}", "A", f"buyer-{n}", 1) for n in range(20)]
        outcomes = await engine.reserve_many(orders)
    assert Counter(map(type, outcomes)) == {Reserved: 15, Rejected: 5}
    assert bool(taken) == url.startswith("mysql:")
    assert (await audit_store(settings.store.places)).ok
