"""`python -m loadtest.bench`: the budgets."""

from __future__ import annotations

from loadtest.bench.command import app

if __name__ == "__main__":
    app()
