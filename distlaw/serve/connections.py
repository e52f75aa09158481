"""Connections whose requests must begin in time: those that keep a server waiting for headers are cut off."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

SECONDS_FOR_HEADERS = 10.0
"""Limit from the connection, or the first byte of a further request on it, to the end of the headers."""


class Punctual:
    """Mixin of one of uvicorn's HTTP protocols, which themselves wait for headers for ever."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    cycle: Any
    """The request that is answered, or was last."""
    _waiting: asyncio.TimerHandle | None = None
    _begun = False
    """Return whether a part of the expected request has arrived."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)  # type: ignore[misc]
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Hand ``data`` on; see whether it completes the headers of a request, or begins a further one."""
        before, self._begun = self.cycle, True
        super().data_received(data)  # type: ignore[misc]
        if self.cycle is not before:
            self._be_content()
        elif self._waiting is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()
            self._begun = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._be_content()
        super().connection_lost(exc)  # type: ignore[misc]

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(SECONDS_FOR_HEADERS, self._cut_off)
        self._begun = False

    def _be_content(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _cut_off(self) -> None:
        self._waiting = None
        if self.transport.is_closing():
            return
        if self._begun:
            self.transport.write(_too_late())
        self.transport.close()


class PunctualProtocol(Punctual, AutoHTTPProtocol):  # type: ignore[valid-type, misc]
    """The faster of uvicorn's protocols that is installed."""


def _too_late() -> bytes:
    body = json.dumps({"detail": f"the headers did not arrive within {SECONDS_FOR_HEADERS:g} s"})
    head = "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
