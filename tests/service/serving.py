"""`seckill serve` as a process of its own, for tests that need the whole program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.testing.ports import HeldPort
from engine.testing.processes import pause, resume
from tests.architecture.source_tree import ROOT

STOP_SECONDS_MAX = 60.0
ASK_SECONDS_MAX = 60.0


class Served:
    """One store's server; after `kill`, `start` brings it back at the same addresses."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        """`settings` by dotted key, such as {"batch.delay_ms_max": "500"}."""
        self._directory = directory
        self._environment = {
            **{name: text for name, text in os.environ.items() if "SECKILL" not in name},
            **{f"SECKILL_{k.upper().replace('.', '__')}": text for k, text in settings.items()},
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }
        self._ports = (HeldPort(), HeldPort())
        self._process: subprocess.Popen[str] | None = None
        self.public = self.admin = ""

    def start(self) -> None:
        """Raises RuntimeError when it does not start."""
        program = "from engine.cli import main; main()"
        port, admin_port = (each.number for each in self._ports)
        ports = [f"--port={port}", f"--admin-port={admin_port}"]
        log = self._directory / "log.jsonl"
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, "serve", *ports],
                cwd=self._directory,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.public, self.admin = self._where("Buyers", log), self._where("Operator", log)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(STOP_SECONDS_MAX)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def close(self) -> None:
        """Kill it and give its ports back."""
        self.kill()
        for each in self._ports:
            each.release()

    def terminate(self) -> None:
        """Tell it to stop; a second time, to stop at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def pause(self) -> None:
        """Take the processor away from it, until `go_on`."""
        assert self._process is not None
        pause(self._process)

    def go_on(self) -> None:
        assert self._process is not None
        resume(self._process)

    def wait(self) -> int:
        """Its exit code, once it has ended; minus the number of the signal that ended it."""
        assert self._process is not None
        code = self._process.wait(STOP_SECONDS_MAX)
        self.kill()
        return code

    def resident_bytes(self) -> int:
        """Its memory, as Linux tells it."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def operate(self, path: str, body: object = None) -> httpx.Response:
        """POST /v1/admin/{path} with the operator's secret. Raises for a status of an error."""
        reply = httpx.post(
            f"{self.admin}/v1/admin/{path}",
            json=body,
            headers={"Authorization": f"Bearer {DEFAULT_ADMIN_SECRET}"},
            timeout=ASK_SECONDS_MAX,
        )
        return reply.raise_for_status()

    def open(self, sku: str, stock: int, hold_seconds: int = 0, limit_per_buyer: int = 0) -> None:
        """Open a sale. A SKU is opened once only."""
        body = {"stock": stock, "hold_seconds": hold_seconds, "limit_per_buyer": limit_per_buyer}
        self.operate(f"skus/{sku}/open", body)

    def sell(self, sku: str, orders: int, prefix: str = "crowd") -> list[int]:
        """Send a list of orders, one unit and one buyer each; gives their statuses."""
        sent = [
            {"id": f"{prefix}-{n}", "sku": sku, "buyer": f"{prefix}-{n}"} for n in range(orders)
        ]
        reply = httpx.post(
            f"{self.public}/v1/reservations:batch", json=sent, timeout=ASK_SECONDS_MAX
        )
        return [each["status"] for each in reply.raise_for_status().json()]

    def stock(self, sku: str) -> dict[str, object]:
        """The SKU as the server tells it."""
        reply = httpx.get(f"{self.public}/v1/skus/{sku}", timeout=ASK_SECONDS_MAX)
        found: dict[str, object] = reply.raise_for_status().json()
        return found

    def _where(self, who: str, log: Path) -> str:
        """The URL of the line that begins with `who`; lines come in one order."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if match := re.match(rf"{who}\s+(http://\S+)", line):
                return match[1]
        raise RuntimeError(f"seckill serve did not start:\n{log.read_text()[-2_000:]}")


@contextmanager
def served(directory: Path, **settings: str) -> Iterator[Served]:
    """A server for the block, on free ports; `batch__delay_ms_max="500"` sets a setting."""
    server = Served(directory, {name.replace("__", "."): text for name, text in settings.items()})
    try:
        server.start()
        yield server
    finally:
        server.close()
