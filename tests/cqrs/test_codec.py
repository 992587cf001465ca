"""Events to JSON and back, over schema versions, and never from damaged bytes."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cqrs.codec import Codec, checksum
from engine.cqrs.event_store import StoredCommit
from engine.errors import CorruptEvent
from tests.cqrs.bank_account import Deposited, FeeCharged, Withdrawn


def stored(events: bytes, count: int = 1, check: int | None = None) -> StoredCommit:
    check = checksum(events) if check is None else check
    return StoredCommit(3, 17, "account", "alice", 5, 4 + count, events, check, 0)


def test_events_survive_the_round_trip() -> None:
    codec = Codec([Deposited, Withdrawn, FeeCharged])
    events = (Deposited("a", 5), Withdrawn("b é", 3), FeeCharged("b é", 1))
    assert codec.decode(stored(codec.encode(events), 3)) == events


def test_an_old_event_is_lifted_step_by_step() -> None:
    """`paid.1` held cents as text, `paid.2` as a number; `deposited.1` is what it became."""

    def to_number(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "type": "paid.2", "cents": int(fields["cents"])}

    def to_deposit(fields: dict[str, Any]) -> dict[str, Any]:
        command_id, cents = fields["command_id"], fields["cents"]
        return {"type": "deposited.1", "command_id": command_id, "amount": cents}

    codec = Codec([Deposited], {"paid.1": to_number, "paid.2": to_deposit})
    old = (
        b'[{"type":"paid.1","command_id":"a","cents":"7"},'
        b'{"type":"deposited.1","command_id":"b","amount":2}]'
    )
    assert codec.decode(stored(old, 2)) == (Deposited("a", 7), Deposited("b", 2))


def test_an_upcaster_that_leads_nowhere_is_an_error_and_no_endless_loop() -> None:
    codec = Codec([Deposited], {"paid.1": lambda fields: fields})
    with pytest.raises(CorruptEvent, match=r"paid\.1"):
        codec.decode(stored(b'[{"type":"paid.1","command_id":"a"}]'))


@pytest.mark.parametrize(
    ("commit", "message"),
    [
        pytest.param(stored(b"[]", 1, check=1), "checksum", id="checksum"),
        pytest.param(stored(b"[]", 1), "0 events", id="count"),
        pytest.param(stored(b"[{"), "truncated", id="json"),
        pytest.param(stored(b'[{"type":"new.9","command_id":"a"}]'), "new.9", id="type"),
        pytest.param(stored(b'[{"type":"deposited.1","command_id":"a"}]'), "amount", id="field"),
    ],
)
def test_a_commit_that_cannot_be_trusted_is_named(commit: StoredCommit, message: str) -> None:
    with pytest.raises(CorruptEvent, match=message) as caught:
        Codec([Deposited]).decode(commit)
    assert "position 17 of partition 3 (account 'alice', versions 5..5)" in str(caught.value)


def test_events_with_one_tag_or_without_a_version_are_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        Codec([Deposited, Deposited])
    with pytest.raises(ValueError, match="no upcaster"):
        Codec([Deposited], {"deposited.1": lambda fields: fields})
