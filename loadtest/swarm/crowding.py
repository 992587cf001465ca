"""How many users there are, by --shape."""

from __future__ import annotations

from typing import Final

from locust import LoadTestShape

from loadtest.swarm.shapes import share

PERIOD_SECONDS: Final = 60.0
"""Of a run without --run-time, which goes on until it is stopped."""

SPAWN_PER_SECOND_MIN: Final = 1.0


class Crowding(LoadTestShape):
    """The share of --users that the shape wants at every moment.

    In an open loop the timetable has the shape, and all users are there to send it.
    """

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        now, seconds = self.get_run_time(), float(options.run_time or 0)
        if seconds and now >= seconds:
            return None
        users = int(options.num_users or 1)
        if not options.rate:
            progress = now / seconds if seconds else now % PERIOD_SECONDS / PERIOD_SECONDS
            users = max(1, round(users * share(options.shape, progress)))
        return users, max(float(options.spawn_rate or users), SPAWN_PER_SECOND_MIN)
