"""Read models in SQLite keep the contract, and the file is looked at before it is used."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from engine.cqrs.query_side.read_model import ReadModelSnapshot, ReadStore
from engine.errors import ConfigError, StoreUnavailable
from engine.stores.sqlite_snapshot import SqliteSnapshot
from engine.stores.sqlite_views import SqliteViews
from engine.testing.read_store_contract import TABLE, ReadStoreContract, step


class TestSqliteViews(ReadStoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "views.db")

    async def open_views(self) -> ReadStore:
        return await SqliteViews.open(self.path)

    async def open_snapshot(self) -> ReadModelSnapshot | None:
        return await SqliteSnapshot.open(self.path)

    async def test_what_was_written_is_there_after_opening_again(self) -> None:
        async with self.views() as views:
            await views.advance(step())
        async with self.views() as views:
            progress = await views.progress("census", 1, 0)
            assert progress is not None
            assert progress.position == 1


class TestSqliteViewsInMemory(ReadStoreContract):
    async def open_views(self) -> ReadStore:
        return await SqliteViews.open(":memory:")


async def test_a_file_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        await SqliteViews.open(str(path))
    assert path.read_bytes() == before
    (tmp_path / "text").write_text("not a database, and long enough to look at" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        await SqliteViews.open(str(tmp_path / "text"))
    with pytest.raises(ConfigError, match="cannot open"):
        await SqliteViews.open(str(tmp_path / "missing" / "views.db"))


async def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "views.db")
    views = await SqliteViews.open(path)
    await views.prepare("census", [TABLE], 1)
    await views.close()
    connection = apsw.Connection(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="version 99"):
        await SqliteViews.open(path)


async def test_a_damaged_file_says_how_it_is_mended(tmp_path: Path) -> None:
    place = tmp_path / "views.db"
    views = await SqliteViews.open(str(place))
    await views.prepare("census", [TABLE], 1)
    await views.close()
    data = bytearray(place.read_bytes())
    data[4096:] = b"\x96" * (len(data) - 4096)
    place.write_bytes(data)
    views = await SqliteViews.open(str(place))
    with pytest.raises(StoreUnavailable, match="built again from the events"):
        await views.prepare("census", [TABLE], 1)
    with pytest.raises(StoreUnavailable, match="built again from the events"):
        await views.progress("census", 1, 0)
    await views.close()
