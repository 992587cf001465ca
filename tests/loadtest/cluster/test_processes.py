"""A process of a cluster is started, asked, stopped, paused and killed, and comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import load_settings
from loadtest.cluster.processes import (
    DATABASE,
    _supervise,
    _toml,
    cluster_processes,
)
from loadtest.serve_process import NotStarted, ServeProcess
from tests.servers import need, need_nats


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(_toml({"store.url": f"sqlite:{tmp_path / 'sale.db'}", "batch.size_max": 50}))
    return path


@pytest.fixture
def process(tmp_path: Path, config: Path) -> Iterator[ServeProcess]:
    found = ServeProcess("node-1", tmp_path, config, None)
    yield found
    found.close()


def test_a_killed_process_comes_back_at_its_address_with_what_it_had(process: ServeProcess) -> None:
    process.start()
    assert process.wait_ready().ready
    process.shop.open_sale("SKU-1", 5, 0, 0)
    pid, url = process.pid, process.url
    process.kill()
    assert not process.running
    assert process.readiness() is None
    process.start()
    process.wait_ready()
    assert process.pid != pid
    assert process.url == url
    assert process.shop.is_on_sale("SKU-1")
    assert '"serving"' in process.log_tail()


def test_a_process_that_is_told_to_stop_closes_and_ends_with_0(process: ServeProcess) -> None:
    process.start()
    process.wait_ready()
    assert process.terminate() == 0
    assert '"closed"' in process.log_tail()
    assert process.terminate() == 0


def test_a_paused_process_answers_nothing_until_it_goes_on(
    process: ServeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.start()
    process.wait_ready()
    process.pause()
    monkeypatch.setattr("loadtest.serve_process.ASK_SECONDS_MAX", 0.1)
    assert process.readiness() is None
    assert process.running
    process.resume()
    assert process.wait_ready().ready


def test_a_paused_process_can_be_killed(process: ServeProcess) -> None:
    process.start()
    process.wait_ready()
    process.pause()
    process.kill()
    assert not process.running


def test_what_does_not_start_says_why(tmp_path: Path, config: Path) -> None:
    config.write_text('[store]\nurl = "nowhere"\n')
    process = ServeProcess("node-1", tmp_path, config, None)
    process.start()
    with pytest.raises(NotStarted, match=r"node-1 ended with 2:\n.*the store URL must be"):
        process.wait_ready()
    process.close()


@pytest.mark.parametrize(("codes", "starts"), [([1, None], 2), ([2], 1), ([1, 1, 1], 3)])
def test_a_process_is_started_again_unless_its_settings_are_wrong(
    process: ServeProcess, monkeypatch: pytest.MonkeyPatch, codes: list[int | None], starts: int
) -> None:
    started, given = ["first"], iter(codes)

    def wait_ready() -> None:
        if (code := next(given)) is not None:
            raise NotStarted("it ended", code)

    monkeypatch.setattr(process, "wait_ready", wait_ready)
    monkeypatch.setattr(process, "start", lambda: started.append("again"))
    if codes[-1] is None:
        _supervise(process)
    else:
        with pytest.raises(NotStarted):
            _supervise(process)
    assert len(started) == starts


def test_what_is_not_ready_in_time_is_told(process: ServeProcess) -> None:
    process.start()
    with pytest.raises(NotStarted, match="node-1 is not ready"):
        process.wait_ready(0)


def test_settings_of_a_process_win_and_those_of_the_caller_do_not_reach_it(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECKILL_STORE__URL", "nowhere")
    process = ServeProcess("node-1", tmp_path, config, None, {"batch.size_max": 0})
    process.start()
    with pytest.raises(NotStarted, match="BATCH__SIZE_MAX"):
        process.wait_ready()
    process.close()


def test_a_settings_file_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        _toml(
            {
                "store.url": 'sqlite:a "quoted" file.db',
                "batch.delay_ms_max": 2.5,
                "store.partitions": 3,
                "query_side.managers": False,
            }
        )
    )
    found = load_settings(path, environ={})
    assert found.store.url == 'sqlite:a "quoted" file.db'
    assert found.store.partitions == 3
    assert found.batch.delay_ms_max == 2.5
    assert found.query_side.managers is False


def test_partitions_follow_the_engines_of_a_whole_cluster(tmp_path: Path) -> None:
    need("mariadbd", "mysqld")
    need_nats()
    with cluster_processes(tmp_path, brokers=1, engines=1, gateways=1) as cluster:
        (first,), (gateway,) = cluster.engines, cluster.gateways
        assert cluster.owners() == dict.fromkeys(range(8), "engine-1")
        second = cluster.add_engine()
        second.start()
        second.wait_ready()
        gateway.wait_until(
            lambda found: {each.owner for each in found.served} == {"engine-1", "engine-2"},
            "never heard of the second engine",
            60,
        )
        cluster.wait_served()
        assert first.terminate() == 0
        gateway.wait_until(
            lambda found: [each.owner for each in found.served] == ["engine-2"] * 8,
            "never heard that the first engine left",
            60,
        )
        assert cluster.settings.cluster.replicas == 1
        cluster.terminate_nodes()
        assert not any(each.running for each in cluster.nodes)
        assert cluster.mariadb.execute("SELECT COUNT(*) FROM partitions", DATABASE).strip() == "8"
