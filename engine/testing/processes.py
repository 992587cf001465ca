"""How tests and demonstrations end, pause and resume the processes they start."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import Any, TypeAlias

Process: TypeAlias = subprocess.Popen[Any]


def pause(process: Process) -> None:
    """Take the processor away from it (SIGSTOP); returns when none of its threads runs any more.

    One that has ended stays as it is.
    """
    process.send_signal(signal.SIGSTOP)
    # The signal is only on its way yet. WNOWAIT: who owns the process still sees how it ended.
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def resume(process: Process) -> None:
    process.send_signal(signal.SIGCONT)


def end(process: Process, number: signal.Signals, seconds_max: float) -> int:
    """Send it a signal and return its exit code when it is gone; killed after `seconds_max`."""
    if process.poll() is None:
        process.send_signal(number)
        # Paused, it would take no other signal than SIGKILL.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
