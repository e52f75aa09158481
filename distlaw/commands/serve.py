"""``distlaw serve``: the calculator page and its HTTP API on this machine."""

from __future__ import annotations

import ipaddress
import socket
from typing import Annotated

import typer

from scaling.errors import InputError, MissingExtra


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve")(serve)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8765,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines ask: there is no password.")
    ] = False,
) -> None:
    """Serve the calculator page and its HTTP API, for this machine alone unless asked.

    Uploaded calibrations stay in the browser. The API is described at /openapi.json.

    Examples:

        distlaw serve --open

        curl -s localhost:8765/plan -H 'Content-Type: application/json'
        -d '{"student_params": "300M", "budget": 1e21}'
    """
    local = _is_loopback(host)
    if not local and not allow_remote:
        raise InputError(
            f"--host {host}: whoever reaches this address could use this machine's processors, and there "
            "is no password; add --allow-remote if that is meant"
        )
    try:
        from distlaw.serve import servers
    except ModuleNotFoundError as error:
        raise MissingExtra(f"serve needs {error.name}: pip install 'distlaw[serve]'") from None
    with _listen(host, port, servers.BACKLOG) as listener:
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
        typer.echo(f"distlaw: {url} (Ctrl-C stops it)")
        if open_page:
            import webbrowser

            webbrowser.open(url)
        servers.answer(listener, ("localhost", "127.0.0.1", "::1", host) if local else ("*",))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    """A socket bound to the address, so that a taken port is known before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, proto=socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle's delay on
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise InputError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from None
    return listener
