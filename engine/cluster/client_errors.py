"""What the client of the brokers raises, as the cluster tells it."""

from __future__ import annotations

from typing import Final

import nats.errors
import nats.js.errors

from engine.errors import BrokerUnavailable

CLIENT_ERRORS: Final = (nats.errors.Error, TimeoutError, OSError, ValueError)
"""What the client raises when the broker cannot be reached or does not do it."""


def unavailable(error: BaseException) -> BrokerUnavailable:
    if isinstance(error, nats.js.errors.ServiceUnavailableError):
        return BrokerUnavailable(
            "JetStream does not answer: it is not on (a jetstream block in the settings of every broker), "
            "or its brokers have no majority"
        )
    # Those of JetStream name the broker's reason in their text alone, others have no text.
    return BrokerUnavailable(f"the broker did not do it: {str(error) or repr(error)}")
