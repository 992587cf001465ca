"""Whatever happens to Redis in the middle of a sale: orders pass, and the gate is back by itself.

Each test breaks a server of its own, through each driver that is installed. Our own timers are on a
clock that the test moves; the expiry of flags is Redis's, and is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.config import GateSettings
from engine.gate.feed import REBUILD_PAUSE_SECONDS, GateFeed
from engine.gate.gate import PASS
from engine.gate.redis_gate import RedisGate
from engine.gate.redis_link import CONNECT_SECONDS_MAX, PAUSE_SECONDS_MAX
from engine.testing.gate_contract import order
from engine.testing.redis_server import RedisServer
from engine.testing.virtual_clock import VirtualClock, settle
from tests.gate.stock import HandStock
from tests.gate.test_redis_gate import Client, connector
from tests.gate.waiting import real_seconds, until
from tests.servers import need

SETTINGS = GateSettings(timeout_ms_max=50, staleness_ms_max=60_000, rebuild_seconds=60)
"""Flags that live long, so that only what a test is about ends them."""

SHORT = msgspec.structs.replace(SETTINGS, staleness_ms_max=1_000)
TIMEOUT_SECONDS = 0.05


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Not started yet."""
    need("redis-server")
    server = RedisServer(tmp_path)
    yield server
    server.close()


class Sale:
    """A gate that is fed with one SKU, PHONE, which is sold out, and another that is not."""

    def __init__(self, server: RedisServer, client: Client) -> None:
        self.server = server
        self.client = client
        self.clock = VirtualClock()
        self.stock = HandStock(PHONE=0, BAG=9)
        self.opened: list[RedisGate] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self, settings: GateSettings = SETTINGS, url: str = "") -> RedisGate:
        connect = connector(url or self.server.url(), self.client)
        self.gate = await RedisGate.open(connect, "Redis", settings, self.clock)
        self.opened.append(self.gate)
        self.feeding = asyncio.create_task(
            GateFeed(self.gate, self.stock, settings, self.clock).run()
        )
        self.tasks.append(self.feeding)
        return self.gate

    async def start(self, settings: GateSettings = SETTINGS) -> RedisGate:
        """With a running server, until PHONE is refused."""
        await asyncio.to_thread(self.server.start)
        await self.open(settings)
        await until(self.refuses_phone)
        return self.gate

    async def phone(self) -> str:
        return (await self.gate.check([order("PHONE")]))[0].kind

    async def refuses_phone(self) -> bool:
        return await self.phone() == "sold_out"

    async def is_trusted(self) -> bool:
        return self.gate.trusted

    async def is_connected(self) -> bool:
        return self.gate.connected

    async def is_away(self) -> bool:
        await self.gate.check([order("PHONE")])
        return not self.gate.connected

    async def recover(self) -> None:
        """Move the clock on to each next try until the gate is back. Nothing else is done."""
        for _ in range(20):
            # The next try must have been put off before its time can come.
            await settle()
            failures = self.gate.statistics().failures
            self.clock.advance(PAUSE_SECONDS_MAX)

            async def tried(failures: int = failures) -> bool:
                return self.gate.trusted or self.gate.statistics().failures > failures

            await until(tried)
            if self.gate.trusted:
                return
        raise AssertionError("the gate did not come back")

    async def close(self) -> None:
        for each in self.tasks:
            each.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for gate in self.opened:
            await gate.close()


