"""Secrets come from the environment or from files, are long enough, and are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.auth_settings import SECRETS, AuthSettings
from engine.config import Settings, check_settings, load_settings
from engine.errors import ConfigError
from engine.store_settings import StoreSettings

GOOD = "canary-0123456789-abcdefghijklmnop"


def load(**auth: object) -> AuthSettings:
    return load_settings(None, {f"auth.{name}": value for name, value in auth.items()}, {}).auth


def refusal(**auth: object) -> str:
    """What is said to settings that are refused; it must not hold a secret."""
    with pytest.raises(ConfigError) as caught:
        load(**auth)
    message = str(caught.value)
    assert "canary" not in message
    assert caught.value.__cause__ is None
    return message


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_read_from_its_file_without_the_newline_of_an_editor(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "secret"
    path.write_text(GOOD + "\n")
    needed = {} if name == "token_key" else {"token_key": "k" * 32}
    assert getattr(load(**{name: f"file:{path}"}, **needed), name) == GOOD


def test_a_secret_of_a_file_is_there_when_the_settings_are_checked_once_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "secret"
    path.write_text(GOOD)
    settings = load_settings(None, {"auth.admin_secret": f"file:{path}"}, {})
    path.unlink()
    assert check_settings(settings).auth.admin_secret == GOOD


def test_a_file_that_is_not_there_or_no_text_is_named_but_not_quoted(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert refusal(admin_secret=f"file:{missing}") == (
        f"setting auth.admin_secret: cannot read '{missing}': No such file or directory"
    )
    assert refusal(admin_secret=f"file:{tmp_path}").endswith("Is a directory")
    binary = tmp_path / "binary"
    binary.write_bytes(b"canary-0123456789\xff")
    assert refusal(shop_secret=f"file:{binary}") == (
        f"setting auth.shop_secret: cannot read '{binary}': it is not UTF-8 text"
    )
    assert "cannot read" in refusal(shop_secret="file:\0")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    # An empty key must not silently mean that there is none.
    assert refusal(token_key=f"file:{empty}") == (
        "setting auth.token_key must have 32 characters at least, got 0"
    )


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_one_character_too_short_is_refused_and_one_of_the_length_is_taken(
    name: str,
) -> None:
    least = SECRETS[name]
    assert least == (32 if name.startswith("token_key") else 16)
    needed = {} if name == "token_key" else {"token_key": "k" * 32}
    secret = GOOD[: least - 1]
    assert refusal(**{name: secret}, **needed) == (
        f"setting auth.{name} must have {least} characters at least, got {least - 1}"
    )
    assert getattr(load(**{name: GOOD[:least]}, **needed), name) == GOOD[:least]


@pytest.mark.parametrize("secret", ["", "seckill-loca", "seckill-local "])
def test_an_admin_secret_is_the_default_or_long_enough(secret: str) -> None:
    assert "must have 16 characters at least" in refusal(admin_secret=secret)
    assert load().admin_secret == "seckill-local"


@pytest.mark.parametrize("begin", ["canary \u00e9", "canary with spaces ", "canary\n"])
def test_a_secret_that_no_header_can_carry_is_refused(begin: str) -> None:
    assert refusal(shop_secret=begin + "x" * 32) == (
        "setting auth.shop_secret must be printable ASCII without spaces"
    )


def test_a_secret_that_would_be_taken_for_a_token_or_a_path_is_refused(tmp_path: Path) -> None:
    assert "must not begin with file: or v1." in refusal(shop_secret="v1." + GOOD)
    path = tmp_path / "secret"
    path.write_text("file:" + GOOD)
    assert "must not begin with file: or v1." in refusal(shop_secret=f"file:{path}")


def test_token_mode_without_a_key_or_the_shops_secret_is_refused() -> None:
    assert 'auth.mode is "token", and nobody could buy' in refusal(mode="token")
    assert load(mode="token", token_key=GOOD).mode == "token"
    assert load(mode="token", shop_secret=GOOD).mode == "token"


def test_a_previous_key_needs_the_key_that_comes_after_it() -> None:
    assert refusal(token_key_previous=GOOD) == (
        "auth.token_key_previous needs auth.token_key, the key that comes after it"
    )


def test_the_environment_names_secrets(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(GOOD)
    environ = {"SECKILL_AUTH__ADMIN_SECRET": GOOD, "SECKILL_AUTH__TOKEN_KEY": f"file:{path}"}
    auth = load_settings(None, None, environ).auth
    assert (auth.admin_secret, auth.token_key) == (GOOD, GOOD)


def test_no_config_error_about_auth_quotes_what_was_given(tmp_path: Path) -> None:
    assert "Expected `str`, got `int`" in refusal(admin_secret=1234567890)
    refusal(mode=["canary"])
    refusal(allow_open="canary")
    path = tmp_path / "settings.toml"
    for line in ('admin_secrets = "canary"', 'admin_secret = ["canary"]', "admin_secret = canary"):
        path.write_text(f"[auth]\n{line}\n")
        with pytest.raises(ConfigError) as caught:
            load_settings(path, None, {})
        assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_settings(None, None, {"SECKILL_AUTH__ALLOW_OPEN": "canary"})
    assert "canary" not in str(caught.value)


def test_what_settings_look_like_shows_no_secret() -> None:
    auth = AuthSettings("token", token_key=GOOD, token_key_previous=GOOD, shop_secret=GOOD)
    settings = Settings(StoreSettings("mysql://user:canary@127.0.0.1:3306/db"), auth=auth)
    shown = f"{settings!r} {settings} {settings.auth!r} {settings.store!r}"
    assert "canary" not in shown
    assert "user" not in shown
    assert "mysql://...@127.0.0.1:3306/db" in shown
    assert "seckill-local" not in shown
