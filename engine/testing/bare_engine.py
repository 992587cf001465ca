"""An engine on a command side that a test opened itself, such as one whose store fails."""

from __future__ import annotations

from engine.clock import Clock
from engine.config import Settings
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.event_store import EventStore
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.subscription import Feed
from engine.engine import Engine
from engine.inventory.sale import sale_registry
from engine.queries import Queries


def bare_engine(store: EventStore, side: CommandSide, settings: Settings, clock: Clock) -> Engine:
    """It keeps no read models and runs no managers."""
    query_side = QuerySide(store, sale_registry(), {}, Feed(), clock)
    return Engine(store, side, Queries(store, query_side, {}), settings, clock)
