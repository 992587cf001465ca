"""A client's history survives the client, and says of every order what the client may rely on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import errors
from engine.clock import SystemClock
from engine.cqrs.messages import Outcome, Rejected
from engine.errors import (
    CommandIdReused,
    CommitOutcomeUnknown,
    OutcomeUnknown,
    Overloaded,
    SeckillError,
    StoreError,
)
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.history import (
    TAIL_BYTES,
    HistoryOrder,
    HistoryWriter,
    OrderAnswer,
    read_history,
)

HEADER = '{"op":"history","schema":1}\n'
SOLD_OUT = Rejected("sold_out")


def order(number: int = 1, quantity: int = 1) -> Reserve:
    return Reserve(f"c{number}", "PHONE", f"b{number}", quantity)


def accepted(number: int = 1, quantity: int = 1) -> Reserved:
    return Reserved(f"c{number}", f"b{number}", quantity)


class StoppedClock(SystemClock):
    """1.5 seconds past its start, for ever."""

    def monotonic(self) -> float:
        return 1.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


def told(path: Path, *answers: Reserved | Outcome) -> HistoryOrder:
    """What the history knows of one order that was sent and answered once for each answer."""
    writer = HistoryWriter(path)
    for answer in answers:
        writer.invoke([order()])
        writer.answered("c1", answer)
    writer.close()
    return read_history(path).orders["c1"]


# -- what is written


def test_the_lines_are_json_with_monotonic_microseconds(path: Path) -> None:
    writer = HistoryWriter(path, StoppedClock())
    writer.invoke([order(1, 2), order(2)])
    writer.answered("c1", accepted(1, 2))
    writer.answered_many([("c2", SOLD_OUT), ("c2", OutcomeUnknown("c2"))])
    writer.answered("c2", Overloaded(1, 1, 0.1))
    writer.close()
    assert path.read_text().splitlines(keepends=True) == [
        HEADER,
        '{"op":"invoke","id":"c1","sku":"PHONE","buyer":"b1","quantity":2,"at_us":1500000}\n',
        '{"op":"invoke","id":"c2","sku":"PHONE","buyer":"b2","quantity":1,"at_us":1500000}\n',
        '{"op":"ok","id":"c1","at_us":1500000,"buyer":"b1","quantity":2}\n',
        '{"op":"rejected","id":"c2","reason":"sold_out","at_us":1500000}\n',
        '{"op":"unknown","id":"c2","error":"OutcomeUnknown","at_us":1500000}\n',
        '{"op":"failed","id":"c2","error":"Overloaded","at_us":1500000}\n',
    ]


def test_every_line_is_in_the_file_before_the_call_returns(path: Path) -> None:
    writer = HistoryWriter(path)
    assert path.read_text() == HEADER
    writer.invoke([order(1), order(2)])
    assert path.read_bytes().count(b"\n") == 3
    writer.answered("c1", accepted())
    assert path.read_bytes().count(b"\n") == 4
    writer.close()


def test_the_tuple_of_an_event_is_noted_as_the_event(path: Path) -> None:
    writer = HistoryWriter(path)
    writer.invoke([order(1), order(2)])
    writer.answered_many([("c1", (accepted(1),)), ("c2", accepted(2))])
    writer.close()
    lines = path.read_text().splitlines()
    assert [line.replace("2", "1").rpartition('"buyer"')[2] for line in lines[-2:]] == [
        ':"b1","quantity":1}'
    ] * 2


def test_odd_text_comes_back_as_it_was(path: Path) -> None:
    odd = Reserve('c"\\', "größe 42", "买家\u00a0{}", 1)
    writer = HistoryWriter(path)
    writer.invoke([odd])
    writer.close()
    (found,) = read_history(path).orders.items()
    assert found == (odd.id, HistoryOrder("größe 42", "买家\u00a0{}", 1, "unknown", unanswered=1))


def test_empty_blocks_write_nothing(path: Path) -> None:
    writer = HistoryWriter(path)
    writer.invoke([])
    writer.answered_many([])
    writer.close()
    assert path.read_text() == HEADER


def test_a_later_run_appends(path: Path) -> None:
    for number in (1, 2):
        writer = HistoryWriter(path)
        writer.invoke([order(number)])
        writer.answered(f"c{number}", accepted(number))
        writer.close()
    assert path.read_text().count("history") == 1
    assert {key: each.answer for key, each in read_history(path).orders.items()} == {
        "c1": "ok",
        "c2": "ok",
    }


# -- killed clients


def test_a_history_cut_anywhere_can_be_read_and_appended_to(path: Path) -> None:
    writer = HistoryWriter(path)
    writer.invoke([order(1), order(2)])
    writer.answered("c1", accepted(1))
    writer.close()
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = read_history(path)
        assert kept.torn == (size > 0 and whole[size - 1 : size] != b"\n")
        writer = HistoryWriter(path)
        writer.invoke([order(3)])
        writer.close()
        resumed = read_history(path)
        assert not resumed.torn
        assert resumed.orders.pop("c3") == HistoryOrder("PHONE", "b3", 1, "unknown", unanswered=1)
        assert resumed.orders == kept.orders, size


def test_a_half_line_longer_than_one_look_back_is_cut_off(path: Path) -> None:
    whole = HEADER + '{"op":"invoke","id":"c1","sku":"S","buyer":"b","quantity":1,"at_us":1}\n'
    path.write_text(whole + "x" * (3 * TAIL_BYTES))
    HistoryWriter(path).close()
    assert path.read_text() == whole


def test_what_a_killed_client_noted_is_there(path: Path) -> None:
    """The child tells how many orders it noted; killed at once, that many must be found."""
    script = """
