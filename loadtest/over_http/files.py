"""The histograms of a load test as files that HdrHistogram's own tools read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from hdrh.log import HistogramLogWriter

from loadtest.results import write_whole
from loadtest.swarm.books import ORDER, Page, decode_histogram

LOG_FILE: Final = "latency.hlog"
PERCENTILES_FILE: Final = "latency.hgrm"

_MICROS_PER_MILLI: Final = 1_000.0


def write_histograms(page: Page, directory: Path) -> None:
    """Write latency.hlog, a histogram of orders a second, and latency.hgrm, the percentiles of all.

    Values are microseconds in the log and milliseconds in the percentiles.
    """
    log = io.StringIO()
    writer = HistogramLogWriter(log)
    writer.output_comment("Orders, microseconds from when each was due to its definite answer")
    writer.output_log_format_version()
    writer.output_legend()
    for second, book in sorted(page.seconds.items()):
        if book.decided:
            writer.output_interval_histogram(
                decode_histogram(book.latency), second, second + 1, _MICROS_PER_MILLI
            )
    write_whole(directory / LOG_FILE, log.getvalue().encode())
    encoded = page.histograms.get(ORDER)
    if encoded is not None:
        table = io.BytesIO()
        decode_histogram(encoded).output_percentile_distribution(table, _MICROS_PER_MILLI)
        write_whole(directory / PERCENTILES_FILE, table.getvalue())
