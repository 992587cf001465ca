"""A report says everything, escapes what it is given, and needs nothing but itself."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest
from hatchling.builders.wheel import WheelBuilder

from engine.errors import ConfigError
from loadtest.reading import TYPES
from loadtest.reports.command import BUILDERS, REPORT_FILE, write_report
from loadtest.results import AuditResult, Repeat, Second
from tests.architecture.source_tree import ROOT
from tests.loadtest.published import write_simulated
from tests.loadtest.reports.results_to_report import comparison, experiment, load_test, written
from tests.shell import Shell

RESULTS = {"load test": load_test(), "experiment": experiment(), "strategies": comparison()}
PUBLISHED = [
    each.name
    for each in sorted((ROOT / "results").iterdir())
    if each.name.startswith(("fairness", "strategies", "tune"))
]


def page_of(folder: Path, run: msgspec.Struct) -> str:
    return write_report(written(folder, run)).read_text(encoding="utf-8")


def dots_in(svg: str) -> int:
    """Marks of a scatter plot: every repeat is one. What the legend shows does not count."""
    plot = svg.split('<g id="legend_1">')[0]
    return sum(len(re.findall(r"<use |<path d", group)) for group in collections_of(plot))


def collections_of(plot: str) -> list[str]:
    """Without the shapes that marks refer to."""
    found = [each.split("<g id=")[0] for each in plot.split('<g id="PathCollection')[1:]]
    return [re.sub(r"<defs>.*?</defs>", "", each, flags=re.DOTALL) for each in found]


@pytest.mark.parametrize("kind", RESULTS)
def test_a_report_asks_for_nothing_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    page = page_of(tmp_path, RESULTS[kind])
    assert "<script" not in page
    # Marks of a plot refer to their shape on the same page, and pictures are in it.
    links = re.findall(r'\b(?:src|href)\s*=\s*"([^"]*)"', page)
    assert [each for each in links if not each.startswith(("#", "data:"))] == []
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


@pytest.mark.parametrize("kind", RESULTS)
def test_plots_lie_beside_the_page_and_are_the_same_every_time(tmp_path: Path, kind: str) -> None:
    page_of(tmp_path, RESULTS[kind])
    first = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    assert sum(name.endswith(".svg") for name in first) >= 2
    page_of(tmp_path, RESULTS[kind])
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == first


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_result_can_be_reported(tmp_path: Path, name: str) -> None:
    shutil.copy(ROOT / "results" / name / "run.json", tmp_path)
    page = write_report(tmp_path / "run.json").read_text(encoding="utf-8")
    assert "Measured on" in page


def test_every_repeat_of_an_experiment_is_a_dot(tmp_path: Path) -> None:
    page_of(tmp_path, experiment())
    # Four sizes with three delays three times, and the named setting three times.
    assert dots_in((tmp_path / "throughput-50.svg").read_text()) == 4 * 3 * 3 + 3
    assert dots_in((tmp_path / "throughput-2000.svg").read_text()) == 4 * 3 * 3
    assert (tmp_path / "heat-50.svg").exists()
    assert (tmp_path / "heat-2000.svg").exists()


def test_an_experiment_names_its_choice_and_what_cannot_be_told_from_it(tmp_path: Path) -> None:
    page = page_of(tmp_path, experiment())
    assert "Batch size 1,000 is recommended: 1,000 (900 to 1,100) durable orders/s." in page
    assert "It cannot be told from: 100." in page
    assert '<tr class="chosen">' in page


def test_the_row_lock_is_shown_by_its_connections(tmp_path: Path) -> None:
    page = page_of(tmp_path, comparison())
    assert "group-commit sold 100,000 durable orders/s" in page
    assert dots_in((tmp_path / "by-connections.svg").read_text()) == 6
    # A stroke at each median stands among the dots.
    assert dots_in((tmp_path / "strategies.svg").read_text()) == 3 + 1 + 3 + 1


def test_a_second_without_an_answer_is_a_gap_and_no_zero(tmp_path: Path) -> None:
    whole = load_test()
    filled = [
        msgspec.structs.replace(each, p50_ms=each.p50_ms or 0.0, p99_ms=each.p99_ms or 0.0)
        for each in whole.timeline
    ]
    page_of(tmp_path / "gap", whole)
    page_of(tmp_path / "zero", msgspec.structs.replace(whole, timeline=filled))
    gap, zero = ((tmp_path / name / "over-time.svg").read_text() for name in ("gap", "zero"))
    assert gap != zero


def test_stock_is_what_is_left_where_nothing_comes_back(tmp_path: Path) -> None:
    held = load_test()
    new = msgspec.structs.replace(held.orders, accepted_before=0)
    resumed = msgspec.structs.replace(held.orders, accepted_before=3)
    runs = {
        "final": msgspec.structs.replace(held, payments=None, orders=new),
        "held": msgspec.structs.replace(held, orders=new),
        "resumed": msgspec.structs.replace(held, payments=None, orders=resumed),
    }
    shown = {}
    for name, run in runs.items():
        page_of(tmp_path / name, run)
        plot = (tmp_path / name / "over-time.svg").read_text()
        shown[name] = re.findall("units (?:left|taken)", plot)
    assert shown == {"final": ["units left"], "held": ["units taken"], "resumed": ["units taken"]}


def test_a_failed_audit_and_a_run_stopped_early_stand_on_top(tmp_path: Path) -> None:
    found = AuditResult(False, 3, 0, 0, 0, 12, ("SKU-1: 3 units <b>oversold</b>",))
    page = page_of(tmp_path, msgspec.structs.replace(load_test(), audit=found, stopped_early=True))
    banners = re.findall(r'<div class="banner (\w+)"[^>]*>([^<]*)', page)
    assert [kind for kind, _ in banners] == ["bad", "warn"]
    assert "SKU-1: 3 units &lt;b&gt;oversold&lt;/b&gt;" in banners[0][1]
    assert "audit FAILED" in page


def test_what_a_result_says_is_text_and_never_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    machine = msgspec.structs.replace(load_test().machine, cpu=evil)
    config = {**load_test().config, evil: evil}
    run = msgspec.structs.replace(
        load_test(), machine=machine, config=config, commit=evil, started_at=evil
    )
    page = page_of(tmp_path, run)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_names_of_settings_are_text_in_the_plots_too(tmp_path: Path) -> None:
    run = experiment()
    cells = [
        msgspec.structs.replace(each, cell=msgspec.structs.replace(each.cell, named="<b>$x_1$</b>"))
        if each.cell.named
        else each
        for each in run.cells
    ]
    page = page_of(tmp_path, msgspec.structs.replace(run, cells=cells))
    assert "<b>" not in page
    assert "&lt;b&gt;$x_1$" in page


def test_settings_that_differ_from_the_defaults_come_first(tmp_path: Path) -> None:
    config = {**load_test().config, "batch": {"size_max": 77, "delay_ms_max": 0}}
    page = page_of(tmp_path, msgspec.structs.replace(load_test(), config=config))
    changed = page[page.index("differ from the defaults") : page.index("<summary>")]
    assert "batch.size_max" in changed
    assert "delay_ms_max" not in changed


def test_a_timeline_of_one_second_is_no_plot(tmp_path: Path) -> None:
    one = [Second(0.0, 1.0, 5, 5, 5, 1.0, 2.0)]
    page_of(tmp_path, msgspec.structs.replace(load_test(), timeline=one))
    assert not (tmp_path / "over-time.svg").exists()


def test_the_command_writes_where_it_is_told(shell: Shell) -> None:
    written(shell.folder / "run", load_test())
    assert shell.run("report", "run", "--out", "pages/mine.html") == 0
    assert "written: pages/mine.html" in shell.out
    assert (shell.folder / "pages" / "mine.html").exists()
    assert not (shell.folder / "run" / REPORT_FILE).exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read"),
        ("{", "is not a result of a run"),
        ('{"schema": 1, "kind": "simulate"}', "is not a result of a run"),
        ('{"schema": 9, "kind": "simulate"}', "has schema 9"),
        ('{"schema": 1, "kind": "bench"}', "of kind 'bench'"),
    ],
)
def test_what_is_no_result_is_refused_and_nothing_is_written(
    shell: Shell, content: str | None, says: str
) -> None:
    folder = shell.folder / "run"
    folder.mkdir()
    if content is not None:
        (folder / "run.json").write_text(content)
    assert shell.run("report", "run") == 2
    assert says in shell.err
    assert [each.name for each in folder.iterdir()] == (["run.json"] if content is not None else [])


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("load test", ("config", "workload"), "none"),
        ("experiment", ("cells",), []),
        ("experiment", ("cells", 0, "repeats"), []),
        ("strategies", ("strategies",), []),
        ("strategies", ("config", "workload"), None),
    ],
)
def test_a_result_that_lacks_what_is_shown_is_refused_or_shown_without(
    shell: Shell, kind: str, path: tuple[str | int, ...], value: object
) -> None:
    written(shell.folder / "run", RESULTS[kind])
    file = shell.folder / "run" / "run.json"
    changed = json.loads(file.read_text())
    at = changed
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    file.write_text(json.dumps(changed))
    code = shell.run("report", "run")
    pages = (shell.folder / "run").glob("*.*ml")
    assert (code, shell.err.startswith("error: ")) in {(0, False), (2, True)}
    assert bool(list(pages)) == (code == 0)


def test_where_the_page_cannot_be_written_no_plot_is(shell: Shell) -> None:
    written(shell.folder / "run", load_test())
    (shell.folder / "file").touch()
    assert shell.run("report", "run", "--out", "file/page.html") == 2
    assert [each.name for each in (shell.folder / "run").iterdir()] == ["run.json"]


def test_a_failed_audit_of_another_repeat_stands_on_top_too(tmp_path: Path) -> None:
    run = load_test()
    wrong = AuditResult(False, 0, 1, 0, 0, 12, ("order 7 is lost",))
    repeats = [
        Repeat(run.throughput, run.latency_ms, run.orders, each) for each in (run.audit, wrong)
    ]
    page = page_of(tmp_path, msgspec.structs.replace(run, repeats=repeats))
    assert re.search(
        r'<div class="banner bad"[^>]*>Repeat 2: the audit FAILED[^<]*order 7 is lost', page
    )
    assert "audit FAILED." in page


@pytest.mark.parametrize(
    ("repeats", "words"), [(2, "they had: "), (3, "95 % interval of the median: ")]
)
def test_two_repeats_are_called_what_they_are(tmp_path: Path, repeats: int, words: str) -> None:
    folder = write_simulated(tmp_path / "run", [100.0, 110.0, 120.0][:repeats])
    assert words in write_report(folder).read_text(encoding="utf-8")


def test_a_finding_too_many_is_counted(tmp_path: Path) -> None:
    found = AuditResult(False, 9, 0, 0, 0, 12, tuple(f"finding {n}" for n in range(9)))
    page = page_of(tmp_path, msgspec.structs.replace(load_test(), audit=found))
    assert "finding 4; and 4 more" in page
    assert "finding 5" not in page


def test_what_was_asked_of_the_sale_is_among_the_settings_first_read(tmp_path: Path) -> None:
    page = page_of(tmp_path, load_test())
    changed = page[page.index("differ from the defaults") : page.index("<summary>")]
    assert "<dt>workload.stock</dt><dd>50,000</dd>" in changed
    assert "<dt>concurrency</dt>" in changed, "it has no default, so it is always said"
    assert "workload.seed" not in changed, "1 is the default"


def test_of_a_server_that_others_started_it_does_not_say_that_cores_were_shared(
    tmp_path: Path,
) -> None:
    shared = "shared this machine's cores".replace("'", "&#39;")
    own = load_test()
    running = msgspec.structs.replace(own, config={"workload": own.config["workload"]})
    assert shared in page_of(tmp_path / "own", own)
    page = page_of(tmp_path / "running", running)
    assert shared not in page
    assert "where the server ran is not known" in page


def test_every_kind_that_can_be_read_can_be_shown() -> None:
    assert set(BUILDERS) == set(TYPES)


def test_the_template_is_in_the_wheel(tmp_path: Path) -> None:
    # Built from a copy: the builder may leave files beside what it reads.
    for name in ("pyproject.toml", "README.md", "LICENSE", "schema.sql"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("engine", "loadtest"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    [wheel] = WheelBuilder(str(tmp_path)).build(
        directory=str(tmp_path / "dist"), versions=["standard"]
    )
    assert "loadtest/templates/report.html" in zipfile.ZipFile(wheel).namelist()


def test_a_page_that_would_replace_a_folder_is_refused(tmp_path: Path) -> None:
    written(tmp_path, load_test())
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        write_report(tmp_path, tmp_path)


def test_orders_that_were_never_sent_stand_on_top(tmp_path: Path) -> None:
    run = load_test()
    orders = msgspec.structs.replace(run.orders, unsent=1_234)
    page = page_of(tmp_path, msgspec.structs.replace(run, orders=orders))
    assert '<div class="banner warn"' in page
    assert "1,234 orders were due and never sent" in page
