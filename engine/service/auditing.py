"""The audit of a store that is being sold from, in a process of its own.

It replays every event there is: on the event loop nobody would be sold anything meanwhile, and a thread
would take half of the interpreter from the sale. `python -m engine.service.auditing` reads the store's URLs
from its input, where nobody can list them, and prints the report as JSON.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from typing import Final

import msgspec

from engine.engine import Engine
from engine.errors import SeckillError, StoreUnavailable
from engine.inventory.audit import AuditReport, audit
from engine.runtime import audit_store

IN_MEMORY: Final = "memory:"
FAILED_CODE: Final = 1


async def audit_live(engine: Engine) -> AuditReport:
    """Audit what is durable now, with the read models. Raises StoreUnavailable.

    Cancelled, it ends the process.
    """
    places = engine.settings.store.places
    if places == (IN_MEMORY,):
        # Nobody else can read it, and it is for trying things out.
        return await audit(engine.reader)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    try:
        printed, _ = await process.communicate(msgspec.json.encode(places))
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        why = printed.decode(errors="replace").strip() or f"it ended with {process.returncode}"
        raise StoreUnavailable(f"the audit could not read the store: {why}")
    return msgspec.json.decode(printed, type=AuditReport)


def main() -> int:
    """Read URLs, print a report. Returns the exit code."""
    try:
        places = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[str, ...])
        sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(audit_store(places))))
    except SeckillError as error:
        sys.stdout.write(str(error))
        return FAILED_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
