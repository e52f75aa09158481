"""Client of an OpenAI-style endpoint for completions: requests with retries, and errors in sentences.

The key is read from the environment, goes to this server alone and into no message; redirects are refused.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from scaling.errors import InputError
from sweeps.dag.external_shape import ServedModel
from sweeps.spec.pretrained import KEY_VARIABLE

REQUEST_SECONDS = 300.0
"""Seconds until a request counts as unanswered."""
TRIES, BACKOFF_SECONDS, BACKOFF_LIMIT = 6, 1.0, 30.0
"""Tries of a request, seconds before the second, doubled each time, and the longest wait."""
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Codes of answers that another try may turn out otherwise."""


class ServerUnavailableError(ConnectionError):
    """Raised if a server gives no answer in all tries; the step is tried again later."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow no redirect, to which the key would go along."""
        return


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True, slots=True)
class CompletionsClient:
    """Requests to the server of one model."""

    served: ServedModel

    def completions(self, **fields: Any) -> dict[str, Any]:
        """Return the answer of ``/completions`` to these fields.

        Raises:
            InputError: If the server refuses the request, the key or the model.
            ServerUnavailableError: If it does not answer.
        """
        return self._ask("completions", json.dumps({"model": self.served.name, **fields}).encode())

    def models(self) -> list[str]:
        """Return the names of the models that the server has; none if it does not say."""
        try:
            return [str(each["id"]) for each in self._ask("models", None)["data"]]
        except (InputError, ServerUnavailableError, KeyError, TypeError):
            return []

    def version(self) -> str | None:
        """Return the server's version as vLLM tells it, None if it does not."""
        try:
            return str(self._ask("../version", None, tries=1)["version"])
        except (InputError, ServerUnavailableError, KeyError, TypeError):
            return None

    def _ask(self, path: str, body: bytes | None, tries: int = TRIES) -> dict[str, Any]:
        root = self.served.url.removesuffix("/v1") if path.startswith("../") else self.served.url
        url, reason = f"{root}/{path.removeprefix('../')}", ""
        for number in range(tries):
            if number:
                time.sleep(min(BACKOFF_LIMIT, BACKOFF_SECONDS * 2.0 ** (number - 1)))
            try:
                return self._once(url, body)
            except urllib.error.HTTPError as error:
                reason = f"it answers {error.code}: {_message(error)}"
                if error.code not in BUSY:
                    raise InputError(self._refusal(error.code, reason)) from None
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            except ValueError as error:
                raise InputError(f"{self._who}: {url} answers with no JSON ({error})") from None
        raise ServerUnavailableError(f"{self._who} does not answer after {tries} tries ({reason})")

    def _once(self, url: str, body: bytes | None) -> dict[str, Any]:
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
            f"{self._who}: {reason}. It must score given token ids with the method's top log-probabilities, "
            "at the corpus's context and two tokens more (vLLM: --max-logprobs, --max-model-len)"
        )


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
