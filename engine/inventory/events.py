"""What happened to a SKU. Stored for good: a change of shape is a new tag and an upcaster."""

from __future__ import annotations

from engine.cqrs.messages import Event


class SaleOpened(Event, frozen=True, gc=False, tag="sale-opened.1", omit_defaults=True):
    """`hold_seconds` 0: a reservation is final, nobody confirms or releases it."""

    stock: int
    limit_per_buyer: int
    hold_seconds: int = 0


class Reserved(Event, frozen=True, gc=False, tag="reserved.1", omit_defaults=True):
    """`quantity` units are held for `buyer`; the command id names the reservation.

    They are held until `held_until_us` (microseconds since 1970 UTC) at least; 0 is for good.
    """

    buyer: str
    quantity: int
    held_until_us: int = 0


class LineReserved(Reserved, frozen=True, gc=False, tag="line-reserved.1", kw_only=True):
    """A line of the order `order_id` is reserved; only that order confirms or releases it."""

    order_id: str


class HoldExtended(Event, frozen=True, gc=False, tag="hold-extended.1"):
    """A buyer has until `held_until_us` now. It happens once to a reservation at most."""

    reservation_id: str
    held_until_us: int


class Confirmed(Event, frozen=True, gc=False, tag="confirmed.1"):
    """A reservation was paid: its units are the buyer's."""

    reservation_id: str
    quantity: int


class Released(Event, frozen=True, gc=False, tag="released.1"):
    """A reservation was given back, because its time was up when `expired`; its units are for sale."""

    reservation_id: str
    quantity: int
    expired: bool


class HoldExpired(Event, frozen=True, gc=False, tag="hold-expired.1"):
    """A payment came for a reservation that had been released: refund it."""

    reservation_id: str


class RefusalsCounted(Event, frozen=True, gc=False, tag="refusals-counted.1", omit_defaults=True):
    """So many orders were refused since the last count, by reason. It changes nothing."""

    sold_out: int = 0
    over_limit: int = 0
    paused: int = 0
    closed: int = 0


class Restocked(Event, frozen=True, gc=False, tag="restocked.1"):
    quantity: int


class Withdrawn(Event, frozen=True, gc=False, tag="withdrawn.1"):
    quantity: int


class SalePaused(Event, frozen=True, gc=False, tag="sale-paused.1"):
    pass


class SaleResumed(Event, frozen=True, gc=False, tag="sale-resumed.1"):
    pass


class SaleClosed(Event, frozen=True, gc=False, tag="sale-closed.1"):
    pass
