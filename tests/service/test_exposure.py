"""What others than this machine could reach is refused unless it is safe."""

from __future__ import annotations

import pytest

from engine.config import Settings, load_settings
from engine.errors import ConfigError
from engine.service.exposure import check_exposure, is_loopback

SECRET = "a-secret-of-the-operators-own"


def settings(**overrides: object) -> Settings:
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(None, changes, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_a_loopback_address_the_defaults_are_good(host: str) -> None:
    assert is_loopback(host)
    check_exposure(settings(service__host=host, service__admin_host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.5", "example.org", "localhost.evil"])
def test_elsewhere_nobody_may_buy_in_any_name(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError) as caught:
        check_exposure(settings(service__host=host))
    assert str(caught.value) == (
        f'auth.mode is "none", so anybody who reaches {host} could buy in any name: set auth.mode to '
        '"token", or auth.allow_open to true where the network keeps others out'
    )
    check_exposure(settings(service__host=host, auth__allow_open=True))
    check_exposure(settings(service__host=host, auth__mode="token", auth__shop_secret=SECRET))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.5", "example.org"])
def test_elsewhere_the_operator_has_a_secret_of_their_own(host: str) -> None:
    for more in ({}, {"auth__allow_open": True}):
        with pytest.raises(ConfigError) as caught:
            check_exposure(settings(service__admin_host=host, **more))
        assert str(caught.value) == (
            f"auth.admin_secret is the default, and {host} can be reached from elsewhere: set a secret "
            "of your own (SECKILL_AUTH__ADMIN_SECRET, or file:PATH)"
        )
    check_exposure(settings(service__admin_host=host, auth__admin_secret=SECRET))
