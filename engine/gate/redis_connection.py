"""One connection to Redis, as small as the gate needs it, on redis.asyncio.

A raw connection, not the client with its pool: the client tries a failed command again by itself,
and whoever shares a pool waits for others. The gate decides about both (docs/decisions/0020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from redis.asyncio.connection import Connection, SSLConnection

from engine.gate.redis_address import RedisAddress
from engine.gate.redis_scripts import SCRIPTS, Script


class RedisConnection(Protocol):
    """Used by one caller at a time, and never again once a call failed or was given up.

    An answer that nobody waited for would be read as the next one's.
    """

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> bytes:
        """The string that the script answered. Raises whatever the driver raises."""

    async def close(self) -> None:
        """At once, without waiting for the server."""


class _Driver(Connection):
    """Ends a connection at once, also where the driver ends it by itself: after an error, or cancelled.

    Over TLS the driver would say goodbye and leave the socket open until the server has answered, or half
    a minute has passed; for good, when the event loop ends before.
    """

    async def disconnect(self, *args: Any, **options: Any) -> None:
        if (writer := self._writer) is not None:
            writer.transport.abort()
        await super().disconnect(*args, **options)


class _TlsDriver(_Driver, SSLConnection):
    pass


class RedisPyConnection:
    """Implements RedisConnection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, address: RedisAddress) -> RedisPyConnection:
        """Connect and load the scripts. Raises what the driver raises, without any password."""
        # Times are limited by the caller, on the injected clock.
        login: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "db": address.database,
            "username": address.user or None,
            "password": address.password or None,
            "socket_timeout": None,
            "socket_connect_timeout": None,
        }
        if address.tls:
            authority = address.tls_ca or None
            driver: Connection = _TlsDriver(
                **login, ssl_ca_certs=authority, ssl_check_hostname=True
            )
        else:
            driver = _Driver(**login)
        opened = cls(driver)
        try:
            await driver.connect()  # type: ignore[no-untyped-call]
            for script in SCRIPTS:
                await opened._ask("SCRIPT", "LOAD", script.text)
        except BaseException:
            await opened.close()
            raise
        return opened

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> bytes:
        return await self._ask("EVALSHA", script.sha, len(keys), *keys, *args)

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)

    async def _ask(self, *command: str | bytes | int) -> bytes:
        await self._connection.send_command(*command)
        reply = await self._connection.read_response()
        assert isinstance(reply, bytes)
        return reply
