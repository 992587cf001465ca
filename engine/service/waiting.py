"""Which orders wait for their answer now, so that their buyers can be told how long the queue is."""

from __future__ import annotations

from engine.live_stock import LiveStock


class Waiting:
    """Orders by id, each with its buyer and its number in the queue of its SKU."""

    def __init__(self, live: LiveStock) -> None:
        self._live = live
        self._orders: dict[str, tuple[str, str, int]] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def enter(self, id_: str, sku: str, buyer: str) -> None:
        """Note an order right before it is handed over to the engine."""
        arrived, _ = self._live.queue(sku)
        self._orders[id_] = (sku, buyer, arrived + 1)

    def leave(self, id_: str) -> None:
        self._orders.pop(id_, None)

    def buyer(self, id_: str) -> str | None:
        """Whose order that is, None when it does not wait."""
        order = self._orders.get(id_)
        return None if order is None else order[1]

    def position(self, id_: str) -> int | None:
        """Its place in the queue: 1 is next, 0 is being written; None when it does not wait."""
        order = self._orders.get(id_)
        if order is None:
            return None
        sku, _, number = order
        arrived, depth = self._live.queue(sku)
        return max(0, number - (arrived - depth))
