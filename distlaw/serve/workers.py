"""Answers computed in processes of their own, so that no long question delays a short one."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Busy(Exception):
    """Too many questions wait already, or this one took too long; try again later."""


class Workers:
    """A few processes and a bounded queue before them."""

    def __init__(self, count: int, waiting: int, seconds: float) -> None:
        self._count, self._room, self._seconds = count, count + waiting, seconds
        self._inside = 0
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_prepare)
        with deaf_to_interrupts():
            for _ in range(self._count):  # start them before the first question
                pool.submit(os.getpid)
        return pool

    async def run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The function's value, or its exception.

        Raises :class:`Busy` at once where the queue is full, and after ``seconds`` of waiting.
        """
        if self._inside >= self._room:
            raise Busy("too many questions at once; try again in a second")
        pool = self._pool
        try:
            future = pool.submit(function, *arguments, **named)
        except BrokenProcessPool:
            raise self._renewed(pool) from None
        self._inside += 1
        future.add_done_callback(self._left(asyncio.get_running_loop()))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            raise Busy(f"no answer within {self._seconds:g} s; ask for less, or try again later") from None
        except BrokenProcessPool:
            raise self._renewed(pool) from None

    def close(self) -> None:
        """Stop; what waits is dropped."""
        self._pool.shutdown(wait=not self._inside, cancel_futures=True)

    def _left(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        def leave() -> None:
            self._inside -= 1

        def left(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(leave)

        return left

    def _renewed(self, broken: ProcessPoolExecutor) -> Busy:
        """A new pool in place of one that lost a process, if nobody has made it yet."""
        if self._pool is broken:
            self._pool = self._start()
        return Busy("a worker was lost; try again")


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes that start meanwhile never see Ctrl-C: a terminal sends it to all, and it is for the first.

    It is blocked, which they inherit, and comes through here afterwards; Windows knows no such thing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would lift the block if it had to be started meanwhile
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare() -> None:
    """Load what answers need, and end with the server."""
    import distlaw.serve.answers  # noqa: F401

    follow_parent()


def follow_parent() -> None:
    """End with the process that started this one, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os._exit(0)
