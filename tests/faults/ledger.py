"""What the stored events of a shop say, added up without any code of the engine."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from engine.cqrs.event_store import EventReader

PAGE = 10_000
STARTED, PAID, ENDED = "order-reserved.1", "order-paid.1", ("order-cancelled.1", "order-refused.1")

Row = tuple[str, str, str, str, str, int, int, int]
"""A row of `orders`: SKU, reservation, buyer, state, order, quantity, deadline, when reserved."""


class Ledger:
    """Every hold, order and fault of a store. `wrong` says what must not have happened."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.orders: dict[str, list[str]] = defaultdict(list)
        self.lines: dict[str, dict[str, int]] = {}
        self.due_us: dict[str, int] = {}
        self.sold: Counter[str] = Counter()
        self.wrong: list[str] = []

    @classmethod
    async def read(cls, reader: EventReader) -> Ledger:
        ledger = cls()
        found: list[tuple[int, str, str, bytes]] = []
        for partition in range(reader.partitions):
            after = 0
            while page := await reader.read_partition(partition, after, PAGE):
                after = page[-1].position
                found += [
                    (each.committed_at_us, each.aggregate_type, each.aggregate_id, each.events)
                    for each in page
                ]
        for at_us, kind, name, events in found:
            for event in json.loads(events):
                if kind == "stock":
                    ledger.stock(name, event, at_us)
                else:
                    ledger.order(name, event, at_us)
        ledger.check_orders()
        return ledger

    @property
    def held(self) -> int:
        return sum(row[3] == "held" for row in self.rows.values())

    @property
    def unfinished(self) -> list[str]:
        return [name for name, steps in self.orders.items() if steps[-1] != "order-finished.1"]

    def stock(self, sku: str, event: dict[str, Any], at_us: int) -> None:
        match event["type"]:
            case "reserved.1" | "line-reserved.1":
                key, order = (sku, event["command_id"]), event.get("order_id", "")
                if key in self.rows:
                    self.wrong.append(f"{key} was reserved twice")
                quantity, until_us = event["quantity"], event["held_until_us"]
                self.rows[key] = (
                    *(*key, event["buyer"], "held", order),
                    *(quantity, until_us, at_us),
                )
                self.sold[sku] += quantity
            case "confirmed.1":
                self.end(sku, event, "paid", at_us)
            case "released.1":
                self.end(sku, event, "released", at_us)
            case "hold-extended.1":
                key = (sku, event["reservation_id"])
                row = self.rows[key]
                self.rows[key] = (*row[:6], event["held_until_us"], row[7])

    def end(self, sku: str, event: dict[str, Any], state: str, at_us: int) -> None:
        key = (sku, event["reservation_id"])
        row = self.rows[key]
        if row[3] != "held":
            self.wrong.append(f"{key} was {row[3]} and is {state}")
        if event.get("expired") and at_us < row[6]:
            self.wrong.append(f"{key} was given back before its time")
        self.rows[key] = (*row[:3], state, *row[4:])

    def order(self, name: str, event: dict[str, Any], at_us: int) -> None:
        kind = event["type"]
        if kind == "order-placed.1":
            self.lines[name] = {each["sku"]: each.get("quantity", 1) for each in event["lines"]}
        elif kind == STARTED:
            self.due_us[name] = event["held_until_us"]
        # An order may be cancelled while a line is still being reserved: then it has no time yet.
        elif event.get("expired") and at_us < self.due_us.get(name, 0):
            self.wrong.append(f"order {name} was cancelled before its time")
        self.orders[name].append(kind)

    def check_orders(self) -> None:
        """Each order ended once, and its lines all one way."""
        lines: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows.values():
            if row[4]:
                lines[row[4]].append(row)
        for name, steps in self.orders.items():
            happened = Counter(steps)
            ends = happened[PAID] + sum(happened[each] for each in ENDED)
            if ends > 1 or happened["order-finished.1"] > 1:
                self.wrong.append(f"order {name} ended more than once: {steps}")
            if steps[-1] != "order-finished.1":
                continue
            own = lines.pop(name, [])
            states = {row[3] for row in own}
            if happened[PAID]:
                if states != {"paid"} or {row[0]: row[5] for row in own} != self.lines[name]:
                    self.wrong.append(f"order {name} was paid and its lines are {own}")
            elif "paid" in states:
                self.wrong.append(f"order {name} was given back and a line is paid: {own}")
