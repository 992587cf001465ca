"""Bytes an order, in a fresh process: `python -m loadtest.bench.memory STORE ORDERS IDS SNAPSHOTS`.

IDS is short or uuid, SNAPSHOTS is on or off.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine.event_loop import run_async
from loadtest.bench.runs import resident_bytes

if __name__ == "__main__":
    store, orders, ids, snapshots = sys.argv[1:]
    run = resident_bytes(
        Path(store), int(orders), uuid_ids=ids == "uuid", snapshots=snapshots == "on"
    )
    sys.stdout.write(f"{run_async(run)}\n")
