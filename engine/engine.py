"""What a program sells with: one method for everything one may ask of a sale."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

import msgspec

from engine.clock import Clock
from engine.config import Settings
from engine.cqrs.command_side.port import (
    BrokerState,
    CommandSidePort,
    Publishing,
    ServedPartition,
)
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.event_store import EventReader, StoreInfo
from engine.cqrs.messages import Answer, Command, Event, Outcome, Rejected
from engine.cqrs.send import Send
from engine.errors import DeadlineExceeded, OutcomeUnknown, SeckillError, StoreUnavailable
from engine.inventory.checkout import CHECKOUT
from engine.inventory.commands import (
    CloseSale,
    Confirm,
    ExtendHold,
    OpenSale,
    PauseSale,
    Release,
    Reserve,
    Restock,
    ResumeSale,
    Withdraw,
)
from engine.inventory.events import (
    Confirmed,
    HoldExpired,
    HoldExtended,
    Released,
    Reserved,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)
from engine.inventory.order import ORDER, Order
from engine.inventory.order_messages import (
    CancelOrder,
    Line,
    OrderCancelled,
    OrderPaid,
    OrderPaidTooLate,
    PayOrder,
    PlaceOrder,
)
from engine.inventory.stock import STOCK, Standing
from engine.live_stock import LiveStock, StockRow
from engine.queries import Queries

logger = logging.getLogger(__name__)

ReserveOutcome: TypeAlias = Reserved | Rejected | SeckillError

E_ = TypeVar("E_", bound=Event)


class CommandOutcome(msgspec.Struct, frozen=True):
    """What became of a command.

    executed  it changed something: `events`, and for a Reserve what the reservation is now
    refused   it changed nothing: `rejected`, as far as refusals are remembered
    unknown   it is not known here: sending it is safe, and a refused one is decided anew
    in_doubt  it is not clear yet: ask again, or repeat the command with its id
    """

    status: Literal["executed", "refused", "unknown", "in_doubt"]
    events: tuple[Event, ...] = ()
    rejected: Rejected | None = None
    reservation: Standing | None = None


class Engine:
    """A running flash-sale engine. Made by `open_engine`; use it from one event loop.

    Every method that executes a command raises what `CommandBus.execute` raises. `command_id`
    names the request: repeat it after OutcomeUnknown or a crash to get the first answer. Without
    one a fresh id is drawn; the event in the answer carries it.
    """

    def __init__(
        self,
        store: EventReader,
        command_side: CommandSidePort,
        queries: Queries,
        settings: Settings,
        clock: Clock,
        failed: asyncio.Future[str] | None = None,
    ) -> None:
        """`failed` gets the reason when it can go on no more."""
        self._store = store
        self._failed = failed
        self._command_side = command_side
        self._clock = clock
        self.queries = queries
        self.live = LiveStock(command_side)
        self.settings = settings
        self.execute = command_side.bus.execute
        self.submit = command_side.bus.submit

    @property
    def reader(self) -> EventReader:
        """Everything durable, for audits and queries."""
        return self._store

    @property
    def info(self) -> StoreInfo:
        """Which store this is and how durable it is."""
        return self._store.info

    async def execute_many(
        self, commands: Sequence[Command], *, timeout_ms: int | None = None
    ) -> list[Outcome]:
        """Execute a list of commands; one outcome each, errors standing in the list."""
        return await self._command_side.bus.execute_many(commands, timeout_ms=timeout_ms)

    async def reserve(
        self,
        sku: str,
        *,
        buyer: str,
        quantity: int = 1,
        command_id: str | None = None,
        timeout_ms: int | None = None,
    ) -> Reserved | Rejected:
        """Reserve `quantity` units for `buyer`: all of them or none.

        Rejected reasons: sold_out, over_limit, unknown_sku, paused, closed.
        """
        command = Reserve(_given_or_new(command_id), sku, buyer, quantity)
        return _only(Reserved, await self.execute(command, timeout_ms=timeout_ms))

    async def reserve_many(
        self, orders: Sequence[Reserve], *, timeout_ms: int | None = None
    ) -> list[ReserveOutcome]:
        """Reserve a list of orders and return one outcome each, in their order.

        Orders of one SKU are served in list order; each succeeds or fails alone. Raises
        InvalidCommand, Overloaded and, while it closes, EngineClosed for the whole list: then
        nothing happened.
        """
        outcomes = await self.execute_many(orders, timeout_ms=timeout_ms)
        return [each[0] if type(each) is tuple else each for each in outcomes]  # type: ignore[misc]

    async def confirm(
        self, sku: str, reservation_id: str, *, command_id: str | None = None
    ) -> Confirmed | HoldExpired | Rejected:
        """Say that a reservation was paid; its id is that of the command that reserved.

        HoldExpired: it had been released, so refund the buyer. Rejected reasons: already_paid,
        unknown_reservation, unknown_sku, no_holds.
        """
        command = Confirm(_given_or_new(command_id), sku, reservation_id)
        answer = await self.execute(command)
        if isinstance(answer, Rejected):
            return answer
        event = answer[0]
        assert isinstance(event, Confirmed | HoldExpired)
        return event

    async def release(
        self, sku: str, reservation_id: str, *, if_due: bool = False, command_id: str | None = None
    ) -> Released | Rejected:
        """Give a reservation back, with `if_due` only when its time is up.

        Rejected reasons: not_due, already_paid, already_released, unknown_reservation, unknown_sku,
        no_holds.
        """
        command = Release(_given_or_new(command_id), sku, reservation_id, if_due)
        return _only(Released, await self.execute(command))

    async def extend_hold(
        self, sku: str, reservation_id: str, *, command_id: str | None = None
    ) -> HoldExtended | Rejected:
        """Hold a reservation for the sale's `hold_seconds` from now on; once.

        Rejected reasons: already_extended, already_paid, already_released, unknown_reservation,
        unknown_sku, no_holds.
        """
        command = ExtendHold(_given_or_new(command_id), sku, reservation_id)
        return _only(HoldExtended, await self.execute(command))

    async def place_order(
        self, order_id: str, *, buyer: str, lines: Mapping[str, int], timeout_ms: int = 10_000
    ) -> Order | Rejected:
        """Order several SKUs (`lines`: units by SKU), all of them or none.

        Returns the order: awaiting payment, or refused with `refused` saying why. Repeat it with
        the same id after an error to learn what became of it; it goes on by itself meanwhile.
        Raises CommandIdReused when the id is that of another request, OutcomeUnknown when it takes
        longer than `timeout_ms`, and what `CommandBus.execute` raises.
        """
        units = tuple(Line(sku, quantity) for sku, quantity in lines.items())
        command = PlaceOrder(order_id, order_id, buyer, units)
        answer = await self.execute(command, timeout_ms=timeout_ms)
        if isinstance(answer, Rejected):
            return answer
        # Checkout does the same when it sees the event; here nobody has to wait for that.
        send = Send(self.execute, CHECKOUT.name, (ORDER.name, order_id), 1, self._clock)
        reacting = asyncio.create_task(CHECKOUT.react(order_id, answer[0], send))

        def give_up() -> None:
            reacting.cancel()

        timer = self._clock.call_later(timeout_ms / 1_000, give_up)
        try:
            await asyncio.wait((reacting,))
        finally:
            timer.cancel()
            give_up()
        if reacting.cancelled():
            raise OutcomeUnknown(order_id)
        try:
            await reacting
            order = await self.queries.order(order_id)
        except Exception as error:
            # It is placed by now, and checkout goes on with it or keeps it as a dead letter: an error of
            # a line would say that nothing happened.
            logger.warning("order %s is placed and not decided yet: %r", order_id, error)
            raise OutcomeUnknown(order_id) from error
        assert order is not None, "an order that was placed has events"
        return order

    async def pay_order(
        self, order_id: str, *, command_id: str | None = None
    ) -> OrderPaid | OrderPaidTooLate | Rejected:
        """Say that an order was paid; its lines are confirmed a moment later.

        OrderPaidTooLate: it had ended, so refund the buyer. Rejected reasons: already_paid,
        not_reserved, unknown_order.
        """
        answer = await self.execute(PayOrder(_given_or_new(command_id), order_id))
        if isinstance(answer, Rejected):
            return answer
        event = answer[0]
        assert isinstance(event, OrderPaid | OrderPaidTooLate)
        return event

    async def cancel_order(
        self, order_id: str, *, command_id: str | None = None
    ) -> OrderCancelled | Rejected:
        """Give up an order that was not paid; its lines are given back a moment later.

        Rejected reasons: already_paid, ended, unknown_order.
        """
        command = CancelOrder(_given_or_new(command_id), order_id)
        return _only(OrderCancelled, await self.execute(command))

    async def outcome(
        self, sku: str, command_id: str, *, timeout_ms: int | None = None
    ) -> CommandOutcome:
        """Tell what became of a command, after a timeout or a crash of either side.

        What is queued or being committed is waited for. Raises EngineClosed, PartitionLost,
        AggregateHalted, Overloaded and InvalidCommand: then nothing is known.
        """
        try:
            found = await self._command_side.bus.ask(
                STOCK.name, sku, command_id, timeout_ms=timeout_ms
            )
        except (OutcomeUnknown, DeadlineExceeded, StoreUnavailable):
            return CommandOutcome("in_doubt")
        answer, standing = found.answer, found.standing
        if answer is None:
            return CommandOutcome("unknown")
        if isinstance(answer, Rejected):
            return CommandOutcome("refused", rejected=answer)
        if standing is None and isinstance(answer[0], Reserved):
            standing = Standing("held")
        assert standing is None or isinstance(standing, Standing)
        return CommandOutcome("executed", answer, None, standing)

    async def open_sale(
        self,
        sku: str,
        *,
        stock: int,
        limit_per_buyer: int = 0,
        hold_seconds: int = 0,
        command_id: str | None = None,
    ) -> SaleOpened | Rejected:
        """Put a new SKU on sale. Rejected: already_open.

        `limit_per_buyer` 0 means no limit; `hold_seconds` 0 makes every reservation final.
        """
        command = OpenSale(_given_or_new(command_id), sku, stock, limit_per_buyer, hold_seconds)
        return _only(SaleOpened, await self.execute(command))

    async def restock(
        self, sku: str, *, quantity: int, command_id: str | None = None
    ) -> Restocked | Rejected:
        """Add units. Rejected: unknown_sku, closed, stock_too_large."""
        command = Restock(_given_or_new(command_id), sku, quantity)
        return _only(Restocked, await self.execute(command))

    async def withdraw(
        self, sku: str, *, quantity: int, command_id: str | None = None
    ) -> Withdrawn | Rejected:
        """Take unsold units out. Rejected: unknown_sku, closed, not_enough_left."""
        command = Withdraw(_given_or_new(command_id), sku, quantity)
        return _only(Withdrawn, await self.execute(command))

    async def pause_sale(self, sku: str, *, command_id: str | None = None) -> SalePaused | Rejected:
        """Stop selling until resumed. Rejected: unknown_sku, closed, paused."""
        return _only(SalePaused, await self.execute(PauseSale(_given_or_new(command_id), sku)))

    async def resume_sale(
        self, sku: str, *, command_id: str | None = None
    ) -> SaleResumed | Rejected:
        """Go on selling. Rejected: unknown_sku, closed, not_paused."""
        command = ResumeSale(_given_or_new(command_id), sku)
        return _only(SaleResumed, await self.execute(command))

    async def close_sale(self, sku: str, *, command_id: str | None = None) -> SaleClosed | Rejected:
        """End the sale for good. Rejected: unknown_sku, closed."""
        return _only(SaleClosed, await self.execute(CloseSale(_given_or_new(command_id), sku)))

    async def stock(self, sku: str) -> StockRow | None:
        """Read a SKU's row, or None when no sale of it was ever opened."""
        row = await self._store.read_row("stock", sku)
        return None if row is None else msgspec.convert(row, StockRow)

    def stopped(self) -> list[SeckillError]:
        """Why partitions take no more commands, one reason for each of those; empty when all do."""
        return self._command_side.stopped()

    def served(self) -> list[ServedPartition]:
        """The partitions that take commands now, and who owns them."""
        return self._command_side.served()

    def broker(self) -> BrokerState | None:
        """How the brokers of the cluster are heard; None outside one."""
        return self._command_side.broker()

    def publishing(self) -> list[Publishing]:
        """How far the events of the partitions that this node owns are published for other systems."""
        return self._command_side.publishing()

    async def failed(self) -> str:
        """Wait until this node of a cluster can go on no more, and say why: close it and open another.

        Its partitions are with others then, or stopped. An engine outside a cluster never ends this wait.
        """
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._failed or never)

    def statistics(self) -> Statistics:
        """A snapshot of the counters; the fields and units are documented on the record."""
        return self._command_side.statistics()


def new_command_id() -> str:
    """Draw a command id: 32 hexadecimal digits of a random UUID."""
    return uuid.uuid4().hex


def _given_or_new(command_id: str | None) -> str:
    # An empty id is refused as malformed; replaced by a new one it could never be repeated.
    return new_command_id() if command_id is None else command_id


def _only(kind: type[E_], answer: Answer) -> E_ | Rejected:
    if isinstance(answer, Rejected):
        return answer
    event = answer[0]
    assert isinstance(event, kind), f"expected {kind.__name__}, got {type(event).__name__}"
    return event
