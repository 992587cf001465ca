"""Which users come, by weight."""

from __future__ import annotations

from typing import Final

DEFAULT_MIX: Final = "buyer:8,reader:1,impatient:1"
USER_NAMES: Final = ("buyer", "list", "reader", "impatient")


def parse_mix(text: str) -> dict[str, int]:
    """Read `buyer:8,reader:1`. Raises ValueError naming what is allowed."""
    mix: dict[str, int] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        if name not in USER_NAMES or name in mix or not (weight or "1").isdecimal():
            raise ValueError(
                f"takes {', '.join(USER_NAMES)} with whole weights, each once, such as "
                f"buyer:8,reader:1; got {text[:60]!r}"
            )
        mix[name] = int(weight or 1)
    if not any(mix.values()):
        raise ValueError(f"must have a weight above 0, got {text[:60]!r}")
    return {name: weight for name, weight in mix.items() if weight}
