"""`python -m loadtest.bench_http`: orders over HTTP."""

from __future__ import annotations

from loadtest.bench_http.command import app

if __name__ == "__main__":
    app()
