"""Limits of every request (size, rate, origin) and headers of every answer."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_HOST = re.compile(r"(\[(?P<address>[^\[\]]*)\]|(?P<name>[^:\[\]]+))(:\d*)?")
DROPPED = 8
"""Times the largest body that is read of one that is too large."""


class Limits:
    """ASGI middleware: a body is read whole, within a size and a time, by a bounded number of requests."""

    def __init__(self, app: ASGIApp, largest_body: int, most_requests: int, seconds_to_send: float) -> None:
        self._app, self._largest, self._most, self._seconds = (
            app,
            largest_body,
            most_requests,
            seconds_to_send,
        )
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if self._inside >= self._most:
            return await refusal(503, "too many requests at once; try again in a second")(
                scope, receive, send_guarded
            )
        self._inside += 1
        try:
            await self._admit(scope, receive, send_guarded)
        finally:
            self._inside -= 1
        return None

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except TimeoutError:
            answer = refusal(408, f"the request did not arrive within {self._seconds:g} s")
            return await answer(scope, receive, send)
        if body is None:
            answer = refusal(413, f"the request is larger than {self._largest:,} bytes")
            return await answer(scope, receive, send)
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(messages, None) or await receive()

        return await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or ``None`` where it is too large.

        The rest of one that is gets read and dropped, up to a limit: who is cut off hears no answer.
        """
        parts, size, more = [], 0, True
        while more and size <= DROPPED * self._largest:
            message = await receive()
            size += len(message.get("body", b""))
            if size <= self._largest:
                parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(parts) if size <= self._largest else None


class Hosts:
    """ASGI middleware: only requests that call the server by one of its names are answered.

    A page elsewhere could else reach a server of this machine under a name of its own (DNS rebinding).

    Args:
        app: the application.
        hosts: names and addresses, IPv6 without brackets; ``*`` is any.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._any = app, "*" in hosts
        self._hosts = {_canonical(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._any:
            header = Headers(scope=scope).get("host", "")
            if host_of(header) not in self._hosts:
                names = ", ".join(sorted(self._hosts))
                sentence = f"the header Host names {header!r:.60}; this server answers to {names}"
                return await refusal(400, sentence)(scope, receive, send)
        return await self._app(scope, receive, send)


def host_of(header: str) -> str:
    """The name or address in a ``Host`` header, without port and brackets: ``::1`` of ``[::1]:8765``."""
    found = _HOST.fullmatch(header.strip())
    return _canonical(found["address"] or found["name"]) if found else ""


def _canonical(host: str) -> str:
    """Return a host in lower case, addresses in their shortest form."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


def refusal(status: int, sentence: str) -> JSONResponse:
    """An answer that says why there is none."""
    headers = (
        {"Retry-After": "1"} if status == 503 else {"Connection": "close"} if status in (408, 413) else {}
    )
    return JSONResponse({"detail": sentence}, status, headers)
