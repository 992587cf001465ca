"""The stream of events is made as it is needed, or the reason why it cannot be is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.js.api import StorageType, StreamConfig
from nats.js.errors import NotFoundError

from engine.cluster.events_stream import EventsStream
from engine.errors import ConfigError
from engine.testing.nats_server import NatsServer
from tests.cluster.outlet import connect, new_prefix


@pytest_asyncio.fixture
async def client(nats: NatsServer) -> AsyncIterator[Client]:
    client = await connect(nats.url)
    yield client
    await client.close()


async def test_it_is_made_on_disk_with_its_limits_and_a_bucket_beside_it(client: Client) -> None:
    js, prefix = client.jetstream(), new_prefix()
    stream = EventsStream(prefix, age_seconds_max=60, bytes_max=10_000_000)
    await stream.ensure(js)
    await stream.ensure(js)
    config = (await js.stream_info(f"{prefix}-events")).config
    assert config.subjects == [f"{prefix}.events.*"]
    assert (config.storage, config.num_replicas) == ("file", 1)
    assert (config.max_age, config.max_bytes, config.duplicate_window) == (60, 10_000_000, 60)
    bucket = await (await js.key_value(f"{prefix}-checkpoints")).status()
    assert (bucket.history, bucket.stream_info.config.storage) == (1, "file")


async def test_limits_of_one_that_is_there_are_changed_and_told_and_the_rest_stays(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    js, prefix = client.jetstream(), new_prefix()
    await js.add_stream(
        name=f"{prefix}-events", subjects=[f"{prefix}.events.*"], description="ours", max_age=5
    )
    await EventsStream(prefix, bytes_max=1_000_000).ensure(js)
    config = (await js.stream_info(f"{prefix}-events")).config
    assert (config.max_age, config.max_bytes, config.description) == (0, 1_000_000, "ours")
    assert config.allow_atomic
    assert f"the stream {prefix}-events: max_age was 5 and is 0 now" in caplog.text


async def test_looking_it_up_makes_it_and_leaves_limits_alone(client: Client) -> None:
    js, prefix = client.jetstream(), new_prefix()
    found = await EventsStream(prefix, age_seconds_max=60).find(js)
    assert found.last_sequence == 0
    await js.publish(f"{prefix}.events.0", b"[]")
    again = await EventsStream(prefix, age_seconds_max=30).find(js)
    assert (again.created, again.last_sequence) == (found.created, 1)
    assert (await js.stream_info(f"{prefix}-events")).config.max_age == 60
    await js.delete_stream(f"{prefix}-events")
    assert (await EventsStream(prefix).find(js)).created != found.created


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"storage": StorageType.MEMORY}, "its storage is 'memory', where 'file' is needed"),
        ({"subjects": ["{prefix}.events.>"]}, "its subjects is .*events.>"),
        ({"retention": "workqueue"}, "its retention is 'workqueue'"),
        ({"discard": "new"}, "its discard is 'new'"),
        ({"no_ack": True}, "its no_ack is True"),
    ],
)
async def test_one_that_is_there_for_something_else_is_refused(
    client: Client, other: dict[str, Any], message: str
) -> None:
    js, prefix = client.jetstream(), new_prefix()
    other = {**other, "subjects": [s.format(prefix=prefix) for s in other.get("subjects", ())]}
    config = StreamConfig(name=f"{prefix}-events").evolve(**other)
    await js.add_stream(config, subjects=config.subjects or [f"{prefix}.events.*"])
    before = (await js.stream_info(f"{prefix}-events")).config
    with pytest.raises(ConfigError, match=message):
        await EventsStream(prefix).ensure(js)
    assert (await js.stream_info(f"{prefix}-events")).config == before


async def test_subjects_that_another_stream_has_are_told(client: Client) -> None:
    js, prefix = client.jetstream(), new_prefix()
    await js.add_stream(name=f"{prefix}-all", subjects=[f"{prefix}.>"])
    with pytest.raises(ConfigError, match=f"refuses the stream {prefix}-events: subjects overlap"):
        await EventsStream(prefix).ensure(js)


async def test_more_replicas_than_servers_are_told(client: Client) -> None:
    js, prefix = client.jetstream(), new_prefix()
    with pytest.raises(ConfigError, match=r"^cluster\.replicas is 3, and the broker is one"):
        await EventsStream(prefix, replicas=3).ensure(js)
    with pytest.raises(NotFoundError):
        await js.stream_info(f"{prefix}-events")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prefix": "a.b"}, r"the prefix 'a\.b' .* is not allowed: 1 to 64 letters"),
        ({"prefix": ""}, "the prefix '' "),
        ({"prefix": "a", "replicas": 0}, "0 replicas are not possible: 1 to 5 are"),
        ({"prefix": "a", "age_seconds_max": -1}, "-1 s and 0 bytes; they are positive, or 0"),
        ({"prefix": "a", "bytes_max": -1}, "0 s and -1 bytes"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EventsStream(**settings)
