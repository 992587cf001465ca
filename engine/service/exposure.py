"""What may be left open: only what nobody but this machine's user can reach."""

from __future__ import annotations

import ipaddress

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.config import Settings
from engine.errors import ConfigError


def check_exposure(settings: Settings) -> None:
    """Raise ConfigError for listeners that clash, or when others than this machine could do what only
    its user may."""
    service, auth = settings.service, settings.auth
    if service.port and service.port == service.admin_port and service.host == service.admin_host:
        raise ConfigError(
            f"service.port and service.admin_port are both {service.port}: buyers and the operator "
            "come in at ports of their own; choose another one, or 0 for one that is free"
        )
    if auth.mode == "none" and not auth.allow_open and not is_loopback(service.host):
        raise ConfigError(
            f'auth.mode is "none", so anybody who reaches {service.host} could buy in any name: set '
            'auth.mode to "token", or auth.allow_open to true where the network keeps others out'
        )
    if auth.admin_secret == DEFAULT_ADMIN_SECRET and not is_loopback(service.admin_host):
        raise ConfigError(
            f"auth.admin_secret is the default, and {service.admin_host} can be reached from "
            "elsewhere: set a secret of your own (SECKILL_AUTH__ADMIN_SECRET, or file:PATH)"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of names only `localhost` is taken for one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
