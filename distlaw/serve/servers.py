"""Several processes that answer at one address."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from distlaw.serve.api import create_app
from distlaw.serve.connections import PunctualProtocol
from distlaw.serve.workers import deaf_to_interrupts
from scaling.cpu import usable_cores

SERVERS = 2
"""Processes, where there are as many cores."""
BACKLOG = 2048
"""Connections that wait to be accepted."""
HUNG = 30
"""Seconds without a sign of life, or for a start, after which a process is replaced."""
LAST_WORDS = 5
"""Seconds in which answers may still be finished when the server is stopped."""


class FairLoop(asyncio.SelectorEventLoop):
    """Event loop that accepts one connection each time around, so that the servers share them.

    Left alone, the first server to look accepts all that wait, and its askers wait for each other while the
    other server idles. One that has many connections takes longer to come around, and so accepts fewer.
    """

    async def create_server(self, *arguments: Any, **named: Any) -> asyncio.Server:
        """Return a server; asyncio accepts as many at once as its backlog, which is set right afterwards."""
        server = await super().create_server(*arguments, **named | {"backlog": 1})
        for listener in server.sockets:
            listener._sock.listen(named["backlog"])  # type: ignore[attr-defined]
        return server


class Servers(Multiprocess):
    """uvicorn's supervisor, which alone hears Ctrl-C, and notices at once when a process has died."""

    def init_processes(self) -> None:
        """Start them, and let go of their ends of the pipes, so that these close when they die."""
        with deaf_to_interrupts():
            super().init_processes()
        for process in self.processes:
            process.child_conn.close()


def answer(listener: socket.socket, hosts: Sequence[str]) -> None:
    """Serve the application to browsers that call it by these names, until interrupted."""
    cores = usable_cores()
    servers = min(cores, SERVERS)
    config = Config(
        partial(create_app, hosts, -(-cores // servers)),
        factory=True,
        workers=servers,
        loop=f"{FairLoop.__module__}:{FairLoop.__qualname__}",
        http=PunctualProtocol,
        log_level="warning",
        timeout_keep_alive=20,
        timeout_worker_healthcheck=HUNG,
        timeout_graceful_shutdown=LAST_WORDS,
        backlog=BACKLOG,
        server_header=False,
        proxy_headers=False,
    )
    Servers(config, [listener]).run()
