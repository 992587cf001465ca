"""The stored events of a SKU, described a second time for the audit.

Nothing here is shared with `events.py` or the codec. Change both when the stored format changes.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Units: TypeAlias = Annotated[int, Meta(ge=1)]
NotNegative: TypeAlias = Annotated[int, Meta(ge=0)]


class SaleEvent(msgspec.Struct, tag_field="type", gc=False):
    command_id: str


class Opened(SaleEvent, tag="sale-opened.1"):
    stock: NotNegative
    limit_per_buyer: NotNegative
    hold_seconds: NotNegative = 0


class Sold(SaleEvent, tag="reserved.1"):
    buyer: str
    quantity: Units
    held_until_us: NotNegative = 0


class SoldLine(Sold, tag="line-reserved.1", kw_only=True):
    order_id: str


class Paid(SaleEvent, tag="confirmed.1"):
    reservation_id: str
    quantity: Units


class GivenBack(SaleEvent, tag="released.1"):
    reservation_id: str
    quantity: Units
    expired: bool


class Extended(SaleEvent, tag="hold-extended.1"):
    reservation_id: str
    held_until_us: NotNegative


class PaidTooLate(SaleEvent, tag="hold-expired.1"):
    reservation_id: str


class Added(SaleEvent, tag="restocked.1"):
    quantity: Units


class Removed(SaleEvent, tag="withdrawn.1"):
    quantity: Units


class Paused(SaleEvent, tag="sale-paused.1"):
    pass


class Resumed(SaleEvent, tag="sale-resumed.1"):
    pass


class Closed(SaleEvent, tag="sale-closed.1"):
    pass


class Refused(SaleEvent, tag="refusals-counted.1"):
    sold_out: NotNegative = 0
    over_limit: NotNegative = 0
    paused: NotNegative = 0
    closed: NotNegative = 0


AnySaleEvent: TypeAlias = (
    Opened
    | Sold
    | SoldLine
    | Paid
    | GivenBack
    | Extended
    | PaidTooLate
    | Added
    | Removed
    | Paused
    | Resumed
    | Closed
    | Refused
)
