"""`python -m loadtest.bench_cluster`: the way over the brokers."""

from __future__ import annotations

from loadtest.bench_cluster.command import app

if __name__ == "__main__":
    app()
