"""What every test runs under: no blocked event loop, and repeatable random examples."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

# Examples are not timed: the machine is shared. A build server runs the same examples every time,
# a developer's machine looks for new ones; either prints how to repeat a failure.
settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def _blocking_calls_raise(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise BlockingError when our code blocks the event loop of an async test.

    Calls of other threads, such as a store's writer, pass: no loop runs there.
    """
    if request.node.get_closest_marker("asyncio") is None:
        yield
        return
    with blockbuster_ctx(["engine", "loadtest"]) as detector:
        # Settings are read once, before anything is served.
        for name in ("io.TextIOWrapper.read", "io.BufferedReader.read", "os.stat"):
            detector.functions[name].can_block_in("engine/config.py", "_read_toml")
        yield
