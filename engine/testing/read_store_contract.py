"""What every store of read models must do. Subclass it and say how one is opened.

class TestMyViews(ReadStoreContract):
    async def open_views(self):
        return await MyViews.open(...)
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.cqrs.event_store import Value
from engine.cqrs.query_side.read_model import (
    DeadLetter,
    Patch,
    Progress,
    Put,
    ReadModelSnapshot,
    ReadStore,
    ReadTable,
    Select,
    Step,
    Tally,
    Write,
)
from engine.errors import SchemaMismatch, StoreUnavailable

TABLE = ReadTable(
    name="people",
    key=("city", "name"),
    texts=("city", "name", "mood"),
    numbers=("visits", "born"),
    indexes=(("mood", "born"),),
)
START = Progress(0)


def step(*writes: Write, before: Progress = START, position: int = 1, generation: int = 1) -> Step:
    reached = Progress(position, before.revision)
    return Step("census", generation, 0, before, reached, (TABLE,), writes)


def people(*rows: tuple[str, str, str, int, int]) -> Put:
    return Put("people", rows)


ANN = ("Rome", "ann", "glad", 1, 1990)
BOB = ("Rome", "bob", "sad", 2, 1980)


class ReadStoreContract(ABC):
    """One sentence a test. Every test opens a store of its own."""

    @abstractmethod
    async def open_views(self) -> ReadStore:
        """Open an empty store."""

    async def open_snapshot(self) -> ReadModelSnapshot | None:
        """Look at the store that `open_views` opened; None for one that others cannot see."""
        return None

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[ReadModelSnapshot]:
        snapshot = await self.open_snapshot()
        if snapshot is None:
            pytest.skip("nobody else can see this store")
        try:
            yield snapshot
        finally:
            await snapshot.close()

    @asynccontextmanager
    async def views(self, partitions: int = 1) -> AsyncIterator[ReadStore]:
        views = await self.open_views()
        try:
            assert await views.prepare("census", [TABLE], partitions) == 1
            yield views
        finally:
            await views.close()

    async def rows(self, views: ReadStore) -> list[tuple[object, ...]]:
        return [tuple(row.values()) for row in await views.select(Select("people"))]

    async def test_rows_are_put_replaced_patched_and_tallied_in_the_order_of_the_writes(
        self,
    ) -> None:
        async with self.views() as views:
            moved = await views.advance(
                step(
                    people(ANN, ("Oslo", "zoë✓'\\", "so", 0, -7)),
                    people(("Rome", "ann", "calm", 9, 1990), BOB),
                    Patch("people", ("mood",), [("Rome", "bob", "glad"), ("Rome", "bob", "wild")]),
                    Patch("people", ("mood", "visits"), [("Rome", "nobody", "glad", 1)]),
                    Tally("people", ("visits",), [("Rome", "ann", 5), ("Rome", "ann", 1)]),
                    Tally("people", ("visits", "born"), [("Bonn", "new", 3, -4)]),
                )
            )
            assert moved
            assert await self.rows(views) == [
                ("Bonn", "new", "", 3, -4),
                ("Oslo", "zoë✓'\\", "so", 0, -7),
                ("Rome", "ann", "calm", 15, 1990),
                ("Rome", "bob", "wild", 2, 1980),
            ]
            assert await views.progress("census", 1, 0) == Progress(1)

    async def test_thousands_of_rows_are_one_step(self) -> None:
        async with self.views() as views:
            rows = [("Rome", f"name-{n:05}", "x" * 64, n, n) for n in range(3_000)]
            await views.advance(step(people(*rows)))
            ages = [(row[0], row[1], 1) for row in rows]
            await views.advance(
                step(
                    Tally("people", ("visits",), ages),
                    Patch("people", ("born",), ages),
                    before=Progress(1),
                    position=2,
                )
            )
            found = await views.select(Select("people", limit=5_000))
            assert [(row["visits"], row["born"]) for row in found] == [
                (n + 1, 1) for n in range(3_000)
            ]

    async def test_a_step_from_another_progress_changes_nothing(self) -> None:
        async with self.views() as views:
            assert await views.advance(step(people(ANN)))
            assert not await views.advance(step(people(BOB)))
            wrong = Progress(1, revision=3)
            assert not await views.advance(step(people(BOB), before=wrong, position=2))
            assert await self.rows(views) == [ANN]
            assert await views.progress("census", 1, 0) == Progress(1)

    async def test_two_that_step_at_once_count_once(self) -> None:
        async with self.views() as views:
            tally = Tally("people", ("visits",), [("Rome", "ann", 1)])
            moved = await asyncio.gather(*(views.advance(step(tally)) for _ in range(4)))
            assert sorted(moved) == [False, False, False, True]
            assert (await views.select(Select("people")))[0]["visits"] == 1

    @pytest.mark.parametrize(
        "bad",
        [
            people(("Rome", "carl", None, 1, 1)),  # type: ignore[arg-type]
            people(("Rome", "carl", "glad", 2**63, 1)),
            Put("people", [("Rome", "carl")]),
            Put("animals", [("Rome", "cat")]),
        ],
    )
    async def test_a_row_that_cannot_be_held_leaves_all_of_its_step_undone(self, bad: Put) -> None:
        async with self.views() as views:
            with pytest.raises(ValueError):  # noqa: PT011  # every store says it in its own words
                await views.advance(step(people(ANN), bad))
            assert await self.rows(views) == []
            assert await views.advance(step(people(BOB)))

    async def test_partitions_have_their_own_progress(self) -> None:
        async with self.views(partitions=2) as views:
            assert await views.advance(step(people(ANN)))
            assert await views.progress("census", 1, 1) == START
            assert await views.progress("census", 1, 2) is None

    async def test_questions_filter_sort_and_stop(self) -> None:
        async with self.views() as views:
            rows = [("Rome", f"p{n}", "glad" if n % 2 else "sad", n, 1_990 - n) for n in range(9)]
            await views.advance(step(people(*rows)))
            query = Select("people", {"mood": "glad"}, ("born", 1_987), order_by=("born",), limit=2)
            assert [row["name"] for row in await views.select(query)] == ["p7", "p5"]
            newest = Select("people", order_by=("born",), descending=True, limit=1)
            one = Select("people", order_by=("born",), descending=True, limit=1, skip=1)
            both = Select("people", order_by=("born",), descending=True, limit=2)
            assert await views.select(one) == (await views.select(both))[1:]
            assert [row["name"] for row in await views.select(newest)] == ["p0"]
            with pytest.raises(ValueError, match="no column 'age'"):
                await views.select(Select("people", {"age": 1}))
            with pytest.raises(ValueError, match="animals"):
                await views.select(Select("animals"))

    async def test_texts_compare_byte_by_byte(self) -> None:
        async with self.views() as views:
            await views.advance(step(people(ANN, ("Rome", "Ann", "big", 1, 1))))
            assert len(await self.rows(views)) == 2
            await views.advance(
                step(
                    Patch("people", ("mood",), [("Rome", "ann", "small")]),
                    before=Progress(1),
                    position=2,
                )
            )
            assert [row[2] for row in await self.rows(views)] == ["big", "small"]

    async def test_dead_letters_come_and_are_settled_with_the_progress(self) -> None:
        async with self.views() as views:
            letters = [
                DeadLetter(0, n, "person", "ann", "it's\\bad" if n == 3 else "") for n in (3, 4)
            ]
            first = Step("census", 1, 0, START, Progress(4), letters=letters)
            assert await views.advance(first)
            assert await views.dead_letters("census", 1) == letters
            assert await views.dead_letters("census", 1, 1) == []
            again = Step(
                "census", 1, 0, Progress(4), Progress(4, 1), [TABLE], [people(ANN)], [], [3]
            )
            assert await views.advance(again)
            assert await views.dead_letters("census", 1, 0) == letters[1:]
            assert await views.progress("census", 1, 0) == Progress(4, 1)

    async def test_a_draft_grows_beside_the_live_one_and_takes_its_place(self) -> None:
        async with self.views() as views:
            await views.advance(step(people(ANN)))
            dropped = await views.draft("census", [TABLE], 1)
            draft = await views.draft("census", [TABLE], 1)
            assert len({1, dropped, draft}) == 3
            # Whoever was filling the draft that was dropped is told, and promotes nothing.
            assert not await views.advance(step(people(BOB), generation=dropped))
            with pytest.raises(StoreUnavailable, match="another rebuild of census"):
                await views.promote("census", dropped)
            with pytest.raises(StoreUnavailable, match="another rebuild of census"):
                await views.promote("census", 1)
            assert await views.advance(step(people(BOB), generation=draft, position=5))
            assert await self.rows(views) == [ANN]
            assert await views.prepare("census", [TABLE], 1) == 1
            await views.promote("census", draft)
            assert await self.rows(views) == [BOB]
            assert await views.prepare("census", [TABLE], 1) == draft
            assert await views.progress("census", 1, 0) is None
            # Whoever still fed the old one is told.
            assert not await views.advance(step(people(ANN), before=Progress(1), position=2))

    async def test_a_projection_whose_tables_changed_must_be_rebuilt(self) -> None:
        async with self.views() as views:
            await views.advance(step(people(ANN)))
            wider = ReadTable("people", TABLE.key, TABLE.texts, (*TABLE.numbers, "height"))
            with pytest.raises(SchemaMismatch, match="seckill project rebuild census"):
                await views.prepare("census", [wider], 1)
            draft = await views.draft("census", [wider], 1)
            row = Put("people", [("Rome", "ann", "glad", 1, 1990, 170)])
            first = Step("census", draft, 0, START, Progress(1), [wider], [row])
            assert await views.advance(first)
            await views.promote("census", draft)
            assert [each["height"] for each in await views.select(Select("people"))] == [170]

    async def test_one_without_tables_keeps_its_progress(self) -> None:
        async with self.views() as views:
            assert await views.prepare("manager", [], 1) == 1
            assert await views.advance(Step("manager", 1, 0, START, Progress(7)))
            assert await views.progress("manager", 1, 0) == Progress(7)

    async def test_a_snapshot_shows_one_moment_page_by_page(self) -> None:
        async with self.views(partitions=2) as views:
            rows = [(city, f"it's-{n}", "", n, 0) for city in ("Oslo", "Rome") for n in range(3)]
            letter = DeadLetter(0, 1, "person", "ann", "bad")
            first = Step("census", 1, 0, START, Progress(1), [TABLE], [people(*rows)], [letter])
            assert await views.advance(first)
            async with self.snapshot() as snapshot:
                model = await snapshot.live("census")
                assert model is not None
                assert (model.generation, model.tables) == (1, (TABLE,))
                assert (dict(model.reached), model.letters) == ({0: 1, 1: 0}, (letter,))
                assert await snapshot.live("nothing") is None
                # What comes later is not of that moment.
                later = people(("Oslo", "it's-0", "new", 9, 9), ("Oslo", "zoe", "new", 9, 9))
                assert await views.advance(step(later, before=Progress(1), position=2))
                found: list[tuple[object, ...]] = []
                after: tuple[Value, ...] = ()
                while page := await snapshot.page(model, TABLE, after, 2):
                    assert len(page) <= 2
                    found += [tuple(row.values()) for row in page]
                    after = tuple(page[-1][name] for name in TABLE.key)
                assert found == rows

    async def test_a_snapshot_shows_the_live_generation_only(self) -> None:
        async with self.views() as views:
            await views.advance(step(people(ANN)))
            draft = await views.draft("census", [TABLE], 1)
            await views.advance(step(people(BOB), generation=draft, position=5))
            async with self.snapshot() as before:
                model = await before.live("census")
                assert model is not None
                assert (model.generation, dict(model.reached)) == (1, {0: 1})
            await views.promote("census", draft)
            async with self.snapshot() as after:
                model = await after.live("census")
                assert model is not None
                assert (model.generation, dict(model.reached)) == (draft, {0: 5})
                page = await after.page(model, TABLE, (), 10)
                assert [tuple(row.values()) for row in page or ()] == [BOB]
