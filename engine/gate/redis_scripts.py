"""What the gate asks Redis to run. Each script is one round trip and answers with one string.

Keys, under the setting `gate.prefix`:

    PREFIX:generation        which flags count
    PREFIX:sold-out:SKU      the generation that the flag belongs to; expires by itself
    PREFIX:speed:BUYER       theoretical arrival time in microseconds (see speed.py); expires too

The keys of SKUs and buyers are made inside the scripts, from packed lists: a thousand orders as two
thousand KEYS take the client longer to write than Redis to answer. Hence one server, no cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from engine.gate.gate import PASS, SOLD_OUT, GateOrder, Verdict
from engine.gate.speed import MICROSECONDS


class Script:
    """Text of a script, and the name that Redis knows it by once it was loaded."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


CHECK: Final = Script("""
local generation = redis.call('GET', KEYS[1]) or ''
local trusted = generation ~= '' and generation == ARGV[2]
local interval, tolerance = tonumber(ARGV[3]), tonumber(ARGV[4])
local now = 0
if interval > 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local flagged, verdicts = {}, {}
for list = 5, #ARGV do
  local orders = cmsgpack.unpack(ARGV[list])
  for n = 1, #orders, 2 do
    local sku, verdict = orders[n], 0
    if interval > 0 then
      local key = ARGV[1] .. ':speed:' .. orders[n + 1]
      local arrival = tonumber(redis.call('GET', key)) or 0
      local ahead = math.min(math.max(arrival - now, 0), tolerance + interval)
      if ahead > tolerance then
        verdict = ahead - tolerance
      else
        ahead = ahead + interval
        redis.call('SET', key, string.format('%.0f', now + ahead), 'PX', math.ceil(ahead / 1000))
      end
    end
    if verdict == 0 and trusted then
      if flagged[sku] == nil then
        flagged[sku] = redis.call('GET', ARGV[1] .. ':sold-out:' .. sku) == generation
      end
      if flagged[sku] then verdict = -1 end
    end
    verdicts[#verdicts + 1] = verdict
  end
end
return generation .. ' ' .. table.concat(verdicts, ',')
""")
"""ARGV: prefix, trusted generation, interval and tolerance in microseconds, then lists of orders.

Answers the generation that is there, and a number for each order: 0 pass, -1 sold out, else the
microseconds by which it is too early.
"""

BEGIN: Final = Script("""
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
""")
"""ARGV: generation, its life in milliseconds."""

MARK: Final = Script("""
local generation = redis.call('GET', KEYS[1]) or ''
if generation == ARGV[2] then
  for _, sku in ipairs(cmsgpack.unpack(ARGV[4])) do
    redis.call('SET', ARGV[1] .. ':sold-out:' .. sku, generation, 'PX', ARGV[3])
  end
end
return generation
""")
"""ARGV: prefix, generation, life of a flag in milliseconds, SKUs. Answers the generation there."""

CLEAR: Final = Script("""
for _, sku in ipairs(cmsgpack.unpack(ARGV[2])) do
  redis.call('DEL', ARGV[1] .. ':sold-out:' .. sku)
end
return 'OK'
""")
"""ARGV: prefix, SKUs."""

SCRIPTS: Final = (CHECK, BEGIN, MARK, CLEAR)

_ENCODER: Final = msgspec.msgpack.Encoder()


def pack_orders(orders: Sequence[GateOrder]) -> bytes:
    """Raises UnicodeEncodeError for text that is not valid Unicode."""
    return _ENCODER.encode([text for order in orders for text in (order.sku, order.buyer)])


def pack_skus(skus: Collection[str]) -> bytes:
    """Raises UnicodeEncodeError for text that is not valid Unicode."""
    return _ENCODER.encode(list(skus))


def read_verdicts(reply: bytes, count: int) -> tuple[str, list[Verdict]]:
    """The generation and the verdicts for `count` orders in an answer to CHECK. Raises ValueError."""
    generation, _, numbers = reply.partition(b" ")
    verdicts = [_VERDICTS.get(n) or _too_fast(n) for n in numbers.split(b",")]
    if len(verdicts) != count:
        raise ValueError(f"{len(verdicts):,} verdicts came for {count:,} orders")
    return generation.decode(), verdicts


_VERDICTS: Final = {b"0": PASS, b"-1": SOLD_OUT}


def _too_fast(early_us: bytes) -> Verdict:
    return Verdict("too_fast", int(early_us) / MICROSECONDS)
