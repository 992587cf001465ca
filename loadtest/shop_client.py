"""A few requests to a running service, one after the other: what a load test asks besides orders."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from types import MappingProxyType
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from engine.cqrs.command_side.batch import CloseReason
from engine.errors import ConfigError, StoreUnavailable
from engine.inventory.audit import AuditReport
from loadtest.results import Batches
from loadtest.settings import LIMITS

SECONDS_MAX: Final = 15.0
AUDIT_SECONDS_MAX: Final = 600.0
"""The audit replays every event there is."""


SIZE_MAX: Final = LIMITS["batch_size"][1]
"""What no batch is above: the bound of the bucket that has none."""

REPLY_BYTES_MAX: Final = 16_000_000


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the operator's secret to whoever it names."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
"""Straight to the server, as the crowd goes: a proxy of the environment is for other places."""


class StoreAbout(msgspec.Struct):
    kind: str
    version: str
    durability: str


class About(msgspec.Struct):
    """GET /v1/about."""

    version: str
    store: StoreAbout
    auth: str
    admin_url: str | None = None


class BatchCounters(msgspec.Struct, frozen=True):
    """What /metrics says of batches; `by_size` counts batches up to each bound, as a sum."""

    closed_by: dict[CloseReason, int]
    by_size: dict[float, int]
    commands: int
    transactions: int


class ShopClient:
    """The service at `url`, its operator's listener at `admin_url`.

    Methods raise ConfigError when the server says no to what was asked, StoreUnavailable when it
    cannot be reached.
    """

    def __init__(self, url: str, admin_url: str | None, admin_secret: str) -> None:
        self.url = check_url("--host", url)
        self.admin_url = check_url("--admin-url", admin_url) if admin_url else None
        self._secret = admin_secret

    def about(self) -> About:
        """Also learns where the operator's listener is, unless it was named."""
        about: About = self._ask("GET", f"{self.url}/v1/about", About)
        if self.admin_url is None and about.admin_url is not None:
            told = check_url("the operator's URL that the server tells", about.admin_url)
            if urlsplit(told).hostname != urlsplit(self.url).hostname:
                raise ConfigError(
                    f"{self.url} says that its operator's listener is on another host; name it by "
                    "--admin-url if the secret may go there"
                )
            self.admin_url = told
        return about

    def open_sale(self, sku: str, stock: int, limit_per_buyer: int, hold_seconds: int) -> None:
        """Put a SKU on sale."""
        body = {"stock": stock, "limit_per_buyer": limit_per_buyer, "hold_seconds": hold_seconds}
        self._admin("POST", f"/v1/admin/skus/{quote(sku, safe='')}/open", Any, body)

    def is_on_sale(self, sku: str) -> bool:
        """Whether the server knows the SKU, in whatever phase."""
        try:
            self._ask("GET", f"{self.url}/v1/skus/{quote(sku, safe='')}", Any)
        except _Status as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    def audit(self) -> AuditReport:
        """What the operator's audit finds now."""
        report: AuditReport = self._admin(
            "POST", "/v1/admin/audit", AuditReport, {}, AUDIT_SECONDS_MAX
        )
        return report

    def batches(self) -> BatchCounters:
        """The counters so far."""
        text = self._admin("GET", "/metrics", None).decode(errors="replace")
        closed: dict[CloseReason, int] = {}
        by_size: dict[float, int] = {}
        commands = transactions = 0
        for family in text_string_to_metric_families(text):
            for each in family.samples:
                match each.name:
                    case "seckill_batches_total":
                        closed[cast("CloseReason", each.labels["closed_by"])] = int(each.value)
                    case "seckill_batch_size_bucket":
                        by_size[float(each.labels["le"])] = int(each.value)
                    case "seckill_batch_size_sum":
                        commands = int(each.value)
                    case "seckill_transactions_total":
                        transactions = int(each.value)
        return BatchCounters(closed, by_size, commands, transactions)

    def _admin(
        self, method: str, path: str, kind: Any, body: Any = None, seconds_max: float = SECONDS_MAX
    ) -> Any:
        if self.admin_url is None:
            raise ConfigError(
                f"{self.url} does not tell where its operator's listener is: give --admin-url, and the "
                "secret as SECKILL_AUTH__ADMIN_SECRET; the audit is asked for there"
            )
        secret = {"Authorization": f"Bearer {self._secret}"}
        try:
            return self._ask(method, f"{self.admin_url}{path}", kind, body, seconds_max, secret)
        except _Status as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
            raise ConfigError(
                f"{self.admin_url} does not take this secret; set SECKILL_AUTH__ADMIN_SECRET to the "
                "auth.admin_secret of that server"
            ) from None

    def _ask(
        self,
        method: str,
        url: str,
        kind: Any,
        body: Any = None,
        seconds_max: float = SECONDS_MAX,
        secret: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        headers = {"Content-Type": "application/json", **secret}
        data = None if body is None else msgspec.json.encode(body)
        # The scheme was checked to be http or https.
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
        try:
            with _OPENER.open(request, timeout=seconds_max) as reply:
                found = reply.read(REPLY_BYTES_MAX)
        except urllib.error.HTTPError as error:
            raise _Status(url, error.code, error.read()) from None
        except (OSError, HTTPException, ValueError) as error:
            why = getattr(error, "reason", None) or f"{type(error).__name__} {error}"
            raise StoreUnavailable(f"{url} cannot be reached: {why}") from None
        try:
            return found if kind is None else msgspec.json.decode(found, type=kind)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{url} does not answer as `seckill serve` does: {error}") from None


class _Status(ConfigError):
    def __init__(self, url: str, status: int, body: bytes) -> None:
        text = body[:200].decode(errors="replace")
        super().__init__(f"{urlsplit(url).path} answered {status}: {text}")
        self.status = status


def check_url(flag: str, url: str) -> str:
    """The URL without a slash at its end. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, good = urlsplit(""), False
    if not good or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in url:
        # Not shown: it may have a password in it.
        raise ConfigError(
            f"{flag} must be like http://127.0.0.1:8080, without a user, a password or a path"
        )
    return url.rstrip("/")


def batches_between(before: BatchCounters, after: BatchCounters) -> Batches:
    """How the commands between two readings were grouped; sizes as upper bounds of their buckets."""
    counts: dict[int, int] = {}
    seen = 0
    for bound in sorted(after.by_size):
        total = after.by_size[bound] - before.by_size.get(bound, 0)
        if total > seen:
            counts[int(min(bound, SIZE_MAX))] = total - seen
        seen = total
    count = sum(number - before.closed_by.get(why, 0) for why, number in after.closed_by.items())
    middle = upto = 0
    for bound, times in counts.items():
        upto += times
        if 2 * upto >= sum(counts.values()):
            middle = bound
            break
    commands = after.commands - before.commands
    return Batches(
        count=count,
        size_mean=round(commands / count, 2) if count else 0.0,
        size_p50=middle,
        size_max=max(counts, default=0),
        closed_by={
            why: more
            for why, number in after.closed_by.items()
            if (more := number - before.closed_by.get(why, 0))
        },
        transactions=after.transactions - before.transactions,
        by_size=counts,
    )
