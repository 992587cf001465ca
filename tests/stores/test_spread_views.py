"""Read models over two databases keep the contract of every one, on a real MariaDB server."""

from __future__ import annotations

import pytest

from engine.cqrs.query_side.read_model import (
    Progress,
    Put,
    ReadStore,
    ReadTable,
    Select,
    Step,
    by_database,
)
from engine.stores.layout import Layout
from engine.stores.mysql_places import initialise_several
from engine.stores.mysql_url import MysqlAddress
from engine.stores.mysql_views import MysqlViews
from engine.stores.spread_views import SpreadViews
from engine.testing.read_store_contract import TABLE, ReadStoreContract
from tests.stores.test_move import HERE, THERE

SEEN = ReadTable("seen", ("name", "number"), ("name",), ("number",), (("number",),))


class TestSpreadViews(ReadStoreContract):
    @pytest.fixture(autouse=True)
    def _places(self, two_databases: list[MysqlAddress]) -> None:
        self.addresses = two_databases

    async def open_views(self) -> ReadStore:
        # The contract writes to partition 0, and asks for partitions 1 and 2.
        await initialise_several(self.addresses, Layout(2, ()))
        return await SpreadViews.open(self.addresses)

    async def test_rows_of_both_databases_are_one_answer_in_order(self) -> None:
        async with self.views(partitions=2) as views:
            await self._fill(views)
            newest = Select("seen", order_by=("number", "name"), descending=True, limit=3, skip=2)
            found = [(row["name"], row["number"]) for row in await views.select(newest)]
            every = sorted(
                [(HERE[0], n) for n in range(4)] + [(THERE, n) for n in range(4)],
                key=lambda each: (each[1], each[0]),
            )
            assert found == every[::-1][2:5]
            own = await views.select(Select("seen", {"name": THERE}))
            assert [row["number"] for row in own] == [0, 1, 2, 3]
            for part, name in zip(by_database(views), (HERE[0], THERE), strict=True):
                assert {row["name"] for row in await part.select(Select("seen"))} == {name}

    async def test_databases_that_number_their_generations_differently_are_fed_alike(self) -> None:
        async with self.views(partitions=2) as views:
            other = await MysqlViews.open(self.addresses[1])
            draft = await other.draft("census", [TABLE], 2)
            await other.promote("census", draft)
            await other.close()
            generation = await views.prepare("census", [TABLE], 2)
            assert generation not in (1, draft)
            assert generation == await views.prepare("census", [TABLE], 2)
            rows = [Put("people", [("Rome", "ann", "", 1, 1)])]
            for partition in (0, 1):
                step = Step(
                    "census", generation, partition, Progress(0), Progress(1), [TABLE], rows
                )
                assert await views.advance(step)
                assert await views.progress("census", generation, partition) == Progress(1)
            assert len(await views.select(Select("people"))) == 2

    async def _fill(self, views: ReadStore) -> None:
        generation = await views.prepare("seen", [SEEN], 2)
        for partition, name in enumerate((HERE[0], THERE)):
            rows = [Put("seen", [(name, number) for number in range(4)])]
            place = ("seen", generation, partition)
            assert await views.advance(Step(*place, Progress(0), Progress(1), [SEEN], rows))
