"""Benchmarks of the engine: `python -m loadtest.bench` (command).

steps measure by runs, ceilings is what the machine could do at best; long and start are about histories of
millions of events, memory about one order. report writes it down.
"""
