"""Looking at another process until something is so: the cores are its, not the one's who looks."""

from __future__ import annotations

import threading
from typing import Final

POLL_SECONDS: Final = 0.01

_NEVER: Final = threading.Event()


def pause() -> None:
    """Between two looks."""
    _NEVER.wait(POLL_SECONDS)
