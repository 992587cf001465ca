"""Where the events are kept: the settings `store`, one database or several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from engine.errors import ConfigError

URL: Final = "store.url"
URLS: Final = "store.urls"


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the events are kept.

    `url`: `memory:` (lost at exit, for tests), `sqlite:PATH` or
    `mysql://user:password@host:port/database`. `urls`, in place of it: several of the last kind, over
    which the partitions are spread. `partitions` is fixed when the store is initialised.
    One SQLite file has one writer, so more partitions only split its batches; the default is 1.
    `durability`: `strict` refuses a MySQL or MariaDB server that could lose an acknowledged order
    with its power, `relaxed` takes it; SQLite is always strict.
    """

    url: str = "sqlite:seckill.db"
    urls: tuple[str, ...] = ()
    partitions: Annotated[int, Meta(ge=1, le=1024)] = 1
    durability: Literal["strict", "relaxed"] = "strict"

    @property
    def places(self) -> tuple[str, ...]:
        """The URL of every database in use: `urls`, or `url` alone."""
        return self.urls or (self.url,)

    def __repr__(self) -> str:
        # A URL may hold a password.
        url, urls = hide_password(self.url), tuple(map(hide_password, self.urls))
        return (
            f"StoreSettings(url={url!r}, urls={urls!r}, partitions={self.partitions!r}, "
            f"durability={self.durability!r})"
        )


def hide_password(url: str) -> str:
    """A URL without user and password."""
    return re.sub(r"//.*@", "//...@", url)


def store_keys(urls: Sequence[str] | None) -> dict[str, object]:
    """What names a store of these URLs, as overrides of `load_settings`."""
    if not urls:
        return {}
    return {URL: urls[0]} if len(urls) == 1 else {URLS: tuple(urls)}


def merge(earlier: dict[str, object], later: dict[str, object]) -> dict[str, object]:
    """Both, the later winning; one that names the store in one way takes the other way back.

    Raises ConfigError when `later` names it in both.
    """
    if later.get(URLS) and later.get(URL, StoreSettings().url) != StoreSettings().url:
        raise ConfigError(
            "store.url and store.urls were both given: write one database as store.url, several as "
            "store.urls"
        )
    merged = earlier | later
    if later.get(URLS):
        merged.pop(URL, None)
    elif URL in later:
        merged.pop(URLS, None)
    return merged


def check_urls(urls: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Return the URLs of several databases. Raises ConfigError for one that cannot be."""
    for number, url in enumerate(urls, 1):
        if not url.startswith("mysql://"):
            raise ConfigError(
                f"every one of {name} must be mysql://user:password@host:port/database; "
                f"number {number} is {hide_password(url)!r}"
            )
        if url in urls[: number - 1]:
            raise ConfigError(f"{hide_password(url)!r} stands twice in {name}")
    return urls
