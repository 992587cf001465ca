"""One connection to a MySQL or MariaDB server: every wait bounded, never used after an error.

The driver's own pool is not used, it does not reconnect, and a statement that failed or was
cancelled closes its connection: what would come next on it is anybody's guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import aiomysql
import pymysql.err
from pymysql.constants import CLIENT

from engine.errors import ConfigError, StoreError, StoreUnavailable
from engine.stores.mysql_url import MysqlAddress

CONNECT_SECONDS_MAX: Final = 10.0
STATEMENT_SECONDS_MAX: Final = 20.0
"""Longer than LOCK_WAIT_SECONDS, so that the server's own answer about a lock comes first."""

READ_SECONDS_MAX: Final = 120.0
"""A page of a replay is tens of megabytes."""

LOCK_WAIT_SECONDS: Final = 5
WRITER_IDLE_SECONDS: Final = 60
"""After it the server drops a silent writer, and with it the locks of one that died unnoticed."""

TRANSACTION_IDLE_SECONDS: Final = 5
AND_IN_A_TRANSACTION: Final = f"/*M! , idle_transaction_timeout = {TRANSACTION_IDLE_SECONDS} */"
"""To be set with the above: MariaDB, which alone reads it, does not wait that long inside a
transaction. Whoever takes the partition of a node that hangs in one waits for it."""

SESSION: Final = (
    # Known modes, whatever the server's default is: errors are errors, a backslash escapes.
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    f"SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}",
    "SET SESSION time_zone = '+00:00'",
    # "Table already exists" and its like; the driver would make Python warnings of them.
    "SET SESSION sql_notes = 0",
)

BAD_ADDRESS: Final = {
    1044: "this user may not use the database",
    1045: "wrong user or password",
    1049: "there is no such database",
    1698: "wrong user or password",
    2061: "the server's authentication needs TLS; add ?tls=on",
}
"""Error codes that the one who wrote the URL can mend."""

GONE: Final = frozenset({2006, 2013, 1927, 4031})
"""The connection ended: gone, lost, killed (MariaDB), idle for too long (MySQL)."""


class Answer(NamedTuple):
    """What one statement gave: its rows, and how many rows it matched or inserted."""

    rows: Sequence[tuple[Any, ...]]
    matched: int


class _NoTls(Exception):
    """The server offers no encryption."""


class _Connection(aiomysql.Connection):  # type: ignore[misc]  # the driver has no types
    """The driver's connection, which goes on in clear, password and all, when there is no TLS."""

    async def _request_authentication(self) -> None:
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise _NoTls
        await super()._request_authentication()


class MysqlConnection:
    """Runs one statement after the other. Made by `open`; closed for good by any error."""

    def __init__(self, raw: aiomysql.Connection) -> None:
        self._raw: aiomysql.Connection | None = raw

    @classmethod
    async def open(cls, address: MysqlAddress, *session: str) -> MysqlConnection:
        """Connect and prepare the session, with `session` as further statements; autocommit is on.

        Raises ConfigError for a wrong user, password or database, StoreUnavailable.
        """
        tls = await asyncio.to_thread(address.tls_context)
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                raw = _Connection(
                    host=address.host,
                    port=address.port,
                    user=address.user,
                    password=address.password,
                    db=address.database,
                    charset="utf8mb4",
                    # Counts the rows an UPDATE matched, also those it left as they were.
                    client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
                    autocommit=True,
                    ssl=tls,
                    program_name="seckill",
                )
                await raw._connect()
        except TimeoutError:
            seconds = f"{CONNECT_SECONDS_MAX:g} s"
            raise StoreUnavailable(f"no answer from {address} within {seconds}") from None
        except (pymysql.err.Error, OSError) as error:
            raise _refused(address, error) from error
        except _NoTls:
            raise ConfigError(
                f"cannot use {address}: tls was asked for and the server has none"
            ) from None
        connection = cls(raw)
        await connection.run_all([*SESSION, *session])
        return connection

    @classmethod
    async def reopen(cls, address: MysqlAddress, *session: str) -> MysqlConnection:
        """`open` for a store that is in use: a login refused meanwhile may be put right again.

        Raises StoreUnavailable.
        """
        try:
            return await cls.open(address, *session)
        except ConfigError as error:
            raise StoreUnavailable(str(error)) from error

    @property
    def closed(self) -> bool:
        return self._raw is None

    async def run(self, statement: str, seconds: float = STATEMENT_SECONDS_MAX) -> Answer:
        """Run one statement. Raises StoreUnavailable; `cause_of` tells the server's error code."""
        (answer,) = await self._run(statement, 1, seconds)
        return answer

    async def run_all(
        self, statements: Sequence[str], seconds: float = STATEMENT_SECONDS_MAX
    ) -> list[Answer]:
        """Run several statements in one round trip; the first that fails ends them."""
        return await self._run(";".join(statements), len(statements), seconds)

    async def _run(self, text: str, statements: int, seconds: float) -> list[Answer]:
        raw = self._raw
        if raw is None:
            raise StoreUnavailable("the connection was closed by an earlier error")
        answers: list[Answer] = []
        try:
            async with asyncio.timeout(seconds):
                cursor = await raw.cursor()
                await cursor.execute(text)
                while True:
                    answers.append(Answer(await cursor.fetchall() or (), cursor.rowcount))
                    if len(answers) == statements:
                        break
                    await cursor.nextset()
                await cursor.close()
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(f"no answer from the server within {seconds:g} s") from error
            if (translated := translate(error)) is error:
                raise
            raise translated from error
        return answers

    def close(self) -> None:
        """Drop the connection at once; the server rolls back what was open. Idempotent."""
        if self._raw is not None:
            self._raw.close()
            self._raw = None


def code_of(error: BaseException | None) -> int:
    """The server's error code behind an exception, 0 when there is none."""
    while error is not None:
        if isinstance(error, pymysql.err.MySQLError) and error.args:
            return error.args[0] if isinstance(error.args[0], int) else 0
        error = error.__cause__
    return 0


def translate(error: BaseException, action: str = "") -> BaseException:
    """The error of the port for one of the driver or the network; nothing was committed."""
    if isinstance(error, StoreError | ConfigError) or not isinstance(error, Exception):
        return error
    return StoreUnavailable(f"{action}: {describe(error)}" if action else describe(error))


def describe(error: Exception) -> str:
    """One line: the server's code and words, or the system's."""
    if isinstance(error, pymysql.err.MySQLError) and len(error.args) > 1:
        return f"{error.args[1]} (error {error.args[0]})"
    if isinstance(error, asyncio.IncompleteReadError):
        return "the server closed the connection"
    return str(error) or type(error).__name__


def _refused(address: MysqlAddress, error: Exception) -> StoreError | ConfigError:
    why = BAD_ADDRESS.get(code_of(error))
    if why:
        return ConfigError(f"cannot use {address}: {why}")
    cause = error.__cause__ or error
    words = describe(cause if isinstance(cause, Exception) else error)
    return StoreUnavailable(f"cannot connect to {address}: {words}")
