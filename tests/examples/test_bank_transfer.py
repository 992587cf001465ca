"""The core carries something that is no sale: transfers are whole, also when nobody finishes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.bank_transfer import (
    CloseAccount,
    Deposit,
    OpenAccount,
    RequestTransfer,
    main,
    open_bank,
)


async def test_the_example_prints_who_has_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [
        "t1: done",
        "t2: bob: not_enough",
        "t3: carol: account_closed",
        "alice has 70.00",
        "bob has 30.00",
        "carol has 0.00",
    ]
    for _ in range(2):
        # The second time every command is a repeat.
        await main(str(tmp_path / "bank.db"))
        assert capsys.readouterr().out.splitlines() == expected


async def test_transfers_that_nobody_worked_on_are_finished_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "bank.db")
    async with open_bank(path, transfers=False) as bank:
        for name in ("a", "b", "shut"):
            await bank.bus.execute(OpenAccount(f"open-{name}", name))
        await bank.bus.execute(Deposit("d", "a", 100))
        await bank.bus.execute(CloseAccount("c", "shut"))
        for n in range(30):
            target = "shut" if n % 3 == 0 else "b"
            await bank.bus.execute(RequestTransfer(f"t{n}", f"t{n}", "a", target, 3))
        assert (await bank.account("a")).balance == 100
    async with open_bank(path) as bank:
        await bank.settled()
        balances = [(await bank.account(name)).balance for name in ("a", "b", "shut")]
        assert balances == [40, 60, 0]
        steps = [(await bank.transfer(f"t{n}")).step for n in range(30)]
        assert steps == ["finished"] * 30
