"""Ports that stay ours: a server that is killed finds its port free when it is started again."""

from __future__ import annotations

import socket
import sys


class HeldPort:
    """A port of 127.0.0.1 for one server, until `release`.

    On Linux a socket stays bound to it without listening. A server that sets SO_REUSEADDR, as all
    written in Go do, may listen there nevertheless, while nobody is given the port by chance: no
    other test that looks for a free one, and no outgoing connection, not even while the server is
    down. Elsewhere the system does not allow both, so the port is merely free now.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]
        # Only now: bound with it, the port might be one that another holder has.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux":
            self.release()

    def release(self) -> None:
        self._socket.close()
