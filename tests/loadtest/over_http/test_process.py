"""Locust that fails is not waited for."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from loadtest.over_http import process
from loadtest.over_http.process import Load, LocustFailed, LocustProcess, Secrets
from loadtest.sale import Sale


class TakenPort:
    """One that somebody else listens on."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()


def test_a_master_that_fails_is_told_at_once_though_its_workers_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "HeldPort", TakenPort)
    load = Load(
        users=2,
        spawn_per_second=2,
        seconds=1,
        shape="flash",
        per_second=0,
        mix="buyer:1",
        list_size=1,
        think_seconds=0,
        processes=2,
    )
    locust = LocustProcess(load, Sale(seed=1), tmp_path, "order", Secrets())
    with pytest.raises(LocustFailed, match="Address already in use"):
        asyncio.run(locust.run("http://127.0.0.1:9", None, lambda _: None))
