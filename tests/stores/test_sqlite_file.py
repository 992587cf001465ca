"""The file of a SQLite store: what it survives, what is refused, and what is left untouched."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from engine.cqrs.codec import checksum
from engine.cqrs.event_store import Lease, NewCommit, StoredSnapshot, Table
from engine.errors import ConfigError, SchemaMismatch, StoreLocked, StoreUnavailable
from engine.stores.sqlite import SqliteReader, SqliteStore
from engine.stores.sqlite_file import check_durability
from engine.testing.store_contract import INSERT, TABLES, add, commit

# Says "open", then the position of every commit that was acknowledged, until it is killed.
WRITER = """
import asyncio, sys
from engine.cqrs.event_store import Lease
from engine.stores.sqlite import SqliteStore
from engine.testing.store_contract import INSERT, TABLES, add, commit

async def main():
    store = await SqliteStore.open(sys.argv[1], tables=TABLES)
    print("open", flush=True)
    lease = await store.acquire(0)
    position = 0
    while True:
        changes = add(1, position + 1) if position else (INSERT,)
        new = commit("a", position + 1, 1, changes)
        await store.append(Lease(0, lease.epoch, position), [new])
        position += 1
        print(position, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@asynccontextmanager
async def opened(
    path: Path, partitions: int = 1, tables: tuple[Table, ...] = TABLES
) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(str(path), partitions=partitions, tables=tables)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def writing_process(path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Another process that has the store open; with it, what it said first. Killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refused(path: Path, error: type[Exception], message: str, **options: Any) -> None:
    with pytest.raises(error, match=message):
        async with opened(path, **options):
            pass


def run_sql(path: Path, *statements: str) -> list[Any]:
    """What a shell on the file would do; returns the rows of the last statement."""
    connection = apsw.Connection(str(path))
    try:
        return [connection.execute(each).fetchall() for each in statements][-1]
    finally:
        connection.close()


def files_in(folder: Path) -> dict[str, bytes | None]:
    """Everything in the folder by name: the bytes of a file, None for a folder."""
    return {each.name: each.read_bytes() if each.is_file() else None for each in folder.iterdir()}


def write_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def add_to_page_count(path: Path, pages: int) -> None:
    """In the header of the file, as if its log had it so."""
    count_at = slice(28, 32)
    content = bytearray(path.read_bytes())
    count = int.from_bytes(content[count_at], "big") + pages
    content[count_at] = count.to_bytes(4, "big")
    path.write_bytes(content)


async def write_one(path: Path, new: NewCommit) -> None:
    async with opened(path) as store:
        await store.append(await store.acquire(0), [new])


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE commits SET events = '[]'", "append-only: no update"),
        ("UPDATE commits SET position = 9", "append-only: no update"),
        ("DELETE FROM commits", "append-only: no delete"),
    ],
)
async def test_commits_can_be_neither_changed_nor_removed(
    path: Path, statement: str, message: str
) -> None:
    await write_one(path, commit("a", 1))
    before = run_sql(path, "SELECT * FROM commits")
    with pytest.raises(apsw.ConstraintError, match=message):
        run_sql(path, statement)
    assert len(before) == 1
    assert run_sql(path, "SELECT * FROM commits") == before


async def test_what_was_written_is_there_after_opening_again(path: Path) -> None:
    state = b"\x00\xffstate"
    snapshot = StoredSnapshot("counter", "a", 2, 3, state, checksum(state))
    async with opened(path) as store:
        lease = await store.acquire(0)
        await store.append(lease, [commit("a", 1, 2, (INSERT,)), commit("bé✓", 1)])
        await store.save_snapshot(snapshot)
        before = await store.read_partition(0, 0, 10)
        rows = await store.read_rows("totals")
    assert (len(before), len(rows)) == (2, 1)
    async with opened(path) as store:
        assert await store.read_partition(0, 0, 10) == before
        assert await store.read_rows("totals") == rows
        assert await store.load_snapshot(("counter", "a")) == snapshot
        renewed = await store.acquire(0)
        assert renewed == Lease(0, lease.epoch + 1, 2, renewed.owner)


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(path: Path) -> None:
    async with writing_process(path) as (process, said):
        assert said == "open"
        assert process.stdout is not None
        for _ in range(20):
            assert await process.stdout.readline()
        process.kill()
        rest, _ = await process.communicate()
    # The last line may have been cut by the kill; the ones before it are whole.
    acknowledged = 20 + rest.count(b"\n")
    async with opened(path) as store:
        stored = await store.read_partition(0, 0, acknowledged + 10)
        assert acknowledged <= len(stored) <= acknowledged + 1
        assert [each.position for each in stored] == list(range(1, len(stored) + 1))
        assert [each.first_version for each in stored] == list(range(1, len(stored) + 1))
        assert all(checksum(each.events) == each.checksum for each in stored)
        row = await store.read_row("totals", "a")
        assert row is not None
        assert (row["version"], row["amount"]) == (len(stored), 5 + len(stored) - 1)
        lease = await store.acquire(0)
        assert lease.position == len(stored)
        await store.append(lease, [commit("a", len(stored) + 1, 1, add(1, len(stored) + 1))])


