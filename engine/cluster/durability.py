"""Whether the brokers keep what they acknowledged when their power fails."""

from __future__ import annotations

import asyncio
import http.client
import logging
import urllib.request
from typing import Any, Final

import msgspec

from engine.cluster_settings import ClusterSettings
from engine.errors import BrokerUnavailable, ConfigError

logger = logging.getLogger(__name__)

ANSWER_SECONDS_MAX: Final = 3.0


class _JetStream(msgspec.Struct, frozen=True):
    config: dict[str, Any] | None = None


class _Varz(msgspec.Struct, frozen=True):
    """What a broker's monitoring says of it."""

    jetstream: _JetStream = _JetStream()


async def check_durability(settings: ClusterSettings) -> None:
    """Raises ConfigError when a broker could lose with its power what it acknowledged.

    BrokerUnavailable when none says anything. A stream that lost its newest messages gives their
    sequences to others, which an owner would take for decided. Asked of the brokers' monitoring; with `relaxed` it only warns.
    """
    wrong = (
        []
        if settings.monitor_urls
        else ["cluster.monitor_urls names none of them, such as http://10.0.0.11:8222"]
    )
    silent: list[str] = []
    for url in settings.monitor_urls:
        try:
            found = await asyncio.to_thread(_read, f"{url.rstrip('/')}/varz")
        except (OSError, http.client.HTTPException, ValueError) as error:
            # It may be the one that is down today; the others are asked as well.
            logger.warning("the monitoring of a broker cannot be read: %s: %r", url, error)
            silent.append(f"{url}: {error!r}")
            continue
        config = found.jetstream.config
        if not config:
            wrong.append(f"the broker at {url} has no JetStream")
        elif not config.get("sync_always"):
            wrong.append(f"the broker at {url} syncs its disk every two minutes or so")
    if settings.durability == "strict" and 0 < len(silent) == len(settings.monitor_urls):
        raise BrokerUnavailable(
            f"no broker of cluster.monitor_urls says how it syncs its disk: {'; '.join(silent)}"
        )
    if not wrong:
        return
    remedy = "every broker needs a jetstream block with `sync_interval: always`"
    if settings.durability == "strict":
        raise ConfigError(f'{"; ".join(wrong)}: {remedy}, or cluster.durability = "relaxed"')
    logger.warning("%s; %s", "; ".join(wrong), remedy)


def _read(url: str) -> _Varz:
    # Past the proxies of the environment: the brokers are of the same network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=ANSWER_SECONDS_MAX) as reply:
        return msgspec.json.decode(reply.read(), type=_Varz)
