"""The connection of redis_connection.py on `asyncio-redis`, an optional driver.

Its protocol class is used, not its `Connection`: that connects again by itself, and sends the
password and the choice of database in a task that nobody waits for, so that a first call may reach
database 0 (docs/decisions/0020).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from engine.errors import ConfigError
from engine.gate.redis_address import RedisAddress
from engine.gate.redis_link import Connect
from engine.gate.redis_scripts import SCRIPTS, Script

try:
    from asyncio_redis import RedisProtocol
    from asyncio_redis.encoders import BytesEncoder
except ImportError as error:
    raise ConfigError(
        'gate.client "asyncio-redis" is not installed; '
        "install seckill-engine[asyncio-redis], or leave the setting at its default"
    ) from error


class AsyncioRedisConnection:
    """Implements RedisConnection."""

    def __init__(self, transport: asyncio.Transport, protocol: RedisProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    @classmethod
    def connector(cls, address: RedisAddress) -> Connect:
        """What opens such connections. Raises ConfigError for what the driver does not know."""
        if address.tls or address.user:
            what = "TLS" if address.tls else "user names"
            raise ConfigError(f'gate.client "asyncio-redis" knows no {what}; use "redis"')
        return partial(cls.open, address)

    @classmethod
    async def open(cls, address: RedisAddress) -> AsyncioRedisConnection:
        """Connect and load the scripts. Raises what the driver raises, without any password."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(
            lambda: RedisProtocol(encoder=BytesEncoder()), address.host, address.port
        )
        opened = cls(transport, protocol)
        try:
            if address.password:
                await protocol.auth(address.password.encode())
            if address.database:
                await protocol.select(address.database)
            for script in SCRIPTS:
                await protocol.register_script(script.text)
        except BaseException:
            await opened.close()
            raise
        return opened

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> bytes:
        reply = await self._protocol.evalsha(script.sha, list(keys), list(args))
        answer = await reply.return_value()
        assert isinstance(answer, bytes)
        return answer

    async def close(self) -> None:
        self._transport.abort()