async def test_a_writer_killed_in_the_middle_of_a_checkpoint_leaves_a_store_that_opens(
    path: Path,
) -> None:
    async with writing_process(path) as (process, _):
        assert process.stdout is not None
        # Enough for the database to grow, so that its first page is in the log.
        for _ in range(300):
            assert await process.stdout.readline()
        process.kill()
        await process.communicate()
    # The first page was copied and speaks of pages that were not: alone, the file is malformed.
    await asyncio.to_thread(add_to_page_count, path, 1_000)
    reader = await SqliteReader.open(str(path))
    await reader.close()
    async with opened(path) as store:
        assert len(await store.read_partition(0, 0, 1_000)) >= 300


async def test_a_clean_close_leaves_one_file_and_its_lock(path: Path) -> None:
    await write_one(path, commit("a", 1))
    assert set(files_in(path.parent)) == {path.name, f"{path.name}.lock"}


async def test_a_second_process_is_refused_and_told_who_writes(path: Path) -> None:
    async with writing_process(path) as (process, said):
        assert said == "open"
        await refused(path, StoreLocked, rf"by process {process.pid};")


async def test_a_second_store_of_the_same_process_is_refused(path: Path) -> None:
    async with opened(path) as store:
        await refused(path, StoreLocked, rf"by process {os.getpid()};")
        await store.append(await store.acquire(0), [commit("a", 1)])
    async with opened(path) as store:
        assert len(await store.read_partition(0, 0, 10)) == 1


