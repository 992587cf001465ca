"""Ids from before a snapshot are found in the span that holds them, every one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.command_side import past_ids
from engine.cqrs.command_side.past_ids import PastIds, Span


def sealed(*spans: list[str]) -> PastIds:
    past = PastIds()
    for number, ids in enumerate(spans):
        past.add(10 * number + 1, 10 * number + len(ids), ids)
    past.seal()
    return past


@given(st.lists(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=9), max_size=9))
def test_every_id_leads_to_its_span(spans: list[list[str]]) -> None:
    past = sealed(*spans)
    for number, ids in enumerate(spans):
        for each in ids:
            assert Span(number, 10 * number + 1, 10 * number + len(ids)) in past.find([each])


def test_of_many_ids_at_once_the_spans_are_named_once_in_order() -> None:
    past = sealed(["a", "b"], ["c"], ["d"])
    assert past.find(["d", "new", "b", "a"]) == [Span(0, 1, 2), Span(2, 21, 21)]
    assert past.find(["new", "c"]) == [Span(1, 11, 11)]
    assert past.find(["new"]) == past.find([]) == []


def test_a_span_that_was_forgotten_is_not_named_again() -> None:
    past = sealed(["a", "b"], ["c"])
    (span,) = past.find(["a"])
    past.forget(span)
    assert past.find(["a", "b", "c"]) == [Span(1, 11, 11)]


def test_ids_that_share_a_hash_lead_to_all_their_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_ids, "hash", lambda _: -5, raising=False)
    assert [each.number for each in sealed(["a"], ["b"], ["c"]).find(["x"])] == [0, 1, 2]


def test_without_any_id_nothing_is_found() -> None:
    assert sealed().find(["a"]) == []


def test_nearly_no_new_id_is_taken_for_an_old_one() -> None:
    past = sealed([f"old-{n}" for n in range(10_000)])
    assert sum(bool(past.find([f"new-{n}"])) for n in range(10_000)) == 0
