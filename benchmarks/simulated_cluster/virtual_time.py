"""Virtual time: events in order, and threads of which one at a time runs, until it waits."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

EPOCH = 1.9e9
"""Seconds since the epoch at which a simulation begins."""


Turn = tuple[threading.Thread, int]
"""A thread, and the number of its sleep that ends."""


class Lost(BaseException):
    """Raised in a thread that is killed; nothing that the code under test catches."""


class VirtualClock:
    """Clock of a simulation, which jumps from event to event.

    Threads take turns: one that sleeps hands over to the owner of the next event. Time that passes in an
    event itself, as when a simulated worker asks the store, is not counted.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.turns: dict[threading.Thread, threading.Event] = {}
        self.killed: set[threading.Thread] = set()
        self.inside_event = False
        self.failed: BaseException | None = None
        self._events: list[tuple[float, int, Callable[[], None] | Turn]] = []
        self._sleeps: dict[threading.Thread, int] = {}
        """Number of the last sleep of each thread, so that it is woken once."""
        self._count = itertools.count()
        self._main = threading.Event()
        self.ahead: Callable[[], float] = lambda: 0.0
        """Returns the seconds by which the wall clock of whoever asks is ahead."""

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return EPOCH + self.now + self.ahead()

    def at(self, time: float, what: Callable[[], None] | Turn) -> None:
        """Do ``what``, or resume a thread, at a time."""
        heapq.heappush(self._events, (max(time, self.now), next(self._count), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Do ``what`` after ``seconds``."""
        self.at(self.now + seconds, what)

    def sleep(self, seconds: float) -> None:
        """Wait in a thread, while others and events have their turns."""
        if self.inside_event or seconds <= 0:
            return
        me = threading.current_thread()
        self._sleeps[me] = self._sleeps.get(me, 0) + 1
        self.at(self.now + seconds, (me, self._sleeps[me]))
        if self._hand_over(me):
            self.turns[me].wait()
        self.turns[me].clear()
        self._sleeps[me] += 1
        if me in self.killed:
            raise Lost

    def wake(self, thread: threading.Thread) -> None:
        """End the sleep of a thread now."""
        if thread in self._sleeps:
            self.at(self.now, (thread, self._sleeps[thread]))

    def start(self, at: float, work: Callable[[], None]) -> threading.Thread:
        """Begin a thread at a time."""

        def run() -> None:
            self.turns[thread].wait()
            self.turns[thread].clear()
            try:
                work()
            except Lost:
                pass
            except BaseException as error:
                self.failed = self.failed or error
            del self.turns[thread]
            self._hand_over(None)

        thread = threading.Thread(target=run, daemon=True)
        self.turns[thread] = threading.Event()
        self.at(at, (thread, 0))
        thread.start()
        return thread

    def run(self) -> None:
        """Run until no thread is left."""
        self._hand_over(None)
        self._main.wait()
        if self.failed:
            raise self.failed

    def _hand_over(self, me: threading.Thread | None) -> bool:
        """Do events until a thread has its turn; False if that is this one."""
        while self._events and self.turns and not self.failed:
            self.now, _, what = heapq.heappop(self._events)
            if isinstance(what, tuple):
                thread, sleep = what
                if thread in self.turns and self._sleeps.get(thread, 0) == sleep:
                    self.turns[thread].set()
                    return thread is not me
                continue
            self.inside_event = True
            try:
                what()
            except BaseException as error:
                self.failed = self.failed or error
            finally:
                self.inside_event = False
        self._main.set()
        return True
