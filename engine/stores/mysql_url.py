"""Where a MySQL or MariaDB store is: `mysql://user:password@host:port/database?tls=...`."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from engine.errors import ConfigError

SCHEME: Final = "mysql"
PORT: Final = 3306

FORM: Final = "mysql://user:password@host:port/database"

TLS_MODES: Final = ("off", "on", "unverified")
"""`on` checks the server's certificate and name, `unverified` only encrypts."""


class MysqlAddress(msgspec.Struct, frozen=True):
    """A parsed store URL. `str()` leaves the password out."""

    host: str
    port: int
    user: str
    password: str
    database: str
    tls: str = "off"
    tls_ca: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}://{self.user}@{self.host}:{self.port}/{self.database}"

    def url(self) -> str:
        """The whole URL, with the password: for opening a store, never for showing."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        tls = {"tls": self.tls, "tls_ca": self.tls_ca}
        options = urlencode({key: value for key, value in tls.items() if value not in ("", "off")})
        return (
            f"{SCHEME}://{quote(self.user, safe='')}{secret}@{host}:{self.port}/"
            f"{quote(self.database, safe='')}{'?' if options else ''}{options}"
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """What the driver is to encrypt with. Raises ConfigError when `tls_ca` cannot be read."""
        if self.tls == "off":
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
        except OSError as error:
            raise ConfigError(f"cannot read tls_ca {self.tls_ca}: {error.strerror}") from None
        if self.tls == "unverified":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def parse_mysql_url(url: str) -> MysqlAddress:
    """Read a store URL; special characters in it are percent-encoded.

    Raises ConfigError, which never shows the password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # It tells of the password, which may hold what looks like an address.
        raise ConfigError(f"the store URL cannot be read; {_form()}") from None
    try:
        port = PORT if parts.port is None else parts.port
        if port == 0:
            raise ValueError
    except ValueError:
        raise ConfigError(f"the port of the store URL must be from 1 to 65535; {_form()}") from None
    database = unquote(parts.path.removeprefix("/"))
    missing = [
        name
        for name, value in (
            ("user", parts.username),
            ("host", parts.hostname),
            ("database", database),
        )
        if not value
    ]
    if missing:
        raise ConfigError(f"the store URL names no {' and no '.join(missing)}; {_form()}")
    if "/" in database:
        raise ConfigError(f"{database!r} is no name of a database; {_form()}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    tls, tls_ca = options.pop("tls", "off"), options.pop("tls_ca", "")
    if options:
        raise ConfigError(
            f"unknown option {next(iter(options))} in the store URL; known: tls, tls_ca"
        )
    if tls not in TLS_MODES:
        raise ConfigError(f"tls in the store URL must be {', '.join(TLS_MODES)}, got {tls!r}")
    if tls_ca and tls != "on":
        raise ConfigError("tls_ca in the store URL needs tls=on")
    return MysqlAddress(
        host=parts.hostname or "",
        port=port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=database,
        tls=tls,
        tls_ca=tls_ca,
    )


def _form() -> str:
    return f"write {FORM}"
