"""Messages to a webhook when a sweep waits for nodes, is done, is halted, or fails; none ever stops it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scaling.errors import InputError

if TYPE_CHECKING:
    from sweeps.execute.state import State

LOG = logging.getLogger("distlaw")
VARIABLE = "DISTLAW_WEBHOOK"
"""Environment variable of the URL, which is a secret for most services and so is written nowhere."""
QUIET_SECONDS = 600.0
"""Seconds between two messages about failures."""
TIMEOUT_SECONDS = 10.0


class Webhook:
    """Sender of messages about one sweep, as JSON that Slack, Mattermost and scripts read (``text``)."""

    def __init__(self, url: str, sweep: str, store: str) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InputError(f"{VARIABLE}: a URL of http or https is needed")
        self.url, self.sweep, self.store = url, sweep, store
        self.told_failures, self.told_at, self.told_waiting = 0, -QUIET_SECONDS, False
        self.sending: list[threading.Thread] = []

    @classmethod
    def from_environment(cls, sweep: str, store: str) -> Webhook | None:
        """Return the sender that the environment asks for, if any.

        Raises:
            InputError: for a URL that is none.
        """
        url = os.environ.get(VARIABLE, "").strip()
        return cls(url, sweep, store) if url else None

    def watch(self, state: State) -> None:
        """Tell of nodes that do not come, once, and of steps that were given up since the last message, not
        more often than every ten minutes."""
        if state.waiting and not self.told_waiting:
            self._send("waiting", state.waiting, state)
        self.told_waiting = state.waiting is not None
        count = len(state.failed)
        if count > self.told_failures and time.monotonic() - self.told_at >= QUIET_SECONDS:
            step, why = list(state.failed.items())[-1]
            self.told_failures, self.told_at = count, time.monotonic()
            words = f"{count} step{'s' * (count > 1)} failed; the last: {state.step(step).label}: {why}"
            self._send("failing", words, state)

    def end(self, state: State) -> None:
        """Tell how the sweep ended, and wait until all messages are sent or given up."""
        if state.halted:
            self._send("halted", f"halted: {state.halted}", state)
        elif state.complete:
            self._send("done", "done", state)
        else:
            self._send("failed", "ended with failures", state)
        for thread in self.sending:
            thread.join()

    def _send(self, event: str, words: str, state: State) -> None:
        message = {
            "text": f"distlaw: {self.sweep}: {words} ({state.summary}, {self.store})",
            "event": event,
            "sweep": self.sweep,
            "store": self.store,
            "steps": len(state.dag.steps),
            "done": len(state.done),
            "failed": len(state.failed),
            "dashboard": state.dashboard,
        }
        thread = threading.Thread(target=self._post, args=(message,), name="webhook", daemon=True)
        self.sending.append(thread)
        thread.start()

    def _post(self, message: dict[str, object]) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "distlaw"}
        request = urllib.request.Request(self.url, json.dumps(message).encode(), headers)  # noqa: S310
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS):
                pass
        except (OSError, ValueError) as error:
            LOG.warning("%s: the message %r was not taken%s", VARIABLE, message["event"], _reason(error))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refusal of redirects, which would turn the message into a question without content."""

    def redirect_request(self, *_: object) -> None:
        """Return no request, so that the redirect is an error."""


def _reason(error: Exception) -> str:
    """Return why a message was not taken, without the URL or its path."""
    if not isinstance(error, urllib.error.HTTPError):
        return ""
    if not 300 <= error.code < 400:
        return f" ({error.code})"
    host = urlsplit(error.headers.get("Location", "")).hostname
    where = f" to {host}" if host else ""
    return f" ({error.code}: the URL redirects{where}; set the variable to the URL that it leads to)"
