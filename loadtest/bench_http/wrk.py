"""Single orders with `wrk`, the leanest generator there is; with our own client where it is missing."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from pathlib import Path
from typing import Final

import msgspec

from loadtest.bench_http.load import Generator, order_requests
from loadtest.http_processes import HttpServer
from loadtest.wrong import WrongAnswer

SCRIPT: Final = """
local prefix, number = "", 0
function init(arguments) prefix = arguments[1] end
function request()
  number = number + 1
  return wrk.format("POST", "/v1/skus/HOT/reservations", {
    ["Content-Type"] = "application/json", ["Idempotency-Key"] = prefix .. "-" .. number
  }, '{"buyer":"b-' .. number .. '","quantity":1}')
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\n{"requests":%d,"micros":%d,"bad":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.requests, summary.duration,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""

REPLY_SECONDS_MAX: Final = 10
_NUMBERS = itertools.count(1)


class Singles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a generator of single orders saw."""

    requests: int
    micros: int
    bad: int
    p50_us: float
    p99_us: float

    @property
    def per_second(self) -> float:
        return self.requests / self.micros * 1e6


def generator_name() -> str:
    return "wrk" if shutil.which("wrk") else "loadtest.http_client"


async def send_singles(
    server: HttpServer, connections: int, seconds: float, generator: str
) -> Singles:
    """Single orders with new ids, one under way on each connection. Raises WrongAnswer."""
    # A store may see two runs; their ids differ.
    prefix = f"s{next(_NUMBERS)}"
    send = _with_wrk if generator == "wrk" else _with_ours
    found = await send(server, connections, seconds, prefix)
    if found.bad or not found.requests:
        raise WrongAnswer(f"{found.bad:,} of {found.requests:,} orders were not answered 201")
    return found


async def _with_wrk(server: HttpServer, connections: int, seconds: float, prefix: str) -> Singles:
    script = Path(server.directory) / "orders.lua"
    await asyncio.to_thread(script.write_text, SCRIPT, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
        *(f"--timeout={REPLY_SECONDS_MAX}s", f"-s{script}", server.url, "--", prefix),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    try:
        return msgspec.json.decode(output.strip().rsplit(b"\n", 1)[-1], type=Singles)
    except msgspec.DecodeError:
        raise WrongAnswer(f"wrk failed: {output.decode(errors='replace')}") from None


async def _with_ours(server: HttpServer, connections: int, seconds: float, prefix: str) -> Singles:
    generator = Generator(server.public)
    load = await generator.closed_loop(order_requests(prefix), connections, seconds)
    generator.close()
    took = sorted(each.seconds for each in load.samples)
    return Singles(
        requests=len(took),
        micros=int(load.seconds * 1e6),
        bad=sum(load.orders.values()) - load.orders[201],
        p50_us=1e6 * took[len(took) // 2] if took else 0,
        p99_us=1e6 * took[len(took) * 99 // 100] if took else 0,
    )
