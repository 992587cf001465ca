"""A store is one database or several: named once, checked, and never shown with a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import Settings, check_settings, load_settings
from engine.errors import ConfigError
from engine.store_settings import StoreSettings

A, B = "mysql://u:geheim@a/seckill", "mysql://u:geheim@b/seckill"


@pytest.mark.parametrize("text", [f"{A},{B}", f" {A} , {B} ,", f'["{A}", "{B}"]'])
def test_the_environment_lists_urls_with_commas_or_as_json(text: str) -> None:
    settings = load_settings(None, None, {"SECKILL_STORE__URLS": text})
    assert settings.store.places == settings.store.urls == (A, B)


def test_one_url_is_one_place_however_it_is_given() -> None:
    assert load_settings(None, {"store.url": A}, {}).store.places == (A,)
    assert load_settings(None, {"store.urls": [A]}, {}).store.places == (A,)
    assert load_settings(None, None, {}).store.places == ("sqlite:seckill.db",)


def test_a_later_source_names_the_store_anew(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f'[store]\nurls = ["{A}", "{B}"]\n')
    assert load_settings(path, None, {}).store.places == (A, B)
    assert load_settings(path, {"store.url": "sqlite:x.db"}, {}).store.places == ("sqlite:x.db",)
    environ = {"SECKILL_STORE__URL": A}
    assert load_settings(path, None, environ).store.places == (A,)
    assert load_settings(path, {"store.urls": (B,)}, environ).store.places == (B,)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({"store.url": A, "store.urls": [B]}, "store.url and store.urls were both given"),
        ({"store.urls": [A, "sqlite:x.db"]}, "store.urls must be mysql://user:password@host"),
        ({"store.urls": [A, B, A]}, "stands twice in store.urls"),
        ({"store.urls": A}, "store.urls: Expected `array`, got `str`"),
        ({"store.urls": [A, 5]}, "store.urls: Expected `str`, got `int`"),
    ],
)
def test_what_cannot_be_is_refused_without_a_password(
    store: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, store, {})
    assert message in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_settings_of_a_program_are_checked_too() -> None:
    several = Settings(store=StoreSettings(urls=(A, B), partitions=4))
    assert check_settings(several) == several
    with pytest.raises(ConfigError, match="both given"):
        check_settings(Settings(store=StoreSettings(url=A, urls=(A, B))))


def test_no_password_is_shown() -> None:
    assert "geheim" not in repr(StoreSettings(urls=(A, B)))
