"""The recommendation of an experiment: in sentences, and as a file that `--config` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from engine.config import BatchSettings, QueueSettings
from loadtest.intervals import REPEATS_MIN, in_words
from loadtest.machine import short_commit
from loadtest.tuning.recommend import Recommendation, standings
from loadtest.tuning.report import CellSummary, TuneRun

TOML_FILE: Final = "recommended.toml"


def sentences(run: TuneRun) -> list[str]:
    """What to take and how sure that is; paragraphs, without markup."""
    chosen = run.recommendation
    if chosen is None:
        return []
    at = list(dict.fromkeys(each.cell.concurrency for each in run.cells))
    many = ", ".join(f"{n:,}" for n in at)
    over = f" with {many} in flight" if len(at) == 1 else f" (geometric mean over {many} in flight)"
    where = "p99" if len(at) == 1 else "p99 at the worst of them"
    if not chosen.holds:
        return [
            (
                f"No setting keeps p99 within {chosen.p99_ms_max:g} ms, so none is recommended. Nearest "
                f"comes {chosen.label}: {where} {chosen.p99_ms:,.1f} ms, {first_rate(run, chosen)} "
                f"durable orders/s{over}."
            )
        ]
    asked = "" if chosen.p99_ms_max is None else f", within the {chosen.p99_ms_max:g} ms asked for"
    found = [
        (
            f"Batch size {chosen.label}: {first_rate(run, chosen)} durable orders/s{over}, "
            f"{where} {chosen.p99_ms:,.1f} ms{asked}."
        ),
        _beside(run, chosen),
    ]
    if chosen.measured_again is not None:
        found.append(_again(run, chosen))
    return [*found, *_alike(run)]


def first_rate(run: TuneRun, chosen: Recommendation) -> str:
    """The throughput for which it was chosen, and how sure that is."""
    return in_words(chosen.durable_per_s, _repeats(run.cells, chosen.label))


def _repeats(cells: Sequence[CellSummary], label: str) -> int:
    """The fewest that a setting has at any concurrency."""
    counts = [len(each.repeats) for each in cells if each.cell.label == label]
    return min(counts, default=REPEATS_MIN)


def _beside(run: TuneRun, chosen: Recommendation) -> str:
    repeats = max(len(each.repeats) for each in run.cells)
    if len({each.cell.label for each in run.cells}) == 1:
        return "Nothing else was tried."
    if chosen.fastest is not None:
        return _staying(run, chosen, chosen.fastest, repeats)
    if repeats < REPEATS_MIN:
        return (
            f"With fewer than {REPEATS_MIN} repeats no setting can be told from another: this one was "
            "ahead, and that may be chance."
        )
    if chosen.not_told_from:
        return f"It cannot be told from: {'; '.join(chosen.not_told_from)}."
    limit = chosen.p99_ms_max
    cells, runs = (
        [each.cell for each in run.cells],
        [one for each in run.cells for one in each.repeats],
    )
    if sum(each.holds(limit) for each in standings(cells, runs)) == 1:
        return "No other setting holds the condition."
    others = "Every other setting that the search left" if run.dropped else "Every other setting"
    held = (
        ""
        if limit is None
        else " and that holds the condition"
        if run.dropped
        else " that holds it"
    )
    return f"{others}{held} is slower, by a ratio whose 95 % interval lies below 1."


def _staying(run: TuneRun, chosen: Recommendation, fastest: str, repeats: int) -> str:
    """Why it is the default that is recommended, though another setting was ahead."""
    assert chosen.fastest_per_s is not None
    ahead = (
        f"{fastest} was ahead with {in_words(chosen.fastest_per_s, _repeats(run.cells, fastest))}"
    )
    if repeats < REPEATS_MIN:
        return (
            f"With fewer than {REPEATS_MIN} repeats no setting can be told from another, so the default "
            f"stays: {ahead} durable orders/s, and that may be chance."
        )
    ratio = chosen.ratio_to_default
    why = "the default cannot be told from it"
    if ratio is not None:
        why = (
            f"fresh runs in turns do not show it faster: it had {ratio.median:.2f} times the "
            f"throughput of the default ({ratio.low:.2f} to {ratio.high:.2f})"
        )
    others = [each for each in chosen.not_told_from if each != fastest]
    more = f" Not shown to be slower than the default either: {'; '.join(others)}."
    return (
        f"{ahead} durable orders/s, but {why}: nothing here is a reason to leave the default."
        f"{more if others else ''}"
    )


def _again(run: TuneRun, chosen: Recommendation) -> str:
    rate, limit = chosen.measured_again, chosen.p99_ms_max
    assert rate is not None
    assert chosen.p99_ms_again is not None
    count = run.config["confirm"]
    had = (
        f"{count:,} fresh {'run' if count == 1 else 'runs'} had "
        f"{rate.median / chosen.durable_per_s.median:.2f} times the first figure, "
        f"{in_words(rate, count)} durable orders/s, p99 {chosen.p99_ms_again:,.1f} ms"
    )
    ratio = chosen.ratio_to_default
    if ratio is not None and chosen.fastest is None:
        shown = "" if ratio.low > 1 or ratio.high < 1 else ": no difference shown"
        had += (
            f"; in turns with them the default, of which it had {ratio.median:.2f} times the "
            f"throughput ({ratio.low:.2f} to {ratio.high:.2f}{shown})"
        )
    if chosen.held:
        return f"It held: {had}."
    if limit is not None and chosen.p99_ms_again > limit:
        return f"It did not hold, p99 was above the {limit:g} ms asked for: {had}."
    if chosen.held is None:
        return f"The first runs were too few to say whether it held: {had}."
    return (
        f"It did not hold: {had}. That lies below the first interval: the best of many is partly "
        "luck, and the machine may have been slower."
    )


def _alike(run: TuneRun) -> list[str]:
    """Names sizes that no batch could reach: they are one setting with several names."""
    most = max(each.cell.concurrency for each in run.cells) * run.config.get("list_size", 1)
    groups: dict[BatchSettings, list[str]] = {}
    for each in run.cells:
        batch = each.cell.batch
        # With a delay the last of those in flight closes a batch of just that size, and no larger.
        reached = batch.size_max < most or (batch.delay_ms_max > 0 and batch.size_max == most)
        if batch.mode == "fixed" and not reached:
            names = groups.setdefault(msgspec.structs.replace(batch, size_max=1), [])
            names += [each.cell.label] if each.cell.label not in names else []
    return [
        f"With at most {most:,} orders in flight these cannot differ: {'; '.join(names)}."
        for names in groups.values()
        if len(names) > 1
    ]


def recommended_toml(run: TuneRun) -> str:
    """The recommended settings as a config file. There must be one that holds."""
    chosen = run.recommendation
    assert chosen is not None
    assert chosen.holds
    lines = [
        f"Recommended by `seckill tune` on {run.started_at[:10]}, commit {short_commit(run.commit)}.",
        run.machine.line,
        *sentences(run),
    ]
    found = [f"# {' '.join(line.split())}" for line in lines] + [
        "",
        "[batch]",
        *_settings(chosen.batch),
    ]
    # The defaults of the queue do not go with every batch.
    queue, batch = QueueSettings(), chosen.batch
    if batch.size_max > queue.depth_max or batch.delay_ms_max >= queue.deadline_ms:
        tried = run.config["queue"]
        found += ["", "[queue]", *(f"{name} = {_toml(value)}" for name, value in tried.items())]
    return "\n".join(found) + "\n"


def _settings(batch: BatchSettings) -> list[str]:
    found = msgspec.to_builtins(batch)
    return [f"{name} = {_toml(value)}" for name, value in found.items() if value is not None]


def _toml(value: Any) -> str:
    """Numbers, booleans and strings are written in TOML as in JSON."""
    return msgspec.json.encode(value).decode()
