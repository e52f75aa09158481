"""Concurrent requests to an object store, with a limit and a budget of retries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sweeps.store import clock
from sweeps.store.outcomes import is_transient

CONCURRENT = 64
"""Largest number of requests at a time."""
RETRY_SHARE, LEAST_RETRIES = 0.1, 20
"""Retries that a set of requests may take together: a share of them, and at least so many."""
FIRST_WAIT = 0.2
"""Seconds before the first retry, doubled each time; the client has retried by itself before."""
MOST_ROUNDS = 5
"""Rounds of retries, some seconds in all; a store that fails for longer is its caller's concern."""

Place = TypeVar("Place")
Answer = TypeVar("Answer")


def request_all(ask: Callable[[Place], Answer], places: Iterable[Place]) -> list[Answer]:
    """Return ``ask(place)`` for every place, in order, with up to ``CONCURRENT`` requests at a time.

    Requests that fail for a reason that may be temporary are repeated, as they change nothing, as long as
    few do: a store that throttles must not be asked more often for it.

    Raises:
        Exception: of the first request that fails for another reason, or beyond the budget of retries.
    """
    asked = list(places)
    answers: list[Answer | Exception] = concurrently(lambda place: _attempt(ask, place), asked)
    budget, rounds = max(LEAST_RETRIES, RETRY_SHARE * len(asked)), 0
    while failed := [k for k, answer in enumerate(answers) if isinstance(answer, Exception)]:
        budget -= len(failed)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        for error in errors:
            if budget < 0 or rounds == MOST_ROUNDS or not is_transient(error):
                raise error
        clock.sleep(FIRST_WAIT * 2**rounds)
        rounds += 1
        again = concurrently(lambda place: _attempt(ask, place), [asked[k] for k in failed])
        for k, answer in zip(failed, again, strict=True):
            answers[k] = answer
    return [answer for answer in answers if not isinstance(answer, Exception)]


def _attempt(ask: Callable[[Place], Answer], place: Place) -> Answer | Exception:
    try:
        return ask(place)
    except Exception as error:
        return error


def concurrently(ask: Callable[[Place], Answer], places: list[Place]) -> list[Answer]:
    """Return ``ask(place)`` for every place, in order, by threads."""
    if len(places) < 2:
        return [ask(place) for place in places]
    with ThreadPoolExecutor(min(CONCURRENT, len(places)), thread_name_prefix="store") as threads:
        return list(threads.map(ask, places))
