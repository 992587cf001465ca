"""What happened to a SKU. Stored for good: a change of shape is a new tag and an upcaster."""

from __future__ import annotations

from engine.cqrs.messages import Event


class SaleOpened(Event, frozen=True, gc=False, tag="sale-opened.1"):
    stock: int
    limit_per_buyer: int


class Reserved(Event, frozen=True, gc=False, tag="reserved.1"):
    """`quantity` units are held for `buyer`; the command id names the reservation."""

    buyer: str
    quantity: int


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
