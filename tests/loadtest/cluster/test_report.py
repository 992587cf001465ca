"""A sale that is not proven is told, and what was measured is shown in words, figures and a plot."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import msgspec

from loadtest.cluster.figures import ClusterRun, Moment
from loadtest.cluster.report import PLOT_FILE, headline, orders_table, write
from tests.loadtest.cluster.test_figures import a_gateway, a_run, figures, sale


def test_a_run_is_good_when_it_is_proven_and_sold_again_in_time(tmp_path: Path) -> None:
    partitions = figures(tmp_path, sale("A", 12, 14), sale("B", 12, 14))
    good = a_run(partitions, {"gateway-1": a_gateway("1", first=2, accepted=2)})
    assert good.ok
    assert "sold again after 4.0 s" in headline(good)
    late = figures(tmp_path, sale("A", 12, 20.2), sale("B", 12, 14))
    assert not a_run(late, {}).ok
    assert not a_run(partitions, {"gateway-1": a_gateway("1", first=1, failed=1)}).ok
    for wrong in ({"ok": False}, {"lost": 1}):
        audit = msgspec.structs.replace(good.audit, **wrong)
        assert not msgspec.structs.replace(good, audit=audit).ok


def test_the_page_has_every_partition_and_run_json_is_read_back(tmp_path: Path) -> None:
    partitions = figures(tmp_path, sale("A", 12, 14))
    run = a_run(partitions, {"gateway-1": a_gateway("1", first=2, accepted=2)})
    write(run, tmp_path / "out")
    found = msgspec.json.decode((tmp_path / "out" / "run.json").read_bytes(), type=ClusterRun)
    assert found == run
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| 0 | engine-1, killed | 1 | 4.00 |" in page
    assert "| 1 | engine-2 | 0 | never |" in page


def test_the_plot_has_a_line_for_each_side_and_the_time_between(tmp_path: Path) -> None:
    partitions = figures(tmp_path, sale("A", 12, 14), sale("B", 12, 14))
    run = a_run(partitions, {"gateway-1": a_gateway("1", first=2, accepted=2)})
    moments = [Moment(second, 40 * (second not in range(2, 6)), 60, 7) for second in range(9)]
    write(msgspec.structs.replace(run, timeline=moments), tmp_path / "out")
    drawn = unescape((tmp_path / "out" / PLOT_FILE).read_text())
    for text in (
        "sold, engine-1's partitions",
        "sold, the others'",
        "refused: limit, sold out",
        "engine-1's partitions sell nothing",
        "seconds",
    ):
        assert f">{text}<" in drawn
    assert f"]({PLOT_FILE})" in (tmp_path / "out" / "README.md").read_text()


def test_the_page_says_why_fewer_are_sold_in_the_end(tmp_path: Path) -> None:
    gateway = a_gateway("1", first=9, accepted=2)
    gateway.refused.update(over_limit=4, sold_out=3)
    run = a_run(figures(tmp_path, sale("A", 12, 14)), {"gateway-1": gateway})
    write(run, tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert "4 orders were refused because their buyer had reached the limit and 3 because" in page


def test_the_answers_that_decided_nothing_add_up(tmp_path: Path) -> None:
    one, two = a_gateway("1", first=9, accepted=9), a_gateway("2", first=1, accepted=6, again=5)
    one.open_answers.update({"202": 4, "503 overloaded": 2})
    run = a_run(figures(tmp_path, sale("A", 12, 14)), {"gateway-1": one, "gateway-2": two})
    cells = [list(column.cells) for column in orders_table(run).columns]
    rows = {str(name): (*counts,) for name, *counts in zip(*cells, strict=True)}
    assert list(rows)[-4:] == [
        "answers that decided nothing",
        "  told: 202",
        "  told: 503 overloaded",
        "sent on from the other gateway",
    ]
    assert rows["answers that decided nothing"] == ("6", "0", "6")
    assert rows["sent on from the other gateway"] == ("0", "5", "5")
