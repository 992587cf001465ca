"""Outcomes and errors as HTTP: status, headers, body. Problems are those of RFC 9457."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET

from engine.cqrs.messages import Rejected
from engine.errors import (
    AggregateHalted,
    CommandFailed,
    CommandIdReused,
    ConfigError,
    CorruptEvent,
    DeadlineExceeded,
    EngineClosed,
    InvalidCommand,
    Overloaded,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
    WrongExpectedVersion,
)
from engine.service.wire import InDoubt, Problem

Headers = list[tuple[bytes, bytes]]

JSON: Final = b"application/json"
PROBLEM_JSON: Final = b"application/problem+json"
encode_json: Final = msgspec.json.Encoder().encode

RETRY_AFTER_MS: Final = (200, 1_000)
"""A shed caller comes back after a random time between these, so that a crowd does not come back as
one. The header knows whole seconds only; `retry_after_ms` of the body is finer."""

STATUS_OF_REASON: Final[Mapping[str, int]] = {
    "unknown_sku": 404,
    "unknown_reservation": 404,
    "unknown_order": 404,
}
"""Refusals that are not 409."""

ERRORS: Final[tuple[tuple[type[SeckillError], int, str, str], ...]] = (
    (InvalidCommand, 400, "invalid", "The request is malformed"),
    (CommandIdReused, 422, "command_id_reused", "The Idempotency-Key belongs to another request"),
    (Overloaded, 503, "overloaded", "Too many orders are waiting; nothing happened"),
    (DeadlineExceeded, 503, "deadline_exceeded", "It was not its turn in time; nothing happened"),
    (EngineClosed, 503, "closing", "The service is closing; nothing happened"),
    (PartitionLost, 503, "partition_lost", "This server cannot sell it just now; nothing happened"),
    (AggregateHalted, 503, "halted", "This SKU is stopped until an operator has looked"),
    (WrongExpectedVersion, 503, "conflict", "Another writer was faster; nothing happened"),
    (StoreUnavailable, 503, "store_unavailable", "The store cannot be reached; nothing happened"),
    (ConfigError, 501, "not_available", "This server is not set up for it"),
    (CorruptEvent, 500, "corrupt_event", "A stored event cannot be read"),
    (CommandFailed, 500, "command_failed", "The request could not be decided; nothing happened"),
)
"""Error, status, reason, title; the first that fits. What is sent again later has Retry-After."""

SENT_AGAIN: Final = frozenset(
    {
        "overloaded",
        "deadline_exceeded",
        "closing",
        "partition_lost",
        "conflict",
        "store_unavailable",
    }
)


class Reply(NamedTuple):
    """A whole reply; `headers` come on top of the content type and length."""

    status: int
    body: bytes
    headers: Headers = []  # noqa: RUF012 -- never changed
    content_type: bytes = JSON

    def raw_headers(self) -> Headers:
        return [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]


def json_reply(record: object, status: int = 200, headers: Headers | None = None) -> Reply:
    return Reply(status, encode_json(record), headers or [])


def problem(
    status: int, reason: str, title: str, detail: str = "", *, retry_after_ms: int | None = None
) -> Reply:
    """A problem, with Retry-After when `retry_after_ms` is given."""
    headers: Headers = [(b"cache-control", b"no-store")]
    if retry_after_ms is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after_ms / 1_000))))
    body = Problem(
        type=f"urn:seckill:problem:{reason}",
        title=title,
        status=status,
        detail=detail or title,
        reason=reason,
        retry_after_ms=UNSET if retry_after_ms is None else retry_after_ms,
    )
    return Reply(status, encode_json(body), headers, PROBLEM_JSON)


@cache
def _refused(reason: str, detail: str) -> Reply:
    title = reason.replace("_", " ").capitalize()
    return problem(STATUS_OF_REASON.get(reason, 409), reason, title, detail)


def refused(rejected: Rejected) -> Reply:
    """A business "no". Their texts are constants, so that "sold out" is made once: the answer that a
    crowd gets is the cheapest one."""
    return _refused(rejected.reason, rejected.detail)


def too_fast(retry_after_seconds: float) -> Reply:
    """The buyer's own limit, told by the gate."""
    return problem(
        *(429, "too_fast", "This buyer asks too often"),
        retry_after_ms=max(1, math.ceil(retry_after_seconds * 1_000)),
    )


def too_many_readers() -> Reply:
    """Told to whoever would open one stream more than there may be."""
    return problem(
        *(503, "too_many_readers", "Too many streams are open"), retry_after_ms=shed_ms()
    )


def describe(error: SeckillError) -> tuple[int, str, str]:
    """The status, reason and title of an error that is not OutcomeUnknown."""
    for kind, status, reason, title in ERRORS:
        if isinstance(error, kind):
            return status, reason, title
    return 500, "internal", "Something went wrong here"


def failed(error: SeckillError) -> Reply:
    """An error as a problem. An outcome that is not known is never told as one: see `in_doubt`."""
    status, reason, title = describe(error)
    # What a broken store or history is called inside is for the log, not for a buyer.
    detail = str(error) if status in (400, 422, 501) else title
    return problem(
        *(status, reason, title, detail),
        retry_after_ms=shed_ms() if reason in SENT_AGAIN else None,
    )


def shed_ms() -> int:
    """How long a shed caller should wait, drawn anew for each."""
    return random.randint(*RETRY_AFTER_MS)  # noqa: S311 -- spreads a crowd, keeps no secret


def in_doubt(id_: str, link: str) -> Reply:
    """202: done or not is not known yet, and `link` will tell."""
    headers = [(b"location", link.encode()), (b"retry-after", b"1")]
    return Reply(202, encode_json(InDoubt(id_, link)), headers)
