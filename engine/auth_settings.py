"""Who may do what: the settings `auth`, and the secrets they name."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from engine.errors import ConfigError

DEFAULT_ADMIN_SECRET: Final = "seckill-local"  # noqa: S105 -- refused where others could use it
SECRET_LENGTH_MIN: Final = 16
"""Characters of a secret that is sent: 64 bits of it even when it is hexadecimal."""
KEY_LENGTH_MIN: Final = 32
"""Characters of a key that signs: 128 bits of it even when it is hexadecimal."""
SECRET_FILE: Final = "file:"  # noqa: S105 -- how one begins that is kept in a file
TOKEN_PREFIX: Final = "v1."  # noqa: S105 -- how a purchase token begins


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may do what; a secret `file:PATH` is read from that file.

    `mode`: `none` lets anybody buy in any name, on a loopback address only unless `allow_open`;
    `token` asks buyers for a purchase token signed with `token_key` (or, while keys are changed,
    `token_key_previous`) and the shop's backend for `shop_secret`. `admin_secret` is asked for on the
    admin listener; its default is refused where that listener is not on a loopback address.
    Keys have 32 characters at least, other secrets 16; all of them are ASCII without spaces, as a
    header takes it.
    """

    mode: Literal["none", "token"] = "none"
    allow_open: bool = False
    token_key: str = ""
    token_key_previous: str = ""
    shop_secret: str = ""
    admin_secret: str = DEFAULT_ADMIN_SECRET

    def __repr__(self) -> str:
        return f"AuthSettings(mode={self.mode!r}, allow_open={self.allow_open!r}, secrets=...)"


SECRETS: Final = {
    "token_key": KEY_LENGTH_MIN,
    "token_key_previous": KEY_LENGTH_MIN,
    "shop_secret": SECRET_LENGTH_MIN,
    "admin_secret": SECRET_LENGTH_MIN,
}
"""How many characters each has at least."""


def check_secrets(auth: AuthSettings) -> AuthSettings:
    """Read what is kept in files, and check everything.

    Raises ConfigError naming the setting; no message holds anything of a secret.
    """
    found: dict[str, str] = {}
    for name, length_min in SECRETS.items():
        secret: str = getattr(auth, name)
        if secret.startswith(SECRET_FILE):
            secret = _read_secret(name, Path(secret.removeprefix(SECRET_FILE)))
        elif secret == getattr(AuthSettings(), name):
            continue
        if len(secret) < length_min:
            raise ConfigError(
                f"setting auth.{name} must have {length_min} characters at least, got {len(secret)}"
            )
        if not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise ConfigError(f"setting auth.{name} must be printable ASCII without spaces")
        if secret.startswith((SECRET_FILE, TOKEN_PREFIX)):
            raise ConfigError(
                f"setting auth.{name}: a secret must not begin with {SECRET_FILE} or {TOKEN_PREFIX}"
            )
        found[name] = secret
    auth = msgspec.structs.replace(auth, **found)
    if auth.mode == "token" and not (auth.token_key or auth.shop_secret):
        raise ConfigError(
            'auth.mode is "token", and nobody could buy: set auth.token_key for buyers with purchase '
            "tokens, auth.shop_secret for the shop's backend, or both"
        )
    if auth.token_key_previous and not auth.token_key:
        raise ConfigError(
            "auth.token_key_previous needs auth.token_key, the key that comes after it"
        )
    return auth


def _read_secret(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        reason = error.strerror
    except ValueError:
        # What is no text, and a path that can be none. Their messages quote what they met.
        reason = "it is not UTF-8 text"
    raise ConfigError(f"setting auth.{name}: cannot read {str(path.absolute())!a}: {reason}")
