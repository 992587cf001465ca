"""Benchmarks of the way over brokers: `python -m loadtest.bench_cluster` (command).

steps measure by runs: programs are the processes, caller is what they run, brokers are measured alone. report
writes it down, scaling computes more nodes from it.
"""
