"""What a load test is aimed at: a server of its own, or one that is running.

Both are asked in the same way: a sale is opened, the crowd comes, and the store is audited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from engine.config import Settings, flatten
from engine.cqrs.event_store import StoreInfo
from engine.errors import ConfigError, StoreUnavailable
from engine.inventory.audit import AuditReport
from loadtest.http_processes import order_server
from loadtest.reconcile import Check
from loadtest.sale import Sale
from loadtest.shop_client import About, BatchCounters, ShopClient
from loadtest.swarm.books import Outcomes
from loadtest.wrong import WrongAnswer


class ShopBooks(msgspec.Struct, frozen=True):
    """What the shop gained during the sale: reservations, their units, and those paid for."""

    report: AuditReport
    reservations: int
    units: int
    paid_units: int


class Target:
    """A shop. `before` is what was in it already, None of an empty one."""

    def __init__(self, client: ShopClient, about: About, before: AuditReport | None) -> None:
        self.client = client
        self.about = about
        self._before = before

    @property
    def info(self) -> StoreInfo:
        store = self.about.store
        return StoreInfo(store.kind, store.version, store.durability, "")

    async def batches(self) -> BatchCounters:
        return await asyncio.to_thread(self.client.batches)

    async def audit(self) -> ShopBooks:
        """Of a server that goes on."""
        return self.books(await asyncio.to_thread(self.client.audit))

    def books(self, report: AuditReport) -> ShopBooks:
        """What `report` has more than there was before."""
        before = self._before
        return ShopBooks(
            report,
            report.reservations - (before.reservations if before else 0),
            _units(report) - (_units(before) if before else 0),
            report.units.paid - (before.units.paid if before else 0),
        )


def _units(report: AuditReport) -> int:
    """Units that were ever reserved."""
    units = report.units
    return units.final + units.paid + units.held + units.given_back


@asynccontextmanager
async def own_server(settings: Settings, directory: Path) -> AsyncIterator[Target]:
    """A server process on the store of `settings`, which is empty.

    Raises ConfigError when it does not start with them.
    """
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(order_server(directory, flatten(settings)))
        except WrongAnswer as error:
            raise ConfigError(str(error)) from None
        assert server.admin is not None
        admin_url = f"http://{server.admin[0]}:{server.admin[1]}"
        client = ShopClient(server.url, admin_url, settings.auth.admin_secret)
        yield Target(client, await asyncio.to_thread(client.about), None)


async def running_server(client: ShopClient) -> Target:
    """A server that is there already. Raises ConfigError when it is not."""
    try:
        about = await asyncio.to_thread(client.about)
    except StoreUnavailable as error:
        raise ConfigError(f"--host {error}; is `seckill serve` running there?") from None
    return Target(client, about, await asyncio.to_thread(client.audit))


async def open_sales(target: Target, sale: Sale, sku_prefix: str) -> None:
    """Put the SKUs of the sale on sale. Raises ConfigError when one is there already."""
    client, names = target.client, sale.sku_names(sku_prefix)
    for sku in names:
        if await asyncio.to_thread(client.is_on_sale, sku):
            raise ConfigError(
                f"{sku} is there already; a load test sells SKUs of its own, so that every unit can be "
                "accounted for: give another --sku-prefix"
            )
    for sku in names:
        await asyncio.to_thread(
            client.open_sale, sku, sale.stock, sale.limit_per_buyer, sale.hold_seconds
        )


def reconcile_shop(found: Outcomes, shop: ShopBooks) -> list[Check]:
    """Compare what the buyers know with what the shop has.

    Whose answer is in doubt may have been sold to or not; without such, figures must be equal.
    """
    pairs = [
        (
            "the buyers' accepted orders are stored",
            "orders",
            found.accepted,
            found.unknown,
            shop.reservations,
        ),
        ("the buyers' units are reserved", "units", found.units, found.unknown_units, shop.units),
        (
            "what the buyers paid for is paid",
            "units",
            found.paid_units,
            found.pay_unknown_units,
            shop.paid_units,
        ),
    ]
    return [
        Check(
            name,
            unit,
            sure <= stored <= sure + doubt,
            stored,
            f"buyers {sure:,}{f' and {doubt:,} in doubt' if doubt else ''}, shop {stored:,}"
            + ("; did others buy there as well?" if stored > sure + doubt else ""),
        )
        for name, unit, sure, doubt, stored in pairs
    ]
