"""Which partition an aggregate belongs to."""

from __future__ import annotations

from engine.cqrs.codec import checksum


def partition_of(aggregate_id: str, partitions: int) -> int:
    """Return the partition of an aggregate: crc32c of its UTF-8 id, modulo the fixed count.

    The function is part of the stored format: another one would look for streams where they are
    not, so the count is kept in the store and checked at start.
    """
    return checksum(aggregate_id.encode()) % partitions if partitions > 1 else 0


def count_partitions(number: int) -> str:
    """The number with its noun."""
    return "1 partition" if number == 1 else f"{number:,} partitions"
