"""Files that are no history, or cannot be one, are refused with a clear message and left alone."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from engine.errors import ConfigError, SeckillError
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.history import HistoryWriter, read_history

HEADER = '{"op":"history","schema":1}\n'


def order(number: int = 1) -> Reserve:
    return Reserve(f"c{number}", "PHONE", f"b{number}", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


@pytest.fixture
def noted(path: Path) -> Path:
    """A history of one order and its answer: three lines."""
    writer = HistoryWriter(path)
    writer.invoke([order()])
    writer.answered("c1", Reserved("c1", "b1", 1))
    writer.close()
    return path


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("nonsense", "malformed"),
        ('{"op":"ok","id":"c1"', "truncated"),
        ('{"op":"sold","id":"c1","at_us":1}', "Invalid value 'sold'"),
        ('{"op":"ok","id":"c1"}', "missing required field `at_us`"),
        ('{"op":"ok","id":7,"at_us":1}', "Expected `str`, got `int`"),
        ('{"op":"ok","id":"c9","at_us":1}', "'c9' was never invoked"),
        (HEADER.strip(), "a header inside the file"),
        ("", "truncated"),
    ],
)
def test_a_wrong_line_in_the_middle_is_named(noted: Path, line: str, complaint: str) -> None:
    noted.write_text(f"{noted.read_text()}{line}\n" + '{"op":"ok","id":"c1","at_us":1}\n')
    with pytest.raises(ConfigError, match=f"{noted.name}, line 4: .*{complaint}"):
        read_history(noted)


def test_a_line_that_is_no_text_is_named(noted: Path) -> None:
    noted.write_bytes(noted.read_bytes() + b'{"op":"ok","id":"\xff\xfe","at_us":1}\n')
    with pytest.raises(ConfigError, match="line 4: "):
        read_history(noted)


def test_another_schema_is_refused_by_reader_and_writer(path: Path) -> None:
    path.write_text('{"op":"history","schema":2}\n')
    for use in (read_history, HistoryWriter):
        with pytest.raises(ConfigError, match="has schema 2; this program knows 1"):
            use(path)


@pytest.mark.parametrize(
    "content", [b"id,sku\n1,PHONE\n", b"PK\x03\x04", b'{"op":"ok","id":"c","at_us":1}\n', b"\n"]
)
def test_a_foreign_file_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for use in (read_history, HistoryWriter):
        with pytest.raises(ConfigError, match="is not a history file: its first line is not"):
            use(path)
    assert path.read_bytes() == content


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read history .*none\.jsonl: No such file"):
        read_history(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"cannot read history .*: Is a directory"):
        read_history(tmp_path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write history .*: No such file or directory"):
        HistoryWriter(tmp_path / "none" / "history.jsonl")
    with pytest.raises(ConfigError, match=r"cannot write history .*: Is a directory"):
        HistoryWriter(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_no_history() -> None:
    with pytest.raises(ConfigError, match="is no ordinary file"):
        HistoryWriter("/dev/null")


def test_a_history_has_one_writer_at_a_time(path: Path) -> None:
    first = HistoryWriter(path)
    with pytest.raises(ConfigError, match="is being written by another run"):
        HistoryWriter(path)
    first.invoke([order()])
    first.close()
    HistoryWriter(path).close()
    assert set(read_history(path).orders) == {"c1"}


def test_a_closed_history_takes_nothing(path: Path) -> None:
    writer = HistoryWriter(path)
    writer.close()
    writer.close()
    with pytest.raises(SeckillError, match="is closed"):
        writer.invoke([order()])


def test_a_disk_that_is_full_in_mid_block_leaves_whole_lines(path: Path) -> None:
    writer = HistoryWriter(path)
    writer.invoke([order(1)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    try:
        with pytest.raises(SeckillError, match=r"cannot write history .*: File too large"):
            writer.invoke([order(2), order(3)])
        assert not read_history(path).torn
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(read_history(path).orders) == {"c1"}
    writer.invoke([order(4)])
    writer.close()
    assert set(read_history(path).orders) == {"c1", "c4"}
