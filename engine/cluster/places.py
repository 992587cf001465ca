"""How long the queue is: a gateway asks the owner of a partition which of some orders wait, and where."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Final

import msgspec
from nats.aio.msg import Msg

from engine.cluster.broker import Broker
from engine.cluster.lane import Lane
from engine.cluster.owner import Owner
from engine.cluster.wire import Run, Wire, WireError
from engine.cqrs.messages import Command
from engine.errors import BrokerUnavailable, StreamKey

logger = logging.getLogger(__name__)

ANSWER_SECONDS_MAX: Final = 1.0
"""Whoever asks shows a page; the next look is a moment later."""


class Question(msgspec.Struct, frozen=True, array_like=True):
    aggregate_type: str
    aggregate_id: str
    command_ids: list[str]


class Places(msgspec.Struct, frozen=True, array_like=True):
    """The commands asked for that wait, as runs; `positions` are those of the commands, in order.

    `depth` commands wait in all.
    """

    depth: int
    positions: list[int]
    runs: list[Run]


_ENCODER: Final = msgspec.msgpack.Encoder()
_QUESTIONS: Final = msgspec.msgpack.Decoder(Question)
_PLACES: Final = msgspec.msgpack.Decoder(Places)


class PlacesOut:
    """Answers for the partitions that this process owns; the others answer for theirs."""

    def __init__(self, owned: Mapping[int, Owner], broker: Broker, wire: Wire) -> None:
        self._owned = owned
        self._broker = broker
        self._wire = wire

    async def start(self) -> None:
        await self._broker.listen(self._broker.subject("places", "*"), self._answer)

    async def _answer(self, message: Msg) -> None:
        number = int(message.subject.rpartition(".")[2])
        owner = self._owned.get(number)
        if owner is None:
            return
        try:
            question = _QUESTIONS.decode(message.data)
        except msgspec.DecodeError as error:
            logger.warning("a question cannot be read: %s", error)
            return
        wanted = set(question.command_ids)
        depth, found = 0, list[tuple[int, Command]]()
        stream = (question.aggregate_type, question.aggregate_id)
        for place, command in owner.partition.waiting(stream):
            depth = max(depth, place)
            if command.id in wanted:
                found.append((place, command))
        runs = self._wire.runs_of([(stream[0], [command for _, command in found])])
        places = Places(depth, [place for place, _ in found], runs)
        await self._broker.send(message.reply, _ENCODER.encode(places))


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
        question = _ENCODER.encode(Question(*stream, list(wanted)))
        try:
            answer = await self._broker.ask(
                self._broker.subject("places", partition), question, ANSWER_SECONDS_MAX
            )
            places = _PLACES.decode(answer)
            commands = [each for run in places.runs for each in self._wire.decode_run(run)]
        except (BrokerUnavailable, WireError, msgspec.DecodeError) as error:
            logger.debug("nobody says where orders of %s stand: %s", stream[1], error)
            places, commands = Places(0, [], []), []
        found = {
            command.id: (place, command)
            for place, command in zip(places.positions, commands, strict=True)
        }
        for place, command in enumerate(lane.under_way(stream), places.depth + 1):
            if command.id in wanted:
                found.setdefault(command.id, (place, command))
        return found
