"""Batch settings under a load that changes: `python -m loadtest.changing_load` (command, runs, report)."""
