"""A sale that is not proven is told, and what was measured is shown in words, figures and a plot."""

from __future__ import annotations

from pathlib import Path

import msgspec

from loadtest.cluster.figures import ClusterRun, Moment
from loadtest.cluster.report import PLOT_FILE, headline, write
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
    moments = [Moment(second, 40 * (second not in range(2, 6)), 60) for second in range(9)]
    write(msgspec.structs.replace(run, timeline=moments), tmp_path / "out")
    drawn = (tmp_path / "out" / PLOT_FILE).read_text()
    for text in ("of engine-1, killed", "of the others", "engine-1 is dead", "seconds"):
        assert f">{text}<" in drawn
    assert f"]({PLOT_FILE})" in (tmp_path / "out" / "README.md").read_text()
