"""The audit of a live store: a process of its own, which tells why when it cannot."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import pytest

from engine.config import Settings
from engine.engine import Engine
from engine.errors import StoreUnavailable
from engine.runtime import open_engine
from engine.service.auditing import audit_live
from engine.store_settings import StoreSettings


def at(url: str) -> Settings:
    return Settings(store=StoreSettings(url=url))


async def test_a_store_is_audited_while_it_is_sold_from(tmp_path: Path) -> None:
    async with open_engine(at(f"sqlite:{tmp_path}/sale.db")) as engine:
        await engine.open_sale("PHONE", stock=2)
        await engine.reserve("PHONE", buyer="alice")
        report = await audit_live(engine)
        assert (report.ok, report.checked_events) == (True, 2)


async def test_why_a_store_could_not_be_audited_is_told(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Elsewhere:
        settings: Settings

    engine = cast(Engine, Elsewhere(at(f"sqlite:{tmp_path}/none.db")))
    with pytest.raises(StoreUnavailable, match=r"could not read the store: .*none\.db"):
        await audit_live(engine)
