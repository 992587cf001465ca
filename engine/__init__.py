"""seckill: a flash-sale inventory engine. The way of one order, by file name:

engine.reserve(...)                          runtime.py
  command_bus   check, deadline, admit or refuse, route to a partition
  mailbox       one FIFO per SKU
  batch         closes by size | delay | idle
  decide        fold the batch through the aggregate (inventory/stock.py), no I/O
  commit        ONE transaction: fence + events + ONE UPDATE (inventory/stock_table.py)
  publish       only now every buyer is answered
all in cqrs/command_side/, in the order of partition.py; stores/ keep the events.

async with open_engine("configs/embedded.toml") as engine:
    await engine.open_sale("PHONE", stock=500, limit_per_buyer=2)
    outcome = await engine.reserve("PHONE", buyer="alice", quantity=1)
"""

from __future__ import annotations

from engine.config import Settings, load_settings
from engine.cqrs.aggregate import AggregateType, InlineProjection, Registry
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.messages import Command, Event, Rejected
from engine.engine import Engine
from engine.errors import (
    AggregateHalted,
    CommandFailed,
    CommandIdReused,
    ConfigError,
    DeadlineExceeded,
    EngineClosed,
    InvalidCommand,
    OutcomeUnknown,
    Overloaded,
    PartitionLost,
    SchemaMismatch,
    SeckillError,
    StoreError,
    StoreLocked,
    StoreUnavailable,
)
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.live_stock import StockRow
from engine.runtime import open_engine, open_read_models, open_reader, tune_garbage_collector

__all__ = [
    "AggregateHalted",
    "AggregateType",
    "Command",
    "CommandFailed",
    "CommandIdReused",
    "ConfigError",
    "DeadlineExceeded",
    "Engine",
    "EngineClosed",
    "Event",
    "InlineProjection",
    "InvalidCommand",
    "OutcomeUnknown",
    "Overloaded",
    "PartitionLost",
    "Registry",
    "Rejected",
    "Reserve",
    "Reserved",
    "SchemaMismatch",
    "SeckillError",
    "Settings",
    "Statistics",
    "StockRow",
    "StoreError",
    "StoreLocked",
    "StoreUnavailable",
    "load_settings",
    "open_engine",
    "open_read_models",
    "open_reader",
    "tune_garbage_collector",
]
