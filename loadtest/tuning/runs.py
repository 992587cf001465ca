"""How an experiment goes: the runs that are missing, in turns, then the choice, then fresh runs of it.

Settings take turns in a new random order every repeat, so that a machine that is slower for a while
is slower for all of them. What the journal has is not run again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec

from loadtest.machine import Machine
from loadtest.scratch import scratch_store
from loadtest.tuning.drivers import Driver
from loadtest.tuning.experiment import Cell, CellRun, Experiment, Noted, Stage
from loadtest.tuning.journal import Journal
from loadtest.tuning.recommend import Recommendation, confirmed, recommend, standings
from loadtest.tuning.search import Dropped, Round, halve, rounds, runs_in

Done: TypeAlias = Callable[[CellRun, bool], None]
"""Told every run, and whether it was kept from before."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that came out. `dropped` is empty without a search, `fresh` without a confirmation."""

    machine: Machine
    runs: list[CellRun]
    dropped: list[Dropped]
    fresh: list[CellRun]
    recommendation: Recommendation


class Lab:
    """Runs cells of an experiment, each on an empty store of its own."""

    def __init__(
        self, experiment: Experiment, driver: Driver, journal: Journal, done: Done
    ) -> None:
        self._experiment = experiment
        self._driver = driver
        self._journal = journal
        self._done = done

    def measure(self, stage: Stage, cells: Sequence[Cell], repeats: Iterable[int]) -> list[CellRun]:
        """Runs of all `cells` in turns. Raises what a driver raises."""
        found: list[CellRun] = []
        kept = self._journal.find(stage)
        for repeat in repeats:
            turn = list(cells)
            random.Random(f"{self._experiment.seed} {stage} {repeat}").shuffle(turn)
            for cell in turn:
                before = kept.get((stage, cell, repeat))
                run = before.run if before is not None else self._run(stage, cell, repeat)
                found.append(run)
                self._done(run, before is not None)
        return found

    def _run(self, stage: Stage, cell: Cell, repeat: int) -> CellRun:
        experiment = self._experiment
        settings = msgspec.structs.replace(experiment.settings, batch=cell.batch)
        with scratch_store(settings, experiment.directory) as scratch:
            run, machine = self._driver(cell, repeat, scratch)
        self._journal.append(Noted(stage, run, machine))
        return run


def planned(experiment: Experiment) -> list[Round]:
    """The rounds of an experiment: one of everything, unless it is a search."""
    settings = len(experiment.labels)
    if experiment.search:
        return rounds(settings, experiment.repeats)
    return [Round(settings, experiment.repeats)]


def runs_planned(experiment: Experiment) -> int:
    """Runs in all, when the default is not what is chosen and something holds the condition."""
    fresh = 2 if len(experiment.labels) > 1 else 1
    settings_runs = runs_in(planned(experiment)) + fresh * experiment.confirm
    return len(experiment.concurrencies) * settings_runs


def run_experiment(
    experiment: Experiment,
    driver: Driver,
    journal: Journal,
    done: Done = lambda _run, _kept: None,
    tell: Callable[[Sequence[Dropped]], None] = lambda _: None,
) -> Findings:
    """Run what is missing. `tell` hears what a search drops. Raises NotProven, ConfigError."""
    lab = Lab(experiment, driver, journal, done)
    labels, runs, dropped = experiment.labels, list[CellRun](), list[Dropped]()
    repeats_done = 0
    for each in planned(experiment):
        if each.settings < len(labels):
            found = standings(experiment.cells_of(labels), runs)
            limit, default = experiment.p99_ms_max, experiment.default
            labels, gone = halve(found, each.settings, limit, default)
            dropped += gone
            tell(gone)
        repeats = range(repeats_done + 1, each.repeats + 1)
        runs += lab.measure("look", experiment.cells_of(labels), repeats)
        repeats_done = each.repeats
    found = standings(experiment.cells_of(labels), runs)
    chosen = recommend(found, experiment.p99_ms_max, experiment.aim, experiment.default)
    fresh: list[CellRun] = []
    if chosen.holds and experiment.confirm:
        cells = experiment.cells_of([chosen.label, experiment.default])
        fresh = lab.measure("confirm", cells, range(1, experiment.confirm + 1))
        chosen = confirmed(chosen, found, standings(cells, fresh))
    return Findings(
        machine=journal.runs[0].machine,
        runs=runs,
        dropped=dropped,
        fresh=fresh,
        recommendation=chosen,
    )
