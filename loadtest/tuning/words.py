"""The recommendation of an experiment: in sentences, and as a file that `--config` takes."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from engine.config import BatchSettings, QueueSettings
from loadtest.intervals import REPEATS_MIN, Interval
from loadtest.machine import short_commit
from loadtest.tuning.recommend import Recommendation, standings
from loadtest.tuning.report import TuneRun

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
                f"comes {chosen.label}: {where} {chosen.p99_ms:,.1f} ms, {_rate(chosen.durable_per_s)} "
                f"durable orders/s{over}."
            )
        ]
    asked = "" if chosen.p99_ms_max is None else f", within the {chosen.p99_ms_max:g} ms asked for"
    found = [
        (
            f"Batch size {chosen.label}: {_rate(chosen.durable_per_s)} durable orders/s{over}, "
            f"{where} {chosen.p99_ms:,.1f} ms{asked}."
        ),
        _beside(run, chosen),
    ]
    return [*found, *([_again(run, chosen)] if chosen.measured_again is not None else [])]


def _beside(run: TuneRun, chosen: Recommendation) -> str:
    repeats = max(len(each.repeats) for each in run.cells)
    if len({each.cell.label for each in run.cells}) == 1:
        return "Nothing else was tried."
    if repeats < REPEATS_MIN:
        return (
            f"With fewer than {REPEATS_MIN} repeats no setting can be told from another: this one was "
            "ahead, and that may be chance."
        )
    if chosen.not_told_from:
        default = any(each.startswith("default ") for each in chosen.not_told_from)
        stay = " So nothing here is a reason to leave the default." if default else ""
        return f"It cannot be told from: {'; '.join(chosen.not_told_from)}.{stay}"
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


def _again(run: TuneRun, chosen: Recommendation) -> str:
    rate = chosen.measured_again
    assert rate is not None
    count = run.config["confirm"]
    held = (
        "It held"
        if chosen.held
        else "It did not come up to that again: chance had a part in it, or the machine was slower"
    )
    text = (
        f"{held}. In {count:,} fresh {'run' if count == 1 else 'runs'} it had {_rate(rate)} durable "
        f"orders/s, p99 {chosen.p99_ms_again:,.1f} ms"
    )
    ratio = chosen.ratio_to_default
    if ratio is None:
        return f"{text}."
    shown = "" if ratio.low > 1 or ratio.high < 1 else ": no difference shown"
    return (
        f"{text}; in turns with them the default, of which it had {ratio.median:.2f} times the "
        f"throughput ({ratio.low:.2f} to {ratio.high:.2f}{shown})."
    )


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


def _rate(rate: Interval) -> str:
    return f"{rate.median:,.0f} ({rate.low:,.0f} to {rate.high:,.0f})"
