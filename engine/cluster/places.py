"""How long the queue is: a gateway asks the owner of a partition which of some orders wait, and where."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from engine.clock import Clock
from engine.cluster.broker import Broker
from engine.cluster.lane import Lane
from engine.cluster.owner import Owner
from engine.cluster.wire import UNREADABLE, Run, Wire, WireError
from engine.cqrs.messages import Ask, Command
from engine.errors import BrokerUnavailable, StreamKey

logger = logging.getLogger(__name__)

ANSWER_SECONDS_MAX: Final = 1.0
"""Whoever asks shows a page; the next look is a moment later."""

IDS_MAX: Final = 1_000
"""Commands of one question. Their answer is some 200 KB, which every broker takes."""

KEEP_SECONDS: Final = 0.1
"""For so long an answer holds for all gateways: a full queue of 65,536 orders takes some ten
milliseconds to go through, in which nobody is sold anything."""


class Question(msgspec.Struct, frozen=True, array_like=True):
    aggregate_type: str
    aggregate_id: str
    command_ids: list[str]


class Places(msgspec.Struct, frozen=True, array_like=True):
    """The commands asked for that wait, as runs; `positions` are those of the commands, in order.

    `depth` commands wait in all. Whatever came up to message `received` of that `life` of the stream
    has arrived: it is among them, or decided.
    """

    depth: int
    positions: list[int]
    runs: list[Run]
    life: str = ""
    received: int = 0


class Queue(NamedTuple):
    """What waits for one aggregate: every command with its place, by id."""

    seen_at: float
    depth: int
    places: dict[str, tuple[int, Command]]
    life: str
    received: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_QUESTIONS: Final = msgspec.msgpack.Decoder(Question)
_PLACES: Final = msgspec.msgpack.Decoder(Places)


class PlacesOut:
    """Answers for the partitions that this process owns; the others answer for theirs."""

    def __init__(
        self, owned: Mapping[int, Owner], broker: Broker, wire: Wire, clock: Clock
    ) -> None:
        self._owned = owned
        self._broker = broker
        self._wire = wire
        self._clock = clock
        self._queues: dict[tuple[int, StreamKey], Queue] = {}

    async def start(self) -> None:
        """Raises BrokerUnavailable."""
        await self._broker.listen(self._broker.subject("places", "*"), self._answer)

    async def _answer(self, message: Msg) -> None:
        number = message.subject.rpartition(".")[2]
        owner = self._owned.get(int(number)) if number.isdecimal() else None
        if owner is None or not message.reply:
            return
        try:
            question = _QUESTIONS.decode(message.data)
        except UNREADABLE as error:
            logger.warning("a question cannot be read: %s", error)
            return
        stream = (question.aggregate_type, question.aggregate_id)
        queue = self._look(owner, stream)
        found = [queue.places[each] for each in question.command_ids if each in queue.places]
        runs = self._wire.runs_of([(stream[0], 0, [command for _, command in found])])
        positions = [place for place, _ in found]
        places = Places(queue.depth, positions, runs, queue.life, queue.received)
        try:
            await self._broker.send(message.reply, _ENCODER.encode(places))
        except BrokerUnavailable as error:
            logger.debug("nobody is told where orders of %s stand: %s", stream[1], error)

    def _look(self, owner: Owner, stream: StreamKey) -> Queue:
        now, key = self._clock.monotonic(), (owner.number, stream)
        known = self._queues.get(key)
        if known is not None and now - known.seen_at < KEEP_SECONDS:
            return known
        self._queues = {
            key: each for key, each in self._queues.items() if now - each.seen_at < KEEP_SECONDS
        }
        places: dict[str, tuple[int, Command]] = {}
        depth = 0
        for place, command in owner.partition.waiting(stream):
            depth = max(depth, place)
            if type(command) is not Ask:
                # It has the id of the command that it asks for.
                places.setdefault(command.id, (place, command))
        queue = self._queues[key] = Queue(now, depth, places, *owner.received)
        return queue


class PlacesIn:
    """Asks the owners, for the buyers of one gateway."""

    def __init__(self, broker: Broker, wire: Wire) -> None:
        self._broker = broker
        self._wire = wire

    async def find(
        self, stream: StreamKey, partition: int, lane: Lane, wanted: Collection[str]
    ) -> dict[str, tuple[int, Command]]:
        """Place and command of those of `wanted` that wait: at their owner, or on the way to it.

        What is on its way comes behind what has arrived. Empty when nobody answers in time.
        """
        found: dict[str, tuple[int, Command]] = {}
        places = Places(0, [], [])
        ids = iter(wanted)
        while page := list(islice(ids, IDS_MAX)):
            try:
                places = await self._ask(stream, partition, page)
                commands = [each for run in places.runs for each in self._wire.decode_run(run)]
            except (BrokerUnavailable, WireError, *UNREADABLE) as error:
                logger.debug("nobody says where orders of %s stand: %s", stream[1], error)
                break
            for place, command in zip(places.positions, commands, strict=True):
                found[command.id] = (place, command)
        under_way = lane.under_way(stream, places.life, places.received)
        for place, command in enumerate(under_way, places.depth + 1):
            if command.id in wanted and type(command) is not Ask:
                found.setdefault(command.id, (place, command))
        return found

    async def _ask(self, stream: StreamKey, partition: int, ids: list[str]) -> Places:
        answer = await self._broker.ask(
            self._broker.subject("places", partition),
            _ENCODER.encode(Question(*stream, ids)),
            ANSWER_SECONDS_MAX,
        )
        return _PLACES.decode(answer)
