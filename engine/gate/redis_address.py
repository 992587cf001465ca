"""Where the gate's Redis is: `redis://user:password@host:port/database`, `rediss://` with TLS."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from engine.errors import ConfigError

PORT: Final = 6379
FORM: Final = (
    "redis://user:password@host:port/0 (rediss:// with TLS; all but the host may be left out)"
)


class RedisAddress(msgspec.Struct, frozen=True):
    """A parsed gate URL. `str()` leaves the password out."""

    host: str
    port: int = PORT
    database: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False
    tls_ca: str = ""
    """File of the authority that signed the server's certificate; empty: those of the system."""

    def __str__(self) -> str:
        scheme = "rediss" if self.tls else "redis"
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{user}{host}:{self.port}/{self.database}"


def parse_redis_url(url: str) -> RedisAddress:
    """Read a gate URL; special characters in it are percent-encoded.

    Raises ConfigError, which never shows the password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # It tells of the password, which may hold what looks like an address.
        raise ConfigError(f"gate.url cannot be read; write {FORM}") from None
    if parts.scheme not in ("redis", "rediss"):
        # Without its scheme a URL may begin with the user: nothing of it is shown.
        raise ConfigError(f'gate.url must be "" (no gate), "memory:" or {FORM}')
    try:
        port = PORT if parts.port is None else parts.port
        if port == 0:
            raise ValueError
    except ValueError:
        raise ConfigError(f"the port of gate.url must be from 1 to 65535; write {FORM}") from None
    if not parts.hostname:
        raise ConfigError(f"gate.url names no host; write {FORM}")
    number = parts.path.removeprefix("/") or "0"
    if not (number.isascii() and number.isdigit()):
        raise ConfigError(f"gate.url names the database {number!r}, which is no number; {FORM}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    tls, tls_ca = parts.scheme == "rediss", options.pop("tls_ca", "")
    if options:
        raise ConfigError(f"unknown option {next(iter(options))} in gate.url; known: tls_ca")
    if tls_ca and not tls:
        raise ConfigError("tls_ca in gate.url needs rediss://")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user and not password:
        # Redis knows no user without one, and the driver would silently send none.
        raise ConfigError(f"gate.url names a user and no password; write {FORM}")
    return RedisAddress(parts.hostname, port, int(number), user, password, tls, tls_ca)
