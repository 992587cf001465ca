"""What buyers do with every kind of answer, against a shop that answers as it is told."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from loadtest.swarm.arrivals import timetable
from tests.loadtest.swarm.locusts import ended, headless, locust, run
from tests.loadtest.swarm.scripted_shop import Answer, Asked, scripted_shop, sold

SOLD_OUT = Answer(409, {"reason": "sold_out"})
AGAIN = Answer(503, {"reason": "overloaded", "retry_after_ms": 5})
IN_DOUBT = Answer(202, {"status": "in_doubt"})
BROKEN = Answer(500, {"retry_after_ms": 5})


def number_of(key: str) -> int:
    """Orders are counted from 0; keys end in that number."""
    return int(key.rpartition("-")[2], 16)


def test_an_order_is_sent_with_the_same_key_until_it_has_an_answer_and_counted_once(
    tmp_path: Path,
) -> None:
    kinds: list[list[Answer]] = [
        [AGAIN, AGAIN],
        [IN_DOUBT],
        [Answer(500, {})],
        [SOLD_OUT],
        [Answer(409, {"reason": "over_limit"})],
        [Answer(404, {"reason": "unknown_sku"})],
        [],
    ]

    def script(asked: Asked) -> Answer:
        kind = kinds[number_of(asked.key) % len(kinds)]
        refusal = next((each for each in kind if each.status in (404, 409)), None)
        if refusal is not None:
            return refusal
        return kind[asked.times - 1] if asked.times <= len(kind) else sold(asked)

    with scripted_shop(script) as shop:
        found = run(tmp_path, shop.url, "buyer:1", users=3).outcomes
    asked = Counter(each.key for each in shop.asked)
    of_kind = [[key for key in asked if number_of(key) % len(kinds) == n] for n in range(7)]
    assert all(of_kind)
    # Whom the end of the run finds put off had no order: nothing happened, and nobody waits.
    gone = [key for key in of_kind[0] if asked[key] < 3]
    assert len(gone) <= 3
    of_kind[0] = [key for key in of_kind[0] if key not in gone]
    assert {asked[key] for key in of_kind[0]} == {3}
    assert {asked[key] for key in of_kind[1] + of_kind[2]} == {2}
    assert {asked[key] for kind in of_kind[3:] for key in kind} == {1}
    assert found.sent == ended(found) == len(asked) - len(gone)
    assert found.accepted == found.units == sum(map(len, of_kind[:3])) + len(of_kind[6])
    assert found.refused == {
        "sold_out": len(of_kind[3]),
        "over_limit": len(of_kind[4]),
    }
    # Told to come again; what was in doubt was asked again as well, and does not count as that.
    assert 0 < found.retried < len(shop.asked) - len(asked)
    # A SKU that nobody knows is no answer to an order of a sale.
    assert (found.unknown, found.failed) == (0, len(of_kind[5]))


def test_who_never_gets_a_reply_is_unknown_and_who_is_always_put_off_has_failed(
    tmp_path: Path,
) -> None:
    def script(asked: Asked) -> Answer | None:
        return None if number_of(asked.key) == 0 else AGAIN

    with scripted_shop(script) as shop, locust(
        tmp_path, *headless(shop.url, "buyer:1", users=2)
    ) as process:  # fmt: skip
        found = process.page()
    assert found.outcomes.unknown == found.outcomes.unknown_units == 1
    assert found.outcomes.refused == {}
    assert found.outcomes.failed > 0
    assert "told to try again 50 times" in found.samples[0]
    assert found.outcomes.sent == ended(found.outcomes)
    # The one in doubt was asked for again after the end of the run.
    assert len([each for each in shop.asked if number_of(each.key) == 0]) == 51


def test_an_order_in_doubt_when_the_run_ends_is_asked_for_with_pauses(tmp_path: Path) -> None:
    begun: list[float] = []

    def script(asked: Asked) -> Answer:
        begun.append(monotonic())
        # It is known two seconds after the end of the run.
        return IN_DOUBT if begun[-1] < begun[0] + 3 else sold(asked)

    with scripted_shop(script) as shop, locust(
        tmp_path, *headless(shop.url, "buyer:1")
    ) as process:  # fmt: skip
        found = process.page().outcomes
    assert (found.sent, found.accepted, found.unknown) == (1, 1, 0)


def test_an_error_is_a_failure_and_shown_in_words(tmp_path: Path) -> None:
    with scripted_shop(lambda _: Answer(400, {"reason": "malformed"})) as shop:
        page = run(tmp_path, shop.url, "buyer:1")
    assert page.outcomes.failed == page.outcomes.sent == len(shop.asked)
    assert 1 <= len(page.samples) <= 5
    assert all("400" in each and "malformed" in each for each in page.samples)


def test_an_impatient_buyer_is_one_order_and_its_repeat_must_be_answered_alike(
    tmp_path: Path,
) -> None:
    # The first sending is put off until the run ends; what the repeat gets is the answer.
    late = Answer(503, {"retry_after_ms": 600_000})

    def script(asked: Asked) -> Answer:
        number = number_of(asked.key)
        if number == 9:
            return late if asked.times == 1 else sold(asked)
        if number % 3 == 0 and asked.times == 2:
            return SOLD_OUT
        return SOLD_OUT if number % 3 == 1 else sold(asked)

    with scripted_shop(script) as shop:
        page = run(tmp_path, shop.url, "impatient:1", users=2)
    keys = Counter(each.key for each in shop.asked)
    numbers = [number_of(key) for key in keys]
    assert set(keys.values()) == {2}
    found = page.outcomes
    assert 9 in numbers
    assert found.accepted == len([n for n in numbers if n % 3 != 1])
    assert found.refused == {"sold_out": len([n for n in numbers if n % 3 == 1])}
    assert found.failed == len([n for n in numbers if n % 3 == 0 and n != 9])
    assert found.duplicate == len([n for n in numbers if n % 3 != 0])
    assert "when repeated" in page.samples[0]
    assert found.unknown == 0
    assert found.sent == ended(found)


def test_held_orders_are_paid_too_late_or_unknown(tmp_path: Path) -> None:
    def script(asked: Asked) -> Answer:
        if not asked.path.endswith("/confirm"):
            return sold(asked, held=True)
        number = number_of(asked.path.split("/")[-2])
        if number == 20:
            return BROKEN
        if number % 2:
            return Answer(409, {"reason": "hold_expired"})
        return Answer(200, {"id": "SKU-1:x", "state": "paid"})

    with scripted_shop(script) as shop:
        page = run(tmp_path, shop.url, "buyer:1", "--pay-rate=1", "--quantity=2", users=2)
    found = page.outcomes
    asked = {number_of(each.path.split("/")[-2]) for each in shop.to("/confirm")}
    assert 20 in asked
    assert found.accepted == len(asked) == found.sent
    assert found.too_late == len([n for n in asked if n % 2])
    assert found.paid == len([n for n in asked if n % 2 == 0]) - 1
    assert found.paid_units == 2 * found.paid
    assert found.pay_unknown_units == 2
    assert (found.left, found.failed, found.unknown) == (0, 0, 0)


def test_who_does_not_pay_leaves_without_a_word(tmp_path: Path) -> None:
    with scripted_shop(lambda asked: sold(asked, held=True)) as shop:
        found = run(tmp_path, shop.url, "buyer:1", "--pay-rate=0").outcomes
    assert found.left == found.accepted == found.sent == len(shop.asked)
    assert found.paid == found.too_late == 0


def test_the_orders_of_a_list_without_an_answer_are_sent_again_and_no_others(
    tmp_path: Path,
) -> None:
    times: Counter[str] = Counter()

    def answer(order: dict[str, Any]) -> dict[str, Any]:
        times[order["id"]] += 1
        first, kind = times[order["id"]] == 1, number_of(order["id"]) % 6
        found: dict[str, Any] = {"id": order["id"], "status": 201}
        if kind == 1:
            return {**found, "status": 409, "reason": "sold_out"}
        if kind == 2:
            return {**found, "status": 422, "reason": "command_id_reused"}
        if kind == 3 and first:
            return {**found, "status": 503, "reason": "overloaded", "retry_after_ms": 5}
        if kind == 4 and first:
            return {**found, "status": 202}
        return found

    def script(asked: Asked) -> Answer:
        if len(shop.asked) == 1:
            return AGAIN
        return Answer(200, [answer(each) for each in asked.body])

    with scripted_shop(script) as shop:
        page = run(tmp_path, shop.url, "list:1", "--list-size=12")
    found = page.outcomes
    sizes = [len(each.body) for each in shop.asked]
    # The first list was put off as a whole.
    assert sizes[:5] == [12, 12, 4, 12, 4]
    lists = len(times) // 12
    assert {times[key] for key in times if number_of(key) % 6 in (3, 4)} == {2}
    assert {times[key] for key in times if number_of(key) % 6 not in (3, 4)} == {1}
    assert found.sent == ended(found) == 12 * lists
    assert found.accepted == 8 * lists
    assert found.refused == {"sold_out": 2 * lists}
    assert found.failed == 2 * lists
    # Once the whole list, then what was told to come again; being in doubt is not counted as that.
    assert found.retried == 12 + 2 * lists
    assert "command_id_reused" in page.samples[0]


def test_a_list_with_too_few_answers_is_in_doubt_as_a_whole(tmp_path: Path) -> None:
    def script(asked: Asked) -> Answer:
        if asked.times > 1:
            return BROKEN
        return Answer(200, [{"id": each["id"], "status": 201} for each in asked.body[1:]])

    with scripted_shop(script) as shop:
        page = run(tmp_path, shop.url, "list:1", "--list-size=5")
    assert page.outcomes.unknown == page.outcomes.sent > 0
    assert (page.outcomes.accepted, page.outcomes.failed) == (0, 0)


def test_buyers_ask_for_a_token_and_order_with_it_alone(tmp_path: Path) -> None:
    def script(asked: Asked) -> Answer:
        if asked.path == "/v1/admin/tokens":
            tokens.append(asked.body)
            if len(tokens) == 3:
                return Answer(500, {})
            return Answer(201, {"token": f"v1.{asked.body['buyer']}.{len(tokens)}"})
        if asked.path.endswith("/confirm"):
            return Answer(200, {"id": "x"})
        return AGAIN if asked.times == 1 else sold(asked, held=True)

    tokens: list[Any] = []
    secrets = {
        "SECKILL_AUTH__ADMIN_SECRET": "of-the-operator",
        "SECKILL_AUTH__SHOP_SECRET": "of-the-shop",
    }
    with scripted_shop(script, auth="token") as shop:
        flags = headless(shop.url, "buyer:1", f"--admin-url={shop.url}/", "--pay-rate=1")
        with locust(tmp_path, *flags, **secrets) as process:
            page = process.page()
    bought, paid = shop.to("/reservations"), shop.to("/confirm")
    sent = Counter(each.headers["authorization"] for each in bought)
    # The end of the run may find one put off.
    gone = [each for each, times in sent.items() if times < 2]
    assert len(gone) <= 1
    assert page.outcomes.accepted == page.outcomes.paid == len(paid)
    assert len(paid) == len(sent) - len(gone) == len(tokens) - 1 - len(gone)
    assert page.outcomes.failed == 1
    assert "no purchase token" in page.samples[0]
    assert not any(each.key for each in bought)
    assert all(each.body == {"quantity": 1} for each in bought)
    assert all(each.startswith("Bearer v1.buyer-") for each in sent)
    assert max(sent.values()) == 2
    for path, secret in (("/tokens", "of-the-operator"), ("/confirm", "of-the-shop")):
        assert {each.headers["authorization"] for each in shop.to(path)} == {f"Bearer {secret}"}
    assert {(each["sku"], each["seconds"]) for each in tokens} == {("SKU-1", 3_600)}


def test_readers_ask_and_order_nothing(tmp_path: Path) -> None:
    with scripted_shop(lambda _: Answer(200, {})) as shop:
        page = run(tmp_path, shop.url, "reader:1", users=3)
    assert page.outcomes.sent == 0
    assert {each.method for each in shop.asked} == {"GET"}
    kinds = {name for name in page.histograms if name.startswith("read ")}
    assert kinds == {"read sku", "read skus", "read buyer"}


def test_who_is_still_waiting_when_the_time_is_up_is_unknown(tmp_path: Path) -> None:
    over = threading.Event()

    def script(asked: Asked) -> Answer:
        over.wait(60)
        return sold(asked)

    with scripted_shop(script) as shop:
        try:
            flags = ("--list-size=3", "--stop-timeout=1")
            found = run(tmp_path, shop.url, "buyer:1,list:1", *flags, users=4).outcomes
        finally:
            over.set()
    assert found.unknown == found.unknown_units == found.sent == 2 + 2 * 3
    assert found.accepted == found.failed == 0


def test_orders_that_were_due_and_never_sent_are_counted(tmp_path: Path) -> None:
    over = threading.Event()

    def script(asked: Asked) -> Answer:
        over.wait(60)
        return sold(asked)

    with scripted_shop(script) as shop:
        try:
            flags = ("--rate=50", "--stop-timeout=1")
            found = run(tmp_path, shop.url, "buyer:1", *flags, users=2).outcomes
        finally:
            over.set()
    due = len(list(timetable("flash", 50, 1, seed=1)))
    assert found.sent == found.unknown == 2
    # The crowd begins some milliseconds after the run, and ends with it.
    assert due - 4 <= found.sent + found.unsent <= due


@pytest.mark.parametrize("how", ["sigterm", "closed output"])
def test_locust_that_is_told_to_end_writes_its_books(tmp_path: Path, how: str) -> None:
    with scripted_shop(sold) as shop:
        flags = headless(shop.url, "buyer:1", "--progress", seconds=600)
        with locust(tmp_path, *flags) as process:
            shop.wait_for(100)
            if how == "sigterm":
                process.process.send_signal(signal.SIGTERM)
            else:
                # Who started it has died.
                assert process.process.stdout is not None
                process.process.stdout.close()
            process.wait()
            assert process.books_file.exists(), process.errors
            if how == "sigterm":
                found = process.page().outcomes
                assert found.accepted == found.sent == len(shop.asked)


BAD_FLAGS = {
    "mix": (["--mix=buyer:x"], "argument --mix: takes buyer, list, reader, impatient"),
    "skus": (["--skus=0"], "--skus: must be a whole number from 1 to 10,000, got '0'"),
    "quantity": (["--quantity=0"], "argument --quantity: must be a number"),
    "pay rate": (["--pay-rate=nan"], "--pay-rate: must be a number from 0 to 1, got 'nan'"),
    "rate": (["--rate=10"], "error: --rate needs --run-time"),
    "host": (["--host=127.0.0.1:1"], "error: --host must be a URL such as"),
    "nobody there": (["--host=http://127.0.0.1:1"], "error: http://127.0.0.1:1 does not answer"),
}


def test_bad_flags_are_named_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    with scripted_shop(sold) as shop, ExitStack() as stack:
        started = {
            name: stack.enter_context(
                locust(tmp_path, *headless(shop.url, "buyer:1", *flags, seconds=0), name=name)
            )
            for name, (flags, _) in BAD_FLAGS.items()
        }
        for name, process in started.items():
            code, errors = process.wait(), process.errors
            lines = [line for line in errors.splitlines() if "error: " in line]
            assert len(lines) == 1, errors
            assert BAD_FLAGS[name][1] in lines[0]
            assert code == 2
            assert not process.books_file.exists()
            assert "Traceback" not in errors
