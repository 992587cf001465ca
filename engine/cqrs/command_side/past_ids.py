"""Which command ids were answered before the snapshot an aggregate was loaded from.

Ten million ids as keys of a dictionary take eight seconds to load and more than a GiB. Here an id is
eight bytes: 44 bits of Python's own hash of it, and the number of the span of events it is in. Two
ids rarely share a hash (at ten million once in a million lookups); whoever finds a span reads its
events, which tell for sure. The hash is salted anew in each process, so nobody can aim at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

SPAN_BITS: Final = 20
SPANS_MAX: Final = 1 << SPAN_BITS
SPAN_MASK: Final = np.uint64(SPANS_MAX - 1)
HASH_MASK: Final = ~SPAN_MASK

FILTER_BITS_AN_ID: Final = 16
"""At least so many bits of the filter for each id: it lets one of 16 new ids through at most."""

Keys = npt.NDArray[np.uint64]


class Span(NamedTuple):
    """Whole commits that follow one another: a number, the first and the last version."""

    number: int
    first_version: int
    last_version: int


class PastIds:
    """Finds the spans that may hold given ids. Add every span, then `seal`, then `find`."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._added: list[Keys] = []
        self._known: set[int] = set()
        self._keys: Keys = np.empty(0, np.uint64)
        self._filter: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._filter_shift = np.uint64(0)

    def add(self, first_version: int, last_version: int, ids: Sequence[str]) -> None:
        """Raises ValueError when there are too many spans to number."""
        number = len(self._spans)
        if number == SPANS_MAX:
            raise ValueError(f"a snapshot has more than {SPANS_MAX:,} spans")
        self._added.append(_hashes(ids) & HASH_MASK | np.uint64(number))
        self._spans.append(Span(number, first_version, last_version))

    def seal(self) -> None:
        """Make what was added ready for `find`. It takes a while and may run on a thread."""
        keys = np.concatenate(self._added) if self._added else np.empty(0, np.uint64)
        self._added = []
        keys.sort()
        slots_log2 = max(3, (len(keys) * FILTER_BITS_AN_ID - 1).bit_length())
        self._filter_shift = np.uint64(64 - slots_log2)
        taken = np.zeros(1 << slots_log2, np.bool_)
        taken[keys >> self._filter_shift] = True
        self._filter = np.packbits(taken, bitorder="little")
        self._keys = keys

    def find(self, ids: Sequence[str]) -> list[Span]:
        """The spans that may hold one of `ids` and were not forgotten."""
        hashes = _hashes(ids)
        slots = (hashes >> self._filter_shift).astype(np.int64)
        passed = self._filter[slots >> 3] >> (slots & 7).astype(np.uint8) & 1
        maybe = hashes[passed.astype(np.bool_)] & HASH_MASK
        if not len(maybe):
            return []
        # Sorted, they are looked up in memory from left to right.
        maybe.sort()
        starts = np.searchsorted(self._keys, maybe)
        ends = np.searchsorted(self._keys, maybe | SPAN_MASK, side="right")
        numbers = {
            int(self._keys[place] & SPAN_MASK)
            for start, end in zip(starts[starts < ends], ends[starts < ends], strict=True)
            for place in range(start, end)
        }
        return [self._spans[number] for number in sorted(numbers - self._known)]

    def forget(self, span: Span) -> None:
        """`find` need not name it any more: its events are in memory."""
        self._known.add(span.number)


def _hashes(ids: Sequence[str]) -> Keys:
    return np.fromiter(map(hash, ids), np.int64, len(ids)).view(np.uint64)
