"""Every error a caller of the engine can meet has its status, reason and advice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine import errors
from engine.cqrs.messages import Rejected
from engine.errors import SeckillError
from engine.inventory import order, stock
from engine.service.replies import describe, failed, in_doubt, refused, shed_ms, too_fast

STREAM = ("stock", "PHONE")

TABLE: list[tuple[SeckillError, int, str, bool]] = [
    (errors.ConfigError("set canary"), 501, "not_available", False),
    (errors.InvalidCommand("send canary"), 400, "invalid", False),
    (errors.CommandIdReused("canary"), 422, "command_id_reused", False),
    (errors.Overloaded(5, 4, 0.1), 503, "overloaded", True),
    (errors.DeadlineExceeded("canary"), 503, "deadline_exceeded", True),
    (errors.EngineClosed("canary"), 503, "closing", True),
    (errors.PartitionLost("canary"), 503, "partition_lost", True),
    (errors.CommandFailed("canary"), 500, "command_failed", False),
    (errors.AggregateHalted(STREAM, "canary"), 503, "halted", False),
    (errors.StoreUnavailable("canary"), 503, "store_unavailable", True),
    (errors.WrongExpectedVersion(frozenset({STREAM})), 503, "conflict", True),
    (errors.CorruptEvent("canary"), 500, "corrupt_event", False),
    # The command side turns these into others; should one slip through, it says nothing.
    (errors.StoreError("canary"), 500, "internal", False),
    (errors.StoreLocked("canary"), 500, "internal", False),
    (errors.SchemaMismatch("canary"), 500, "internal", False),
    (errors.Fenced(0, 1), 500, "internal", False),
    (errors.ProjectionDiverged(STREAM, "canary"), 500, "internal", False),
    (errors.CommitOutcomeUnknown("canary"), 500, "internal", False),
    (errors.BrokerUnavailable("canary"), 500, "internal", False),
    (SeckillError("canary"), 500, "internal", False),
]

TOLD = {400, 422, 501}
"""Statuses whose detail is the error's own text: it is about what the caller sent or may set."""


def every_error(kind: type[SeckillError] = SeckillError) -> Iterator[type[SeckillError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from every_error(each)


def test_every_error_of_the_engine_is_in_the_table_of_this_test() -> None:
    ours = {each for each in every_error() if each.__module__ == errors.__name__}
    assert ours - {errors.OutcomeUnknown} == {type(error) for error, *_ in TABLE}


@pytest.mark.parametrize(("error", "status", "reason", "again"), TABLE)
def test_an_error_has_its_status_its_reason_and_its_advice(
    error: SeckillError, status: int, reason: str, again: bool
) -> None:
    assert describe(error)[:2] == (status, reason)
    reply = failed(error)
    assert reply.status == status
    assert reply.content_type == b"application/problem+json"
    headers = dict(reply.headers)
    assert headers[b"cache-control"] == b"no-store"
    assert (b"retry-after" in headers) is again
    assert (b"retry_after_ms" in reply.body) is again
    if status not in TOLD:
        assert b"canary" not in reply.body
    elif reason != "overloaded":
        assert b"canary" in reply.body


def test_a_partition_that_is_not_sold_here_names_no_other_server_that_may_not_be_there() -> None:
    title = describe(errors.PartitionLost("canary"))[2]
    assert title == "This server cannot sell it just now; nothing happened"


def test_an_unknown_outcome_is_told_as_not_known_yet() -> None:
    reply = in_doubt("PHONE:1", "/v1/commands/PHONE:1")
    assert reply.status == 202
    assert dict(reply.headers) == {b"location": b"/v1/commands/PHONE:1", b"retry-after": b"1"}


def test_every_reason_that_says_that_something_is_not_there_is_404_and_the_others_409() -> None:
    rejections = {
        each.reason: refused(each).status
        for module in (stock, order)
        for each in vars(module).values()
        if isinstance(each, Rejected)
    }
    assert len(rejections) > 15
    unknown = {reason for reason in rejections if reason.startswith("unknown_")}
    assert unknown == {"unknown_sku", "unknown_reservation", "unknown_order"}
    assert {rejections[reason] for reason in unknown} == {404}
    assert {status for reason, status in rejections.items() if reason not in unknown} == {409}


def test_a_crowd_that_is_sent_away_does_not_come_back_as_one() -> None:
    drawn = {shed_ms() for _ in range(2_000)}
    assert len(drawn) > 200
    assert min(drawn) >= 200
    assert max(drawn) <= 1_000


@pytest.mark.parametrize(
    ("seconds", "header", "ms"), [(0.0, b"1", 1), (0.2, b"1", 200), (1.001, b"2", 1_001)]
)
def test_who_is_too_fast_is_told_how_long_to_wait_rounded_up(
    seconds: float, header: bytes, ms: int
) -> None:
    reply = too_fast(seconds)
    assert reply.status == 429
    assert dict(reply.headers)[b"retry-after"] == header
    assert b'"retry_after_ms":%d' % ms in reply.body
