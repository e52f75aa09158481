"""Client of a server that scores tokens: requests with retries, and errors in sentences.

The key is read from the environment, goes to this server alone and into no message; redirects are refused.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from scaling.errors import InputError
from sweeps.dag.external_shape import ServedModel
from sweeps.spec.pretrained import KEY_VARIABLE

REQUEST_SECONDS = 300.0
"""Seconds until a request counts as unanswered."""
TRIES, BACKOFF_SECONDS, BACKOFF_LIMIT = 6, 1.0, 30.0
"""Tries of a request, seconds before the second, doubled each time unless the server says when, and the
longest wait."""
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Codes of answers that another try may turn out otherwise."""


NO_ANSWER = (OSError, http.client.HTTPException, KeyError, TypeError, ValueError)
"""Errors of a server that does not tell what it is asked about itself."""
VERSIONS = (("version", "version"), ("get_server_info", "version"))
"""Endpoints at which vLLM and SGLang tell their version, and its name there."""


class ServerUnavailableError(ConnectionError):
    """Raised if a server gives no answer in all tries; the step is tried again later."""


class RequestRefusedError(InputError):
    """Raised if a server refuses a request, with its code."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow no redirect, to which the key would go along."""
        return


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True, slots=True)
class CompletionsClient:
    """Requests to the server of one model."""

    served: ServedModel

    def ask(
        self, path: str, fields: dict[str, Any], refusals: frozenset[int] = frozenset()
    ) -> dict[str, Any]:
        """Return the answer of the endpoint ``path`` to these fields.

        Args:
            path: Endpoint beside ``/v1``, or, after ``../``, at the server's root.
            fields: What is sent to it.
            refusals: Codes that are no use to try again, beside those that never are.

        Raises:
            RequestRefusedError: If the server refuses the request, the key or the model.
            InputError: If it answers with something else than a JSON object.
            ServerUnavailableError: If it does not answer.
        """
        root = self._root if path.startswith("../") else self.served.url
        url, reason, wait = f"{root}/{path.removeprefix('../')}", "", 0.0
        for number in range(TRIES):
            if number:
                time.sleep(min(BACKOFF_LIMIT, max(wait, BACKOFF_SECONDS * 2.0 ** (number - 1))))
            try:
                return self._once(url, json.dumps(fields).encode())
            except urllib.error.HTTPError as error:
                reason, wait = f"it answers {error.code}: {_message(error)}", _retry_after(error)
                if error.code not in BUSY - refusals:
                    raise RequestRefusedError(self._refusal(error.code, reason), error.code) from None
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            except ValueError as error:
                raise InputError(f"{self._who}: {url} answers with no JSON ({error})") from None
        raise ServerUnavailableError(
            f"{self._who} does not answer after {TRIES} tries ({reason}); what it has answered is kept, and "
            "the step goes on there when it is run again"
        )

    def models(self) -> list[str]:
        """Return the names of the models that the server has; none if it does not say."""
        with suppress(*NO_ANSWER):
            return [str(each["id"]) for each in self._once(f"{self.served.url}/models")["data"]]
        return []

    def version(self) -> str | None:
        """Return the server's version as vLLM or SGLang tells it, None if it does not."""
        for path, name in VERSIONS:
            with suppress(*NO_ANSWER):
                return str(self._once(f"{self._root}/{path}")[name])
        return None

    def _once(self, url: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(url, body, headers)  # noqa: S310 (the spec allows http and https alone)
        with _OPENER.open(request, timeout=REQUEST_SECONDS) as answer:
            found = json.loads(answer.read())
        if not isinstance(found, dict):
            raise ValueError(f"found {type(found).__name__}, expected an object")
        return found

    @property
    def _root(self) -> str:
        return self.served.url.removesuffix("/v1")

    @property
    def _who(self) -> str:
        return f"teacher {self.served.name} served at {self.served.url}"

    def _refusal(self, code: int, reason: str) -> str:
        if code in (401, 403):
            given = "is wrong" if os.environ.get(KEY_VARIABLE) else "is not set"
            return f"{self._who}: {reason}; the key in the environment variable {KEY_VARIABLE} {given}"
        if code == 404:
            known = ", ".join(self.models())
            about = f"it has the models {known}; set source.name" if known else "check source.served"
            return f"{self._who}: {reason}; {about}"
        if 300 <= code < 400:
            return (
                f"{self._who}: it redirects elsewhere ({code}), which is not followed; give that URL itself"
            )
        return (
            f"{self._who}: {reason}. It must score given token ids of the corpus's vocabulary, with the "
            "method's top log-probabilities, at the corpus's context and two tokens more (vLLM: "
            "--max-logprobs, --max-model-len)"
        )


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Return the seconds that a server asks to wait; zero if it says none, or a date."""
    told = error.headers.get("Retry-After", "") if error.headers else ""
    return float(told) if told.isdecimal() else 0.0


def _message(error: urllib.error.HTTPError) -> str:
    """Return what a server says of an error, in one line."""
    try:
        text = error.read(10_000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        found = json.loads(text)
        inner = found.get("error", found)
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except (ValueError, AttributeError):
        pass
    return (text.strip().splitlines() or [str(error.reason)])[0][:300]
