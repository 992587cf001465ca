"""Benchmarks of the service: `python -m loadtest.bench_http` (command).

steps measure by runs: load and wrk send orders, empty is a server that does nothing, overload sends ten times
too much. report writes it down.
"""
