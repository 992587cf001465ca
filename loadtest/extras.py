"""What is installed only with an extra of the package."""

from __future__ import annotations

import importlib.util

from engine.errors import ConfigError


def check_installed() -> None:
    """Raise ConfigError unless Locust can be started."""
    for module in ("locust", "hdrh"):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                "Locust is not installed; it comes with the extra `locust`: "
                "pip install 'seckill-engine[locust]'"
            )
