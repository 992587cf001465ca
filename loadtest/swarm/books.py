"""What a process of the crowd knows: what became of its orders, and how long that took.

Latencies go raw into HDR histograms (Gil Tene, three digits of every value), because Locust keeps whole
milliseconds below 100 ms and two digits above. Books are sent to the master as what was added since the
last time, and add up there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from hdrh.histogram import HdrHistogram

HIGHEST_US: Final = 3_600_000_000
"""An hour, in microseconds: longer than any reply is waited for."""

DIGITS: Final = 3
SAMPLES_MAX: Final = 5
SECONDS_OPEN: Final = 5
"""Seconds before the current one to which a slow worker may still add."""

ORDER: Final = "order"
"""The histogram of orders: from when one was due to its definite answer. Others are named like
requests."""


def new_histogram() -> HdrHistogram:
    """Of microseconds."""
    return HdrHistogram(1, HIGHEST_US, DIGITS)


class Outcomes(msgspec.Struct):
    """What became of the orders that were `sent`: each is one of the next five.

    accepted    sold, or held            refused     by reason
    duplicate   repeats that got the first answer again
    unknown     have no definite answer, also after asking again
    failed      were answered with an error, or a repeat was answered differently

    Held orders were `paid`, paid `too_late`, or `left` without paying. `unsent` were due and never
    sent, `retried` counts answers "try again later" on the way. `*_units` are units
    of stock: those whose order or payment is `unknown` may or may not be sold or paid.
    """

    sent: int = 0
    accepted: int = 0
    units: int = 0
    refused: dict[str, int] = {}
    duplicate: int = 0
    unknown: int = 0
    unknown_units: int = 0
    failed: int = 0
    paid: int = 0
    paid_units: int = 0
    pay_unknown: int = 0
    pay_unknown_units: int = 0
    too_late: int = 0
    left: int = 0
    retried: int = 0
    unsent: int = 0

    def add(self, other: Outcomes) -> None:
        for name in self.__struct_fields__:
            ours, theirs = getattr(self, name), getattr(other, name)
            if isinstance(ours, dict):
                setattr(self, name, dict(Counter(ours) + Counter(theirs)))
            else:
                setattr(self, name, ours + theirs)

    @property
    def decided(self) -> int:
        """Orders and repeats with a definite answer."""
        return self.accepted + sum(self.refused.values()) + self.duplicate


class SecondBook(msgspec.Struct):
    """One second of a run; `latency` is an encoded histogram of its orders."""

    decided: int = 0
    accepted: int = 0
    units: int = 0
    latency: str = ""


class Page(msgspec.Struct):
    """Books as they are sent and written. `seconds` by whole seconds since the start.

    `histograms` are base64 in the format of HdrHistogram V2. `first_at` and `last_at` are seconds
    since the start of the first order sent and the last definite answer, null before there is one.
    """

    outcomes: Outcomes
    histograms: dict[str, str]
    seconds: dict[int, SecondBook]
    samples: list[str]
    first_at: float | None = None
    last_at: float | None = None


class _Moment:
    """A second under way. A histogram takes 190 KB, encoded some hundred bytes: `pack` a second that is
    over, and it is unpacked should something be added after all."""

    __slots__ = ("_histogram", "_packed", "accepted", "decided", "units")

    def __init__(self) -> None:
        self.decided = self.accepted = self.units = 0
        self._histogram: HdrHistogram | None = new_histogram()
        self._packed = ""

    @property
    def latency(self) -> HdrHistogram:
        if self._histogram is None:
            self._histogram = decode_histogram(self._packed)
        return self._histogram

    @property
    def encoded(self) -> str:
        return self._packed if self._histogram is None else _encode(self._histogram)

    def pack(self) -> None:
        self._packed, self._histogram = self.encoded, None


class Books:
    """Counts and histograms that grow; `take` gives what was added since it was last called.

    `outcomes` is another record after every `take`, so it must not be kept.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.outcomes = Outcomes()
        self.histograms: dict[str, HdrHistogram] = {}
        self.samples: list[str] = []
        self.first_at: float | None = None
        self.last_at: float | None = None
        self._seconds: dict[int, _Moment] = {}

    @property
    def answered(self) -> int:
        """Orders that are over, one way or another."""
        found = self.outcomes
        return found.decided + found.unknown + found.failed

    def sent(self, at: float, orders: int = 1) -> None:
        """Orders are begun; `at` is in seconds since the start of the run, as everywhere here."""
        self.outcomes.sent += orders
        self.first_at = at if self.first_at is None else min(self.first_at, at)

    def answer(
        self, at: float, due: float, accepted: int, units: int, refused: dict[str, int]
    ) -> None:
        """Orders that were due at `due` have a definite answer."""
        orders = accepted + sum(refused.values())
        self.outcomes.accepted += accepted
        self.outcomes.units += units
        for reason, count in refused.items():
            self.outcomes.refused[reason] = self.outcomes.refused.get(reason, 0) + count
        self._time(at, due, orders, accepted, units)

    def repeated(self, at: float, due: float) -> None:
        """A repeat got the first answer again."""
        self.outcomes.duplicate += 1
        self._time(at, due, 1, 0, 0)

    def fail(self, what: str, orders: int = 1) -> None:
        """Count orders that ended in an error, and keep the first few in words."""
        self.outcomes.failed += orders
        self.note(what)

    def note(self, what: str) -> None:
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(what[:300])

    def record(self, name: str, seconds: float, times: int = 1) -> None:
        """Note how long something took."""
        histogram = self.histograms.get(name)
        if histogram is None:
            histogram = self.histograms[name] = new_histogram()
        histogram.record_value(_micros(seconds), times)

    def take(self) -> Page:
        """What was added since the last time; it is gone from here."""
        page = self.page()
        self._clear()
        return page

    def page(self) -> Page:
        """Everything that is here."""
        return Page(
            outcomes=self.outcomes,
            histograms={name: _encode(each) for name, each in self.histograms.items()},
            seconds={
                second: SecondBook(each.decided, each.accepted, each.units, each.encoded)
                for second, each in sorted(self._seconds.items())
            },
            samples=self.samples,
            first_at=self.first_at,
            last_at=self.last_at,
        )

    def add(self, page: Page) -> None:
        """Add what another process took."""
        self.outcomes.add(page.outcomes)
        for name, encoded in page.histograms.items():
            self.histograms.setdefault(name, new_histogram()).decode_and_add(encoded)
        for second, book in page.seconds.items():
            moment = self._seconds.get(second) or self._begin(second)
            moment.decided += book.decided
            moment.accepted += book.accepted
            moment.units += book.units
            moment.latency.decode_and_add(book.latency)
        for sample in page.samples:
            self.note(sample)
        firsts = [each for each in (self.first_at, page.first_at) if each is not None]
        lasts = [each for each in (self.last_at, page.last_at) if each is not None]
        self.first_at = min(firsts, default=None)
        self.last_at = max(lasts, default=None)

    def _begin(self, second: int) -> _Moment:
        for earlier, each in self._seconds.items():
            if earlier < second - SECONDS_OPEN:
                each.pack()
        moment = self._seconds[second] = _Moment()
        return moment

    def _time(self, at: float, due: float, orders: int, accepted: int, units: int) -> None:
        moment = self._seconds.get(int(at)) or self._begin(int(at))
        moment.decided += orders
        moment.accepted += accepted
        moment.units += units
        moment.latency.record_value(_micros(at - due), orders)
        self.record(ORDER, at - due, orders)
        self.last_at = at if self.last_at is None else max(self.last_at, at)


def percentiles_ms(histogram: HdrHistogram) -> Iterator[float]:
    """p50, p95, p99, p99.9 and the maximum, in milliseconds; zeros when nothing was recorded."""
    for percent in (50, 95, 99, 99.9, 100):
        value: Any = histogram.get_value_at_percentile(percent) if histogram.total_count else 0
        yield value / 1_000


def decode_histogram(encoded: str) -> HdrHistogram:
    """Raises ValueError when it is not one."""
    try:
        return HdrHistogram.decode(encoded)
    except Exception as error:  # The library raises whatever its parser does.
        raise ValueError(f"not an HDR histogram: {error}") from error


def add_up(encoded: Iterable[str]) -> HdrHistogram:
    """One histogram of several encoded ones."""
    total = new_histogram()
    for each in encoded:
        if each:
            total.decode_and_add(each)
    return total


def _micros(seconds: float) -> int:
    return min(max(round(seconds * 1_000_000), 1), HIGHEST_US)


def _encode(histogram: HdrHistogram) -> str:
    return str(histogram.encode(), "ascii")
