"""A workload is what its settings say, and the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.inventory.commands import Reserve
from loadtest.sale import Arrival
from loadtest.settings import WorkloadSettings
from loadtest.simulation.carts import lines_of
from loadtest.workload import CHUNK_ROWS, Sending, generate

settings_strategy = st.builds(
    WorkloadSettings,
    seed=st.integers(0, 2**63 - 1),
    buyers=st.integers(1, 200),
    orders_per_buyer=st.integers(1, 3),
    skus=st.integers(1, 20),
    stock=st.integers(0, 100),
    quantity=st.sampled_from(["1", "2-4", "1:0.7,2:0.2,5:0.1"]),
    arrival=st.sampled_from(["burst", "poisson", "ramp"]),
    seconds=st.floats(0.001, 100),
    popularity=st.floats(0, 10),
    duplicates=st.floats(0, 1),
    limit_per_buyer=st.integers(0, 5),
)


def rows(settings: WorkloadSettings) -> list[Sending]:
    return list(generate(settings))


@given(settings_strategy)
def test_the_same_settings_give_the_same_rows(settings: WorkloadSettings) -> None:
    first, second = generate(settings), generate(settings)
    assert list(first) == list(first) == list(second)
    assert first.origin == second.origin


@given(settings_strategy)
def test_every_row_is_valid_and_within_the_settings(settings: WorkloadSettings) -> None:
    workload = generate(settings)
    sendings = list(workload)
    allowed = {"1": {1}, "2-4": {2, 3, 4}, "1:0.7,2:0.2,5:0.1": {1, 2, 5}}[settings.quantity]
    for _, at, _, order in sendings:
        order.check()
        assert isinstance(order, Reserve)
        assert order.aggregate_id in workload.skus
        assert order.quantity in allowed
        assert 0 <= at <= settings.seconds
    assert [each[1] for each in sendings] == sorted(each[1] for each in sendings)
    assert len(sendings) == workload.rows


@given(settings_strategy)
def test_every_buyer_places_as_many_orders_as_asked(settings: WorkloadSettings) -> None:
    buyers = Counter(order.buyer for _, _, repeat, order in rows(settings) if not repeat)
    assert len(buyers) == settings.buyers
    assert set(buyers.values()) == {settings.orders_per_buyer}


@given(settings_strategy)
def test_a_repeat_is_the_same_order_sent_once_more_and_later(settings: WorkloadSettings) -> None:
    workload = generate(settings)
    first = dict[int, object]()
    repeats = list[int]()
    for number, _, repeat, order in workload:
        if repeat:
            assert first[number] == order
            repeats.append(number)
        else:
            assert number not in first
            first[number] = order
    assert sorted(first) == list(range(workload.orders))
    assert len(set(repeats)) == len(repeats) == round(settings.duplicates * workload.orders)


@given(settings_strategy)
def test_ids_are_unique_and_name_the_seed(settings: WorkloadSettings) -> None:
    ids = [order.id for _, _, repeat, order in rows(settings) if not repeat]
    assert len(set(ids)) == len(ids)
    assert ids == [f"{settings.seed}-{number:x}" for number in range(len(ids))]


def test_another_seed_gives_another_crowd() -> None:
    one, other = rows(WorkloadSettings(seed=1)), rows(WorkloadSettings(seed=2))
    assert [each[3].buyer for each in one] != [each[3].buyer for each in other]


def test_one_setting_does_not_shuffle_what_another_draws() -> None:
    plain = WorkloadSettings(seed=5, buyers=500, skus=4)
    mixed = WorkloadSettings(seed=5, buyers=500, skus=4, quantity="1-3", arrival="ramp")
    pairs = zip(rows(plain), rows(mixed), strict=True)
    assert all((a[3].buyer, a[3].aggregate_id) == (b[3].buyer, b[3].aggregate_id) for a, b in pairs)


def test_rows_of_several_chunks_come_whole_and_in_order() -> None:
    settings = WorkloadSettings(buyers=2 * CHUNK_ROWS + 7, duplicates=0.1)
    numbers = [number for number, _, repeat, _ in rows(settings) if not repeat]
    assert numbers == list(range(settings.buyers))


@pytest.mark.parametrize(("popularity", "ratio"), [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0)])
def test_popularity_is_the_exponent_of_zipf(popularity: float, ratio: float) -> None:
    settings = WorkloadSettings(seed=3, buyers=60_000, skus=3, popularity=popularity)
    orders = Counter(order.aggregate_id for *_, order in rows(settings))
    assert orders["SKU-1"] / orders["SKU-2"] == pytest.approx(ratio, rel=0.1)


def test_weights_are_the_shares_of_the_quantities() -> None:
    settings = WorkloadSettings(seed=3, buyers=50_000, quantity="1:0.7,2:0.2,5:0.1")
    shares = Counter(each.quantity for *_, order in rows(settings) for each in lines_of(order))
    assert shares[1] / 50_000 == pytest.approx(0.7, abs=0.02)
    assert shares[5] / 50_000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(("arrival", "share"), [("poisson", 0.5), ("ramp", 0.25)])
def test_half_time_has_the_share_of_arrivals_of_the_shape(arrival: Arrival, share: float) -> None:
    settings = WorkloadSettings(seed=3, buyers=20_000, arrival=arrival, seconds=8.0)
    early = sum(at < 4.0 for _, at, _, _ in rows(settings))
    assert early / 20_000 == pytest.approx(share, abs=0.02)


def test_a_burst_arrives_at_once() -> None:
    workload = generate(WorkloadSettings(buyers=50, duplicates=0.5))
    assert {at for _, at, _, _ in workload} == {0.0}
    assert not workload.timed


def test_a_cart_names_different_skus_and_is_the_same_whenever_it_is_drawn() -> None:
    settings = WorkloadSettings(
        seed=3, buyers=2_000, skus=4, hold_seconds=5, cart_size="1-4", quantity="2"
    )
    orders = [each for *_, each in generate(settings)]
    sizes = Counter(len(lines_of(each)) for each in orders)
    assert set(sizes) == {1, 2, 3, 4}
    assert all(isinstance(each, Reserve) == (len(lines_of(each)) == 1) for each in orders)
    for each in orders:
        each.check()
        assert {line.quantity for line in lines_of(each)} == {2}
    assert orders == [each for *_, each in generate(settings)]


def test_carts_and_payments_leave_the_rest_of_a_workload_as_it_was() -> None:
    plain = WorkloadSettings(seed=3, buyers=500, skus=4)
    held = WorkloadSettings(seed=3, buyers=500, skus=4, hold_seconds=5, pay_rate=0.5)
    assert list(generate(plain)) == list(generate(held))
