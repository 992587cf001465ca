"""What a SQLite store looks like inside: its tables, its marks, and how they are checked."""

from __future__ import annotations

import uuid

import apsw
import msgspec

from engine.cqrs.event_store import Table
from engine.errors import ConfigError, SchemaMismatch
from engine.stores.layout import Layout

APPLICATION_ID = 0x53_4B_69_6C
"""Marks a file as a store of this program ("SKil"), in the header field SQLite keeps for it."""

SCHEMA_VERSION = 4
"""Raised with every change below. A program opens stores of exactly its own version."""

PAGE_BYTES = 8_192
"""A batch of 8,190 events is one value of 0.6 MB, a chain of pages: larger pages make it shorter.

Measured on 2 cores against the default of 4,096: a fifth less time a batch, a lone order the same.
16,384 gained nothing more and doubles what a lone order writes.
"""

# `events` comes last, because SQLite walks a row's overflow pages to reach a column behind it.
SCHEMA = """
CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE partitions (
    partition_id INTEGER NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    position INTEGER NOT NULL,
    owner TEXT NOT NULL,
    source TEXT NOT NULL
) STRICT;

CREATE TABLE commits (
    partition_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    first_version INTEGER NOT NULL,
    last_version INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    committed_at_us INTEGER NOT NULL,
    events TEXT NOT NULL,
    CONSTRAINT commits_by_position PRIMARY KEY (partition_id, position),
    CONSTRAINT commits_by_stream UNIQUE (aggregate_type, aggregate_id, first_version),
    CONSTRAINT commits_versions CHECK (1 <= first_version AND first_version <= last_version)
) STRICT;

CREATE TRIGGER commits_never_updated BEFORE UPDATE ON commits
BEGIN SELECT RAISE(ABORT, 'commits are append-only: no update'); END;

CREATE TRIGGER commits_never_deleted BEFORE DELETE ON commits
BEGIN SELECT RAISE(ABORT, 'commits are append-only: no delete'); END;

-- REPLACE deletes without asking the trigger above.
CREATE TRIGGER commits_never_replaced BEFORE INSERT ON commits
WHEN EXISTS (
    SELECT 1 FROM commits
    WHERE partition_id = NEW.partition_id AND position = NEW.position
) OR EXISTS (
    SELECT 1 FROM commits
    WHERE aggregate_type = NEW.aggregate_type AND aggregate_id = NEW.aggregate_id
        AND first_version = NEW.first_version
)
BEGIN SELECT RAISE(ABORT, 'commits are append-only: no replacing'); END;

CREATE VIEW events AS
SELECT c.partition_id,
       c.position,
       c.aggregate_type,
       c.aggregate_id,
       c.first_version + e.key AS version,
       e.value ->> '$.command_id' AS command_id,
       e.value ->> '$.type' AS type,
       e.value AS body,
       c.committed_at_us
FROM commits AS c, json_each(c.events) AS e;

CREATE TABLE snapshots (
    aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    code_version INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    state BLOB NOT NULL,
    CONSTRAINT snapshots_by_stream PRIMARY KEY (aggregate_type, aggregate_id)
) STRICT;

CREATE TABLE snapshot_parts (
    aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    data BLOB NOT NULL,
    CONSTRAINT snapshot_parts_by_stream PRIMARY KEY (aggregate_type, aggregate_id, number)
) STRICT;
"""


def create_schema(connection: apsw.Connection, layout: Layout) -> None:
    """Turn an empty database into a store, in one transaction."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    with connection:
        connection.execute(SCHEMA)
        for table in layout.tables:
            connection.execute(_create_table(table))
        connection.executemany(
            "INSERT INTO partitions (partition_id, epoch, position, owner, source) "
            "VALUES (?, 0, 0, '', '')",
            [(partition,) for partition in range(layout.partitions)],
        )
        connection.executemany(
            "INSERT INTO meta (key, value) VALUES (?, ?)",
            [
                ("schema_version", str(SCHEMA_VERSION)),
                ("identity", uuid.uuid4().hex),
                ("partitions", str(layout.partitions)),
                ("tables", msgspec.json.encode(layout.tables).decode()),
            ],
        )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def read_layout(connection: apsw.Connection, path: str) -> Layout:
    """Return what the store at `path` was initialised with.

    Raises ConfigError when it is no store of this program, SchemaMismatch when it is one of another
    schema version.
    """
    if application_id(connection) != APPLICATION_ID:
        raise ConfigError(f"{path} is a SQLite database, but not a seckill store")
    meta = {
        str(key): str(value) for key, value in connection.execute("SELECT key, value FROM meta")
    }
    version = meta.get("schema_version", "none")
    if version != str(SCHEMA_VERSION):
        raise SchemaMismatch(
            f"{path} has schema version {version} and this program reads version {SCHEMA_VERSION}; "
            "use the program version that made it"
        )
    tables = msgspec.json.decode(meta["tables"], type=tuple[Table, ...])
    return Layout(int(meta["partitions"]), tables, meta.get("identity", ""))


def application_id(connection: apsw.Connection) -> int:
    """The mark in the file's header; 0 in a file that nobody marked."""
    return int(connection.pragma("application_id") or 0)


def _create_table(table: Table) -> str:
    columns = [f'"{table.key}" TEXT NOT NULL PRIMARY KEY']
    columns += [
        f'"{name}" INTEGER NOT NULL '
        f'CONSTRAINT "{table.name}_{name}_not_below_zero" CHECK ("{name}" >= 0)'
        for name in table.numbers
    ]
    columns += [f'"{name}" TEXT NOT NULL' for name in table.texts]
    return f'CREATE TABLE "{table.name}" ({", ".join(columns)}) STRICT'
