"""A store that was removed or restored does not meet the read models of the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from tests.test_queries import buy, shop, states


async def test_read_models_of_another_store_are_refused_and_how_to_go_on_is_said(
    tmp_path: Path,
) -> None:
    url = f"sqlite:{tmp_path / 'sale.db'}"
    async with shop(url) as engine:
        await engine.open_sale("PHONE", stock=10)
        await buy(engine, "ann")
        await engine.queries.caught_up()
    (tmp_path / "sale.db").unlink()
    with pytest.raises(ConfigError, match=r"remove its read models .*sale-views.db"):
        async with shop(url):
            pass
    (tmp_path / "sale-views.db").unlink()
    async with shop(url) as engine:
        await engine.open_sale("PHONE", stock=10)
        await buy(engine, "bob")
        await engine.queries.caught_up()
        assert await states(engine, "bob") == ["final"]