@pytest.fixture(params=["redis", "asyncio-redis"])
async def sale(server: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[Sale]:
    if request.param == "asyncio-redis":
        pytest.importorskip("asyncio_redis")
    sale = Sale(server, request.param)
    yield sale
    await sale.close()


async def test_killed_in_the_middle_of_a_sale_everything_passes_until_it_is_back(
    sale: Sale,
) -> None:
    gate = await sale.start()
    await asyncio.to_thread(sale.server.kill)
    assert await gate.check([order("PHONE"), order("BAG")]) == [PASS, PASS]
    assert not gate.trusted
    assert gate.statistics().failures == 1
    # What changes meanwhile is not told to anybody, and still counts when it is back.
    sale.stock.change(PHONE=3, BAG=0)
    await asyncio.to_thread(sale.server.start)
    await sale.recover()
    verdicts = await gate.check([order("PHONE"), order("BAG")])
    assert [each.kind for each in verdicts] == ["pass", "sold_out"]


async def test_a_server_that_was_flushed_is_told_everything_again_at_once(sale: Sale) -> None:
    gate = await sale.start()
    before = gate.statistics()
    sale.clock.advance(REBUILD_PAUSE_SECONDS)
    await sale.server.query("FLUSHALL")
    assert await sale.phone() == "pass"
    # No time passes: the check has seen that the generation is gone.
    await until(sale.refuses_phone)
    after = gate.statistics()
    assert (after.rebuilds, after.failures) == (before.rebuilds + 1, 0)
    assert after.generation != before.generation


async def test_a_flush_that_no_order_notices_is_noticed_by_the_feed(sale: Sale) -> None:
    gate = await sale.start()
    await sale.server.query("FLUSHALL")
    sale.clock.advance(SETTINGS.staleness_ms_max / 1_000 / 3)

    async def rebuilt() -> bool:
        return gate.statistics().rebuilds == 2

    await until(rebuilt)
    assert await sale.phone() == "sold_out"


async def test_old_flags_of_a_server_that_was_restarted_count_for_nothing(sale: Sale) -> None:
    gate = await sale.start()
    await sale.server.query("SAVE")
    await asyncio.to_thread(sale.server.kill)
    sale.stock.change(PHONE=3)
    await asyncio.to_thread(sale.server.start)
    await until(sale.is_away)
    assert await sale.phone() == "pass"
    # Connected, and the store is being read: generation and flag are both there, and both old.
    sale.stock.slow = asyncio.Event()
    await settle()
    sale.clock.advance(PAUSE_SECONDS_MAX)
    await until(sale.is_connected)
    assert await sale.server.query("EXISTS", "seckill:generation") == "1"
    assert await gate.check([order("PHONE")]) == [PASS]
    assert gate.statistics().unasked == 2
    sale.stock.slow.set()
    await until(sale.is_trusted)
    # The flag is there, and would be for a minute: it is of the generation before.
    assert await sale.server.query("EXISTS", "seckill:sold-out:PHONE") == "1"
    assert await gate.check([order("PHONE")]) == [PASS]


async def test_a_frozen_server_holds_nobody_up_and_what_it_does_late_counts_for_nothing(
    sale: Sale,
) -> None:
    gate = await sale.start()
    sale.server.pause()
    # The feed writes a flag that Redis will see when it goes on, long after BAG is back.
    sale.stock.change(BAG=0)
    await settle()
    waiting = asyncio.create_task(gate.check([order("PHONE")]))
    await settle()
    assert not waiting.done()
    sale.clock.advance(TIMEOUT_SECONDS)
    assert await waiting == [PASS]
    # The next ones are not even asked about.
    calls = gate.statistics().calls
    for _ in range(100):
        assert await gate.check([order("PHONE")]) == [PASS]
    assert gate.statistics().calls == calls
    # It takes connections while it is frozen, and says nothing.
    sale.clock.advance(PAUSE_SECONDS_MAX)
    await real_seconds(0.05)
    sale.clock.advance(CONNECT_SECONDS_MAX)
    await settle()
    assert not gate.connected
    # Not told, so that nothing removes the flag: the generation alone has to make it worthless.
    sale.stock.units["BAG"] = 4
    sale.server.resume()
    await sale.recover()
    assert await sale.server.query("EXISTS", "seckill:sold-out:BAG") == "1"
    verdicts = await gate.check([order("PHONE"), order("BAG")])
    assert [each.kind for each in verdicts] == ["sold_out", "pass"]


async def test_a_server_that_is_not_there_at_the_start_is_used_when_it_comes(sale: Sale) -> None:
    gate = await sale.open()
    assert not gate.connected
    assert await gate.check([order("PHONE")]) == [PASS]
    await asyncio.to_thread(sale.server.start)
    await sale.recover()
    assert await sale.phone() == "sold_out"


@pytest.mark.parametrize("given", ["wrong-secret", ""])
async def test_a_wrong_password_is_told_and_not_shown_and_the_right_one_helps(
    sale: Sale, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(sale.server.start)
    await sale.server.query("CONFIG", "SET", "requirepass", "the-secret")
    gate = await sale.open(url=sale.server.url(given))
    assert not gate.connected
    assert await gate.check([order("PHONE")]) == [PASS]
    assert "cannot connect to Redis" in caplog.text
    assert "secret" not in caplog.text
    # The operator makes the server take what the settings say.
    login = ("-a", "the-secret", "--no-auth-warning")
    if given:
        await sale.server.query(*login, "CONFIG", "SET", "requirepass", given)
    else:
        await sale.server.query(*login, "CONFIG", "SET", "requirepass", "")
    await sale.recover()
    assert await sale.phone() == "sold_out"


async def test_a_server_that_takes_no_writes_lets_pass_and_is_used_again_when_it_does(
    sale: Sale,
) -> None:
    gate = await sale.start()
    await sale.server.query("CONFIG", "SET", "maxmemory", "1")
    sale.stock.change(BAG=0)
    await until(sale.is_away)
    assert await gate.check([order("BAG")]) == [PASS]
    await sale.server.query("CONFIG", "SET", "maxmemory", "0")
    await sale.recover()
    verdicts = await gate.check([order("PHONE"), order("BAG")])
    assert [each.kind for each in verdicts] == ["sold_out", "sold_out"]


async def test_a_server_that_forgot_the_scripts_is_told_them_again(sale: Sale) -> None:
    await sale.start()
    await sale.server.query("SCRIPT", "FLUSH")
    assert await sale.phone() == "pass"
    await sale.recover()
    assert await sale.phone() == "sold_out"


async def test_when_the_process_of_the_feed_is_gone_its_flags_end_within_the_bound(
    sale: Sale,
) -> None:
    gate = await sale.start(SHORT)
    sale.feeding.cancel()
    await asyncio.gather(sale.feeding, return_exceptions=True)
    # Told to nobody: this is what a false "sold out" looks like.
    sale.stock.units["PHONE"] = 5
    left_ms = int(await sale.server.query("PTTL", "seckill:sold-out:PHONE"))
    assert left_ms <= SHORT.staleness_ms_max
    await real_seconds(max(0, left_ms) / 1_000)
    assert await gate.check([order("PHONE")]) == [PASS]
    assert gate.trusted


async def test_flags_are_set_again_before_they_end(sale: Sale) -> None:
    await sale.start(SHORT)
    for _ in range(5):
        await real_seconds(SHORT.staleness_ms_max / 1_000 / 4)
        sale.clock.advance(SHORT.staleness_ms_max / 1_000 / 3)
        await until(sale.refuses_phone)
    assert sale.gate.statistics().rebuilds == 1
