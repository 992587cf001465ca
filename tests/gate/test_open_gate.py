"""The settings say which gate is opened, if any."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from engine.config import GateSettings, Settings, load_settings
from engine.errors import ConfigError
from engine.runtime import open_gate
from engine.testing.gate_contract import order
from engine.testing.virtual_clock import VirtualClock


async def test_without_a_url_there_is_no_gate() -> None:
    async with open_gate(Settings()) as gate:
        assert gate is None


async def test_a_gate_in_memory_reads_the_clock_that_it_is_given() -> None:
    clock = VirtualClock()
    settings = Settings(gate=GateSettings(url="memory:"))
    async with open_gate(settings, clock) as gate:
        assert gate is not None
        await gate.rebuild(["PHONE"])
        assert (await gate.check([order("PHONE")]))[0].kind == "sold_out"
        clock.advance(2.0)
        assert (await gate.check([order("PHONE")]))[0].kind == "pass"
    assert not gate.connected


@pytest.mark.parametrize("client", ["redis", "asyncio-redis"])
async def test_a_gate_on_redis_is_connected_when_it_is_opened(redis_url: str, client: str) -> None:
    if client == "asyncio-redis":
        pytest.importorskip("asyncio_redis")
    overrides = {"gate.url": redis_url, "gate.client": client, "gate.prefix": f"open-{client}"}
    async with open_gate(load_settings(None, overrides, {})) as gate:
        assert gate is not None
        assert gate.connected
        await gate.rebuild(["PHONE"])
        assert (await gate.check([order("PHONE")]))[0].kind == "sold_out"
    assert not gate.connected


async def test_a_server_that_is_not_there_is_no_error(
    caplog: pytest.LogCaptureFixture, held_port: int
) -> None:
    caplog.set_level(logging.WARNING)
    settings = Settings(gate=GateSettings(url=f"redis://:secret@127.0.0.1:{held_port}"))
    async with open_gate(settings) as gate:
        assert gate is not None
        assert (await gate.check([order("PHONE")]))[0].kind == "pass"
    assert "cannot connect to redis://127.0.0.1:" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["redis:secret", "rediss//:secret@h", "memory", "mysql://secret@h"])
async def test_a_wrong_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"gate\.url") as caught:
        async with open_gate(Settings(gate=GateSettings(url=url))):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "what"), [("rediss://h", "TLS"), ("redis://user:secret@h", "user names")]
)
async def test_what_the_other_driver_does_not_know_is_refused(url: str, what: str) -> None:
    pytest.importorskip("asyncio_redis")
    settings = Settings(gate=GateSettings(url=url, client="asyncio-redis"))
    with pytest.raises(ConfigError, match=f"knows no {what}"):
        async with open_gate(settings):
            pass


async def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "asyncio_redis", None)
    monkeypatch.delitem(sys.modules, "engine.gate.asyncio_redis_connection", raising=False)
    settings = Settings(gate=GateSettings(url="redis://h", client="asyncio-redis"))
    with pytest.raises(ConfigError, match=r"install seckill-engine\[asyncio-redis\]"):
        async with open_gate(settings):
            pass


def test_no_driver_is_imported_until_it_is_used() -> None:
    script = (
        "import asyncio, json, sys\n"
        "from engine.config import GateSettings, Settings\n"
        "from engine.runtime import open_gate\n"
        "async def main():\n"
        "    async with open_gate(Settings(gate=GateSettings(url='memory:'))): pass\n"
        "asyncio.run(main())\n"
        "sys.stdout.write(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert not {"redis", "asyncio_redis"} & set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"timeout_ms_max": 700.0}, "gate.timeout_ms_max must not be above a third"),
        ({"rebuild_seconds": 1.5}, "gate.rebuild_seconds must not be below gate.staleness_ms_max"),
        ({"orders_per_second_max": 0.001, "orders_burst_max": 10}, "more than an hour"),
        ({"client": "aioredis"}, "gate.client: Invalid enum value 'aioredis'"),
        ({"prefix": ""}, "gate.prefix: Expected `str` of length >= 1"),
        ({"staleness_ms_max": 99}, "gate.staleness_ms_max: Expected `int` >= 100"),
    ],
)
def test_settings_that_cannot_be_or_do_not_fit_are_named(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {f"gate.{name}": value for name, value in given.items()}, {})
    assert message in str(caught.value)


def test_a_url_of_the_wrong_kind_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"gate.url": ["redis://:secret@h"]}, {})
    assert "gate.url: Expected `str`" in str(caught.value)
    assert "secret" not in str(caught.value)
