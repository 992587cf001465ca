"""The gate in memory keeps the contract; its buyers do not pile up."""

from __future__ import annotations

import pytest

from engine.config import GateSettings
from engine.gate import memory
from engine.gate.memory import MemoryGate
from engine.testing.gate_contract import GateContract, order
from engine.testing.virtual_clock import VirtualClock


class TestMemoryGate(GateContract):
    async def open_gate(self, settings: GateSettings) -> MemoryGate:
        self.clock = VirtualClock()
        return MemoryGate(settings, self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


async def test_rested_buyers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BUYERS_TIDIED_MIN", 10)
    clock = VirtualClock()
    gate = MemoryGate(GateSettings(orders_per_second_max=1, orders_burst_max=1), clock)
    for n in range(100):
        await gate.check([order("PHONE", f"buyer-{n}")])
        clock.advance(0.5)
        assert len(gate._arrivals_us) <= 11
    assert [each.kind for each in await gate.check([order("PHONE", "buyer-99")])] == ["too_fast"]
