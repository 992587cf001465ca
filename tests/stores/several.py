"""Several databases of one store, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from engine.cqrs.event_store import Table
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.layout import Layout
from engine.stores.mysql_places import initialise_several
from engine.stores.mysql_url import MysqlAddress
from engine.stores.spread import SpreadStore
from engine.testing.store_contract import TABLES


async def open_spread(
    addresses: Sequence[MysqlAddress],
    partitions: int,
    tables: tuple[Table, ...] = TABLES,
    failpoint: Failpoint = no_failpoint,
) -> SpreadStore:
    """Make the databases one store, if they are not, and open it."""
    await initialise_several(addresses, Layout(partitions, tables))
    return await SpreadStore.open(
        addresses, partitions=partitions, tables=tables, failpoint=failpoint
    )
