"""`python -m loadtest.changing_load`: batch settings under a load that changes."""

from __future__ import annotations

from loadtest.changing_load.command import app

if __name__ == "__main__":
    app()
