"""Who orders what, without end."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from loadtest.draws import draw
from loadtest.sale import Sale
from loadtest.swarm.orders import BLOCK_ORDERS, endless_orders


def test_no_two_processes_send_an_order_of_the_same_id() -> None:
    ids = [
        order.command_id
        for place in range(3)
        for order in islice(endless_orders(Sale(), "a", place, 3), BLOCK_ORDERS + 50)
    ]
    assert len(set(ids)) == len(ids)


def test_several_processes_send_what_one_would_send() -> None:
    sale = Sale(buyers=BLOCK_ORDERS)
    alone = list(islice(endless_orders(sale, "a"), 2 * BLOCK_ORDERS))
    shared = [
        order
        for place in range(2)
        for order in islice(endless_orders(sale, "a", place, 2), BLOCK_ORDERS)
    ]
    assert shared == alone


def test_the_orders_are_those_of_the_seeded_generator() -> None:
    sale = Sale(seed=5, buyers=BLOCK_ORDERS, skus=7, quantity="1-4", pay_rate=0.3)
    columns = draw(sale)
    found = list(islice(endless_orders(sale, "p"), BLOCK_ORDERS))
    assert [each.buyer for each in found] == [f"buyer-{n}" for n in columns.buyer.tolist()]
    assert [each.sku for each in found] == [f"SKU-{n + 1}" for n in columns.sku.tolist()]
    assert [each.quantity for each in found] == columns.quantity.tolist()
    assert [each.pays for each in found] == [n == 0 for n in columns.plan.tolist()]
    assert [each.pace for each in found] == columns.pace.tolist()
    assert found[31].command_id == "p-0-1f"


def test_the_same_seed_gives_the_same_orders_and_another_one_others() -> None:
    def first(seed: int) -> list[object]:
        return [each[1:] for each in islice(endless_orders(Sale(seed=seed), "p"), 100)]

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_a_large_population_takes_turns() -> None:
    found = islice(endless_orders(Sale(buyers=2 * BLOCK_ORDERS), "p"), 2 * BLOCK_ORDERS)
    assert len({each.buyer for each in found}) == 2 * BLOCK_ORDERS


@given(
    buyers=st.integers(1, 50_000),
    skus=st.integers(1, 20),
    low=st.integers(1, 5),
    more=st.integers(0, 5),
    seed=st.integers(0, 2**63 - 1),
)
@profile(max_examples=10)
def test_orders_stay_within_the_sale(
    buyers: int, skus: int, low: int, more: int, seed: int
) -> None:
    sale = Sale(seed=seed, buyers=buyers, skus=skus, quantity=f"{low}-{low + more}")
    # The ends of a block, and the begin of the next one.
    for order in islice(endless_orders(sale, f"{seed:x}"), BLOCK_ORDERS - 100, BLOCK_ORDERS + 100):
        assert 1 <= int(order.buyer.removeprefix("buyer-")) <= buyers
        assert order.sku in sale.sku_names()
        assert low <= order.quantity <= low + more
        assert 0 <= order.pace < 1
        assert 1 <= len(order.command_id) <= 64
