"""A number in the settings says what it counts: 200 of what is never a question."""

from __future__ import annotations

import typing
from collections.abc import Iterator

import msgspec

from engine.config import Settings

UNITS = frozenset({"bytes", "max", "min", "ms", "partitions", "port", "replicas", "seconds"})


def numbers_without_unit(record: type[msgspec.Struct]) -> list[str]:
    """Name the numeric fields of `record` and its sections that do not end in a unit."""
    return [name for name in _numeric_fields(record) if name.rpartition("_")[2] not in UNITS]


def test_every_numeric_setting_ends_in_its_unit() -> None:
    assert list(_numeric_fields(Settings))
    assert numbers_without_unit(Settings) == []


def test_a_number_without_unit_is_found() -> None:
    assert numbers_without_unit(_Careless) == ["retries", "timeout"]


class _Section(msgspec.Struct):
    timeout: typing.Annotated[float | None, msgspec.Meta(gt=0)] = None
    wait_ms: int = 0
    enabled: bool = False


class _Careless(msgspec.Struct):
    name: str = ""
    retries: int = 0
    section: _Section = msgspec.field(default_factory=_Section)


def _numeric_fields(record: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(record):
        kinds = set(_plain_types(field.type))
        if kinds & {int, float}:
            yield field.name
        for kind in kinds:
            if issubclass(kind, msgspec.Struct):
                yield from _numeric_fields(kind)


def _plain_types(annotation: object) -> Iterator[type]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _plain_types(part)
