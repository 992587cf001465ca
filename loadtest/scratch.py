"""A place of its own for every run of a comparison, gone when the run is over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from engine.config import Settings
from engine.errors import ConfigError, StoreUnavailable
from engine.event_loop import run_async
from engine.runtime import initialise_store
from engine.stores.mysql_connection import MysqlConnection, code_of
from engine.stores.mysql_url import MysqlAddress, parse_mysql_url

NO_RIGHT: Final = frozenset({1044, 1227})
DATABASE_EXISTS: Final = 1007
SCRATCH_FILE: Final = "scratch.db"


@contextmanager
def scratch_store(settings: Settings, folder: Path) -> Iterator[Settings]:
    """Settings of an empty store for the block: a database beside the named one, or a new file.

    Raises ConfigError when the user may not create databases on the server.
    """
    url = settings.store.url
    if url.startswith("mysql:"):
        with scratch_database(parse_mysql_url(url)) as place:
            inside = _at(settings, place.url())
            run_async(initialise_store(inside))
            yield inside
    elif url.startswith("sqlite:"):
        # What a killed run left behind would be taken for the store of this one.
        _remove(folder)
        try:
            # A server of its own may have another working directory.
            yield _at(settings, f"sqlite:{(folder / SCRATCH_FILE).absolute()}")
        finally:
            _remove(folder)
    else:
        yield settings


@contextmanager
def scratch_database(address: MysqlAddress) -> Iterator[MysqlAddress]:
    """An empty database for the block. Raises ConfigError as `scratch_store` does."""
    place = msgspec.structs.replace(address, database=f"{address.database}_scratch")
    run_async(_create(address, place.database))
    try:
        yield place
    finally:
        run_async(_run(address, f"DROP DATABASE IF EXISTS `{_name(place.database)}`"))


def place_of(store_url: str) -> str:
    """What tells one server's database from another's in a fingerprint, without naming it.

    A SQLite file is made anew for every run, so that one is like the other.
    """
    kind, _, _ = store_url.partition(":")
    if kind != "mysql":
        return f"{kind}:"
    address = parse_mysql_url(store_url)
    place = f"{address.host}:{address.port}/{address.database}"
    return f"{kind}:{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def _remove(folder: Path) -> None:
    for each in folder.glob(f"{Path(SCRATCH_FILE).stem}*"):
        each.unlink()


def _at(settings: Settings, url: str) -> Settings:
    store = msgspec.structs.replace(settings.store, url=url)
    return msgspec.structs.replace(settings, store=store)


async def _create(address: MysqlAddress, database: str) -> None:
    try:
        await _run(address, f"CREATE DATABASE `{_name(database)}`")
    except StoreUnavailable as error:
        if code_of(error) == DATABASE_EXISTS:
            raise ConfigError(
                f"{address}: the database {database} is there already; another comparison may be "
                "running, or one was killed: drop it"
            ) from error
        if code_of(error) in NO_RIGHT:
            raise ConfigError(
                f"{address}: user {address.user} may not create the database {database}, which a "
                f"comparison uses; grant all on `{database}`.* or use a test server"
            ) from error
        raise


async def _run(address: MysqlAddress, statement: str) -> None:
    connection = await MysqlConnection.open(address)
    try:
        await connection.run(statement)
    finally:
        connection.close()


def _name(database: str) -> str:
    return database.replace("`", "``")
