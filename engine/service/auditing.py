"""The audit of a store that is being sold from, in a process of its own.

It replays every event there is: on the event loop nobody would be sold anything meanwhile, and a thread
would take half of the interpreter from the sale.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from engine.engine import Engine
from engine.errors import SeckillError, StoreUnavailable
from engine.inventory.audit import AuditReport, audit
from engine.runtime import open_read_models, open_reader

IN_MEMORY: Final = "memory:"


async def audit_live(engine: Engine) -> AuditReport:
    """Audit what is durable now, with the read models. Raises StoreUnavailable."""
    url = engine.settings.store.url
    if url == IN_MEMORY:
        # Nobody else can read it, and it is for trying things out.
        return await audit(engine.reader)
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    try:
        found = await asyncio.get_running_loop().run_in_executor(pool, _audit, url)
    finally:
        # Its end is not waited for: that would block the event loop.
        pool.shutdown(wait=False, cancel_futures=True)
    if isinstance(found, str):
        raise StoreUnavailable(f"the audit could not read the store: {found}")
    return found


def _audit(url: str) -> AuditReport | str:
    """The report, or why there is none; the URL comes through a pipe, where nobody lists it."""

    async def run() -> AuditReport:
        reader = await open_reader(url)
        try:
            async with open_read_models(url) as read_models:
                return await audit(reader, None, read_models)
        finally:
            await reader.close()

    try:
        return asyncio.run(run())
    except SeckillError as error:
        return str(error)
