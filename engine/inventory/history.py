"""The client's own record of a run: what it asked before it asked, what it was told after.

JSON Lines. One order leaves

    {"op":"invoke","id":"7-1f","sku":"PHONE","buyer":"b31","quantity":1,"at_us":81204}
    {"op":"ok","id":"7-1f","at_us":81911,"buyer":"b31","quantity":1}

where the second line is `ok` (acknowledged, with what the answer said), `rejected` (refused, with
the reason), `unknown` (may or may not be done) or `failed` (certainly not done, with the error). An
order without a second line was in flight when the client died, which is `unknown` too. Times are
microseconds of the client's monotonic clock.

Nothing is buffered in the process: a line is with the operating system before the order is sent,
so a kill -9 of the client loses none (a power cut may: the file is not synced). A line counts when
its newline was written; the half line that a killed client can leave behind says nothing, because
its order was not sent yet, or not told anybody.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from engine.clock import Clock, SystemClock
from engine.cqrs.messages import Outcome, Rejected
from engine.errors import (
    CommandIdReused,
    CommitOutcomeUnknown,
    ConfigError,
    OutcomeUnknown,
    SeckillError,
    StoreError,
)
from engine.inventory.history_lines import (
    HEADER_LINE,
    AnswerLine,
    Failed,
    Header,
    Invoke,
    Ok,
    Refused,
    Unknown,
    check_header,
    decode_line,
    encode_lines,
)

if TYPE_CHECKING:
    # The audit reads histories and must not load the code that it audits.
    from engine.inventory.commands import Reserve
    from engine.inventory.events import Reserved

TAIL_BYTES: Final = 1 << 16
"""How much is read at once when looking back for the last newline."""

OPEN_ERRORS: Final = (OutcomeUnknown, CommitOutcomeUnknown, StoreError, SeckillError)
"""Errors after which an order may be done or not; of the bare base classes nobody promised more."""

OrderAnswer: TypeAlias = Literal["ok", "rejected", "unknown", "failed"]


class HistoryWriter:
    """Appends to a history; the lines of earlier runs stay. Use it from one thread.

    Every method that writes raises SeckillError when the disk does not take it. What was written
    before stays whole.
    """

    def __init__(self, path: str | Path, clock: Clock | None = None) -> None:
        """Raise ConfigError when the file cannot be written, is in use or is no history."""
        self._path = path
        self._clock = clock or SystemClock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write history {path}: {error.strerror}") from None
        try:
            self._lock()
            self._size = self._drop_half_line()
            if not self._size:
                self._write(HEADER_LINE)
        except BaseException:
            self.close()
            raise

    def invoke(self, orders: Sequence[Reserve]) -> None:
        """Note orders, in one block, before they are sent."""
        at_us = self._now_us()
        self._write(
            encode_lines(
                [
                    Invoke(each.id, each.aggregate_id, each.buyer, each.quantity, at_us)
                    for each in orders
                ]
            )
        )

    def answered(self, command_id: str, outcome: Reserved | Outcome) -> None:
        """Note what one order was told: its event (or the tuple of it), a refusal, an error."""
        self._write(encode_lines([_answer(command_id, outcome, self._now_us())]))

    def answered_many(self, answers: Iterable[tuple[str, Reserved | Outcome]]) -> None:
        """Note what several orders were told, as (command id, outcome), in one block."""
        at_us = self._now_us()
        self._write(encode_lines([_answer(*each, at_us) for each in answers]))

    def close(self) -> None:
        """Give the file back. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _now_us(self) -> int:
        return int(self._clock.monotonic() * 1_000_000)

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise ConfigError(f"history {self._path} is no ordinary file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"history {self._path} is being written by another run") from None
        except OSError as error:
            raise ConfigError(f"cannot lock history {self._path}: {error.strerror}") from None

    def _drop_half_line(self) -> int:
        """Cut off what a killed run left after its last newline; return the size then."""
        start = os.pread(self._file, len(HEADER_LINE), 0)
        if not HEADER_LINE.startswith(start):
            with Path(self._path).open("rb") as file:
                check_header(self._path, file.readline(TAIL_BYTES))
        size = os.fstat(self._file).st_size
        whole = _end_of_last_line(self._file, size)
        if whole < size:
            os.ftruncate(self._file, whole)
        return whole

    def _write(self, data: bytes) -> None:
        if self._file < 0:
            raise SeckillError(f"history {self._path} is closed")
        size = self._size
        try:
            while data:
                written = os.write(self._file, data)
                self._size += written
                data = data[written:]
        except OSError as error:
            # Half a block must not stay: what is appended next would be glued to it.
            os.ftruncate(self._file, size)
            self._size = size
            raise SeckillError(
                f"cannot write history {self._path}: {error.strerror}; it is whole up to here"
            ) from error


def _answer(command_id: str, outcome: Reserved | Outcome, at_us: int) -> AnswerLine:
    if isinstance(outcome, Rejected):
        return Refused(command_id, outcome.reason, at_us)
    if isinstance(outcome, SeckillError):
        name = type(outcome).__name__
        if type(outcome) in OPEN_ERRORS:
            return Unknown(command_id, name, at_us)
        return Failed(command_id, name, at_us)
    event = outcome[0] if isinstance(outcome, tuple) else outcome
    return Ok(command_id, at_us, getattr(event, "buyer", None), getattr(event, "quantity", None))


class HistoryOrder(msgspec.Struct, gc=False):
    """One command id as the client knows it.

    `answer` is the strongest thing it was told: ok, else rejected, else unknown, else failed; a
    sending that was never answered is unknown. `others` holds what else was asked under the same
    id, as (sku, buyer, quantity). `contradiction` says in words how two answers, or an answer and
    its order, exclude each other. `reasons_differ` when a repeat was refused for another reason.
    `id_was_taken` when the engine knew the id from another request, perhaps not of this history.
    """

    sku: str
    buyer: str
    quantity: int
    answer: OrderAnswer = "failed"
    reason: str = ""
    unanswered: int = 0
    others: tuple[tuple[str, str, int], ...] = ()
    contradiction: str = ""
    reasons_differ: bool = False
    id_was_taken: bool = False

    def asked(self, sku: str, buyer: str, quantity: int) -> bool:
        """Tell whether the client asked for exactly this under this id."""
        if self.buyer == buyer and self.quantity == quantity and self.sku == sku:
            return True
        return (sku, buyer, quantity) in self.others


class History(msgspec.Struct, frozen=True):
    """A whole history by command id. `torn` when it ends in half a line, which was left out."""

    orders: dict[str, HistoryOrder]
    torn: bool = False


def read_history(path: str | Path) -> History:
    """Read a history file, also one that is still being written.

    Raises ConfigError when it cannot be read, has another schema, or a line (named) is wrong.
    """
    orders: dict[str, HistoryOrder] = {}
    torn = False
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    torn = True
                    if number == 1 and not HEADER_LINE.startswith(line):
                        check_header(path, line)
                elif number == 1:
                    check_header(path, line)
                else:
                    _note(orders, path, number, line)
    except OSError as error:
        raise ConfigError(f"cannot read history {path}: {error.strerror}") from None
    for order in orders.values():
        if order.unanswered and order.answer == "failed":
            order.answer = "unknown"
    return History(orders, torn)


def _end_of_last_line(file: int, size: int) -> int:
    end = size
    while end:
        start = max(0, end - TAIL_BYTES)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _note(orders: dict[str, HistoryOrder], path: str | Path, number: int, text: bytes) -> None:
    try:
        line = decode_line(text)
    except ValueError as error:
        raise ConfigError(f"history {path}, line {number}: {error}") from None
    if isinstance(line, Invoke):
        _note_invoke(orders, line)
    elif isinstance(line, Header):
        raise ConfigError(f"history {path}, line {number}: a header inside the file")
    elif (order := orders.get(line.id)) is None:
        raise ConfigError(f"history {path}, line {number}: {line.id!r} was never invoked")
    else:
        _note_answer(order, line)


def _note_invoke(orders: dict[str, HistoryOrder], line: Invoke) -> None:
    order = orders.get(line.id)
    if order is None:
        order = orders[line.id] = HistoryOrder(line.sku, line.buyer, line.quantity)
    elif not order.asked(line.sku, line.buyer, line.quantity):
        order.others += ((line.sku, line.buyer, line.quantity),)
    order.unanswered += 1


def _note_answer(order: HistoryOrder, line: AnswerLine) -> None:
    order.unanswered = max(0, order.unanswered - 1)
    before = order.answer
    if isinstance(line, Ok):
        # Refusals may be forgotten, and the order be decided anew: no contradiction.
        order.reasons_differ |= before == "rejected"
        if line.buyer is not None and line.quantity is not None:
            told = (line.buyer, line.quantity)
            if told != (order.buyer, order.quantity) and told not in (o[1:] for o in order.others):
                order.contradiction = (
                    f"asked for {order.quantity} for {order.buyer!r} and was told of "
                    f"{line.quantity} for {line.buyer!r}"
                )
        order.answer = "ok"
    elif isinstance(line, Refused):
        if before == "ok":
            order.contradiction = f"was acknowledged and then refused ({line.reason})"
            return
        order.reasons_differ |= before == "rejected" and order.reason != line.reason
        order.answer, order.reason = "rejected", line.reason
    elif isinstance(line, Unknown):
        if before == "failed":
            order.answer = "unknown"
    elif line.error == CommandIdReused.__name__:
        order.id_was_taken = True
