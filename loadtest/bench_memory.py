"""`python -m loadtest.bench_memory STORE ORDERS short|uuid`: bytes an order, in a fresh process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from loadtest.bench_runs import resident_bytes

if __name__ == "__main__":
    store, orders, ids = sys.argv[1:]
    figure = asyncio.run(resident_bytes(Path(store), int(orders), uuid_ids=ids == "uuid"))
    sys.stdout.write(f"{figure}\n")