async def test_a_newer_schema_is_refused_and_untouched(path: Path) -> None:
    await write_one(path, commit("a", 1))
    run_sql(path, "UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    before = files_in(path.parent)[path.name]
    message = "schema version 99 and this program reads version 4"
    await refused(path, SchemaMismatch, message)
    with pytest.raises(SchemaMismatch, match=message):
        await SqliteReader.open(str(path))
    assert files_in(path.parent)[path.name] == before


async def test_other_partitions_or_tables_are_refused_naming_both(path: Path) -> None:
    async with opened(path, partitions=2):
        pass
    await refused(path, SchemaMismatch, "with 2 partitions and the settings say 3", partitions=3)
    await refused(
        path,
        SchemaMismatch,
        r"tables totals \(.*\) and the program keeps \(none\)",
        partitions=2,
        tables=(),
    )
    async with opened(path, partitions=2) as store:
        assert store.partitions == 2


async def test_a_database_of_another_program_is_refused_and_untouched(path: Path) -> None:
    run_sql(path, "CREATE TABLE notes (body TEXT)", "INSERT INTO notes VALUES ('mine')")
    before = files_in(path.parent)
    await refused(path, ConfigError, "database of another program; it was left as it is")
    with pytest.raises(ConfigError, match="database of another program"):
        await SqliteReader.open(str(path))
    assert files_in(path.parent) == before


async def test_a_file_that_is_no_database_is_refused_and_untouched(path: Path) -> None:
    write_file(path, b'{"not": "a database"}' * 100)
    before = files_in(path.parent)
    await refused(path, ConfigError, "not a SQLite database; it was left as it is")
    with pytest.raises(ConfigError, match="not a SQLite database"):
        await SqliteReader.open(str(path))
    assert files_in(path.parent) == before


async def test_a_missing_folder_is_named_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    await refused(missing / "store.db", ConfigError, f"there is no directory {missing}")
    assert files_in(tmp_path) == {}


async def test_a_folder_is_no_store(tmp_path: Path) -> None:
    await refused(tmp_path, ConfigError, f"{tmp_path} is a directory; the store is a file")
    assert files_in(tmp_path) == {}


async def test_a_store_whose_log_alone_is_left_is_not_begun_anew(path: Path) -> None:
    log = path.with_name("store.db-wal")
    write_file(log, b"orders")
    await refused(path, ConfigError, f"its log {log} is there and may hold orders")
    assert files_in(path.parent) == {log.name: b"orders"}


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    write_file(path, b"")
    await write_one(path, commit("a", 1))
    assert run_sql(path, "SELECT count(*) FROM commits") == [(1,)]


async def test_a_reader_of_nothing_makes_nothing(path: Path) -> None:
    with pytest.raises(ConfigError, match=f"there is no store at {path}"):
        await SqliteReader.open(str(path))
    assert files_in(path.parent) == {}


async def test_a_reader_follows_a_store_that_is_being_written(path: Path) -> None:
    async with opened(path) as store:
        lease = await store.acquire(0)
        reader = await SqliteReader.open(str(path))
        try:
            assert await reader.read_partition(0, 0, 10) == []
            await store.append(lease, [commit("a", 1, 1, (INSERT,))])
            assert await reader.read_partition(0, 0, 10) == await store.read_partition(0, 0, 10)
            assert await reader.read_rows("totals") == await store.read_rows("totals")
            assert len(await reader.read_partition(0, 0, 10)) == 1
        finally:
            await reader.close()
        with pytest.raises(StoreUnavailable):
            await reader.read_streams()
        await store.append(Lease(0, lease.epoch, 1), [commit("a", 2)])


async def test_the_events_view_shows_every_event_with_its_version(path: Path) -> None:
    events = b'[{"type":"one.1","command_id":"x"},{"type":"two.1","command_id":"y","n":7}]'
    new = NewCommit("counter", "a", 1, 2, events, checksum(events))
    await write_one(path, new)
    rows = run_sql(
        path,
        "SELECT partition_id, position, aggregate_type, aggregate_id, version, command_id, type, "
        "body FROM events ORDER BY version",
    )
    bodies = json.loads(events)
    assert [row[:7] for row in rows] == [
        (0, 1, "counter", "a", 1, "x", "one.1"),
        (0, 1, "counter", "a", 2, "y", "two.1"),
    ]
    assert [json.loads(row[7]) for row in rows] == bodies


@pytest.mark.parametrize(
    ("pragma", "message"),
    [
        ("synchronous = NORMAL", r"synchronous = 1 where 2 \(FULL\)"),
        ("synchronous = OFF", r"synchronous = 0 where 2 \(FULL\)"),
        ("journal_mode = DELETE", "mode 'delete' where 'wal'"),
    ],
)
def test_a_connection_that_could_lose_a_commit_is_refused(
    path: Path, pragma: str, message: str
) -> None:
    connection = apsw.Connection(str(path))
    try:
        connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        check_durability(connection, str(path))
        connection.execute(f"PRAGMA {pragma}").fetchall()
        with pytest.raises(ConfigError, match=message):
            check_durability(connection, str(path))
    finally:
        connection.close()


async def test_an_open_store_has_one_writing_connection_and_it_is_durable(path: Path) -> None:
    async with opened(path):
        ours = [each for each in apsw.connections() if each.filename == str(path)]
        writers = [each for each in ours if not each.readonly("main")]
        assert (len(ours), len(writers)) == (2, 1)
        await asyncio.to_thread(check_durability, writers[0], str(path))


async def test_an_empty_file_beside_a_log_is_not_begun_anew(path: Path) -> None:
    log = path.with_name("store.db-wal")
    write_file(path, b"")
    write_file(log, b"orders")
    await refused(path, ConfigError, f"its log {log} is there and may hold orders")
    assert files_in(path.parent) == {path.name: b"", log.name: b"orders"}


async def give_up(work: Coroutine[Any, Any, object], turns: int) -> None:
    """Cancel `work` after so many turns of the loop; it may have ended by then."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        if isinstance(ended := await task, SqliteStore):
            await ended.close()


@pytest.mark.parametrize("turns", range(4))
async def test_an_opening_that_is_given_up_leaves_the_file_free(path: Path, turns: int) -> None:
    await give_up(SqliteStore.open(str(path), tables=TABLES), turns)
    async with opened(path):
        pass


@pytest.mark.parametrize("turns", range(4))
async def test_a_closing_that_is_given_up_ends_all_the_same(path: Path, turns: int) -> None:
    store = await SqliteStore.open(str(path), tables=TABLES)
    await give_up(store.close(), turns)
    await store.close()
    async with opened(path):
        pass


async def test_a_commit_that_is_replaced_is_refused_by_the_database(path: Path) -> None:
    await write_one(path, commit("a", 1))
    for columns in ("1, 'counter', 'b', 1", "2, 'counter', 'a', 1"):
        with pytest.raises(apsw.ConstraintError, match="append-only: no replacing"):
            run_sql(path, f"INSERT OR REPLACE INTO commits VALUES (0, {columns}, 1, 1, 1, '[]')")
    assert run_sql(path, "SELECT aggregate_id, position FROM commits") == [("a", 1)]
