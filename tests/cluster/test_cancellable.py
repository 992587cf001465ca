"""A cancellation that comes together with the answer of the broker is not forgotten."""

from __future__ import annotations

import asyncio

import pytest

from engine.cluster.cancelling import cancellable
from engine.testing.virtual_clock import settle


@pytest.mark.parametrize("fails", [False, True], ids=["an answer", "an error"])
async def test_who_is_cancelled_as_the_answer_comes_ends(fails: bool) -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(cancellable(asyncio.wait_for(answer, 60)))
    await settle()
    if fails:
        answer.set_exception(OSError("gone"))
    else:
        answer.set_result(1)
    asking.cancel()
    await asyncio.wait((asking,))
    assert asking.cancelled()


async def test_who_cleans_up_after_being_cancelled_may_still_ask() -> None:
    told: list[int] = []

    async def clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append(await cancellable(asyncio.sleep(0, 7)))

    cleaning = asyncio.create_task(clean_up())
    await settle()
    cleaning.cancel()
    await asyncio.wait((cleaning,))
    assert told == [7]
