"""`seckill serve` as the terminal sees it: flags to settings, and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.config import Settings, load_settings
from engine.event_loop import run_async
from engine.runtime import tune_garbage_collector
from engine.service.logs import set_up_logging
from engine.service.serve import serve, takes_buyers
from engine.service.service import Urls
from engine.store_settings import store_keys
from engine.terminal import printing


class ServeFlags(msgspec.Struct, frozen=True):
    """What was asked for; None leaves it to the config."""

    config: Path | None
    store_url: Sequence[str] | None
    host: str | None
    port: int | None
    admin_port: int | None
    batch_size: int | None
    batch_delay_ms: float | None
    log_level: str | None
    role: str | None = None


KEYS = {
    "host": "service.host",
    "port": "service.port",
    "admin_port": "service.admin_port",
    "batch_size": "batch.size_max",
    "batch_delay_ms": "batch.delay_ms_max",
    "log_level": "service.log_level",
    "role": "cluster.role",
}


def run_service(flags: ServeFlags) -> None:
    """Serve until told to stop. Raises what `serve` raises."""
    given = {key: getattr(flags, name) for name, key in KEYS.items()}
    given = {key: value for key, value in given.items() if value is not None}
    settings = load_settings(flags.config, given | store_keys(flags.store_url))
    set_up_logging(settings.service)
    tune_garbage_collector()
    run_async(serve(settings, lambda urls: _print_where(settings, urls)))


def _print_where(settings: Settings, urls: Urls) -> None:
    default = settings.auth.admin_secret == DEFAULT_ADMIN_SECRET
    secret = f"the default one, {DEFAULT_ADMIN_SECRET}" if default else "the one you have set"
    page = "the page /, " if settings.service.public_dashboard else ""
    with printing() as console:
        buyers = f"Buyers    {urls.public}      {page}the API /v1 (described by /v1/openapi.json)"
        cluster = settings.cluster
        for line in (
            *((buyers,) if takes_buyers(settings) else ()),
            *((f"Cluster   role {cluster.role}, {cluster.prefix}",) if cluster.servers else ()),
            f"Operator  {urls.admin}      the page with controls, /metrics; secret: {secret}",
            f"Store     {', '.join(each.split('@')[-1] for each in settings.store.places)}",
            "Ctrl-C stops taking orders, answers those that were taken, and closes.",
        ):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