import sys
from engine.inventory.commands import Reserve
from engine.inventory.history import HistoryWriter
writer, number = HistoryWriter(sys.argv[1]), 0
while True:
    writer.invoke([Reserve(f"c{number + each}", "S", "b", 1) for each in range(100)])
    number += 100
    print(number, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        noted = [int(child.stdout.readline()) for _ in range(20)][-1]
        child.kill()
        noted = max([noted, *(int(line) for line in child.stdout if line.endswith("\n"))])
    assert child.returncode == -signal.SIGKILL
    history = read_history(path)
    assert set(history.orders) >= {f"c{number}" for number in range(noted)}
    assert {each.answer for each in history.orders.values()} == {"unknown"}
    writer = HistoryWriter(path)
    writer.answered("c0", accepted(0))
    writer.close()
    assert read_history(path).orders["c0"].answer == "ok"


# -- what an order is known as


DEFINITE = sorted(
    name
    for name, error in vars(errors).items()
    if isinstance(error, type)
    and issubclass(error, SeckillError)
    and error not in (SeckillError, StoreError, OutcomeUnknown, CommitOutcomeUnknown)
)


@pytest.mark.parametrize("name", DEFINITE)
def test_an_error_after_which_nothing_happened_is_failed(path: Path, name: str) -> None:
    error: SeckillError = getattr(errors, name).__new__(getattr(errors, name))
    assert told(path, error).answer == "failed"


@pytest.mark.parametrize(
    "error",
    [OutcomeUnknown("c1"), CommitOutcomeUnknown("lost"), SeckillError("?"), StoreError("?")],
)
def test_an_error_that_leaves_it_open_is_unknown(path: Path, error: SeckillError) -> None:
    assert told(path, error).answer == "unknown"


OVERLOADED = Overloaded(1, 1, 0.1)
UNKNOWN = OutcomeUnknown("c1")


@pytest.mark.parametrize(
    ("answers", "known_as"),
    [
        ((accepted(),), "ok"),
        ((SOLD_OUT,), "rejected"),
        ((OVERLOADED, OVERLOADED), "failed"),
        ((OVERLOADED, UNKNOWN), "unknown"),
        ((UNKNOWN, OVERLOADED), "unknown"),
        ((UNKNOWN, accepted()), "ok"),
        ((OVERLOADED, accepted()), "ok"),
        ((accepted(), OVERLOADED), "ok"),
        ((accepted(), UNKNOWN), "ok"),
        ((UNKNOWN, SOLD_OUT), "rejected"),
        ((SOLD_OUT, OVERLOADED), "rejected"),
        ((accepted(), accepted()), "ok"),
        ((SOLD_OUT, SOLD_OUT), "rejected"),
    ],
)
def test_the_strongest_answer_counts_and_open_ones_agree_with_all(
    path: Path, answers: tuple[Outcome, ...], known_as: OrderAnswer
) -> None:
    known = told(path, *answers)
    assert (known.answer, known.contradiction) == (known_as, "")
    assert not known.reasons_differ


def test_a_refusal_that_was_forgotten_may_become_a_sale(path: Path) -> None:
    known = told(path, SOLD_OUT, accepted())
    assert (known.answer, known.contradiction, known.reasons_differ) == ("ok", "", True)


def test_an_order_without_an_answer_is_unknown(path: Path) -> None:
    writer = HistoryWriter(path)
    writer.invoke([order(), order()])
    writer.answered("c1", OVERLOADED)
    writer.close()
    known = read_history(path).orders["c1"]
    assert (known.answer, known.unanswered) == ("unknown", 1)


@pytest.mark.parametrize(
    ("answers", "contradiction"),
    [
        ((accepted(), SOLD_OUT), "was acknowledged and then refused (sold_out)"),
        ((Reserved("c1", "b9", 1),), "asked for 1 for 'b1' and was told of 1 for 'b9'"),
        ((Reserved("c1", "b1", 2),), "asked for 1 for 'b1' and was told of 2 for 'b1'"),
    ],
)
def test_answers_that_exclude_each_other_are_told_in_words(
    path: Path, answers: tuple[Reserved | Rejected, ...], contradiction: str
) -> None:
    known = told(path, *answers)
    assert (known.answer, known.contradiction) == ("ok", contradiction)


def test_a_second_refusal_for_another_reason_is_no_contradiction(path: Path) -> None:
    known = told(path, Rejected("over_limit"), SOLD_OUT)
    assert (known.answer, known.reason, known.contradiction) == ("rejected", "sold_out", "")
    assert known.reasons_differ


def test_another_request_under_the_same_id_is_kept_beside_the_first(path: Path) -> None:
    writer = HistoryWriter(path)
    writer.invoke([order(1, 1)])
    writer.answered("c1", accepted(1, 1))
    writer.invoke([order(1, 2)])
    writer.answered("c1", CommandIdReused("c1"))
    writer.close()
    known = read_history(path).orders["c1"]
    assert known.asked("PHONE", "b1", 1)
    assert known.asked("PHONE", "b1", 2)
    assert not known.asked("PHONE", "b1", 3)
    assert not known.asked("OTHER", "b1", 1)
    assert known.id_was_taken
    assert (known.answer, known.contradiction) == ("ok", "")
