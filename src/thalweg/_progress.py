"""A progress line on stderr, only where it is asked for: how far, how fast, how long still, and the estimate so far."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

QUIET = 60.0  # seconds between two lines where no terminal shows them
Tell = Callable[..., None]  # tell(done, estimate="")


def silent(done: int, estimate: Any = "") -> None:
    """What is told where no progress is wanted."""


@contextlib.contextmanager
def progress(wanted: bool, total: int | None, what: str = "steps", begun: int = 0) -> Iterator[Tell]:
    """Gives a function `tell(done, estimate="")` to call with the amount done so far.

    An estimate that costs something to make may be a function without arguments.

    A terminal shows one line that is written over a few times a second; elsewhere a line is printed every
    minute. `begun` is what an earlier run had done: it does not count for the rate.
    """
    if not wanted:
        yield silent
        return
    line = _Line(total, what, begun)
    try:
        yield line.tell
    finally:
        line.close()


@contextlib.contextmanager
def steps_on(wanted: bool, shape: tuple[int, ...], steps: float, of: str = "cells") -> Iterator[Tell]:
    """Progress of a question to so many cells or states; `steps` is infinite where an answer has to settle."""
    size = " x ".join(str(n) for n in shape)
    with progress(wanted, None if math.isinf(steps) else int(steps), f"{size} {of}: steps") as tell:
        yield tell


class _Line:
    """The line, and when it was last shown."""

    def __init__(self, total: int | None, what: str, begun: int):
        self.total, self.what, self.begun = total, what, begun
        self.terminal = sys.stderr.isatty()
        self.start = self.shown = time.monotonic()
        self.width = 0
        self.last = ""

    def tell(self, done: int, estimate: Any = "") -> None:
        now = time.monotonic()
        so_far = str(estimate() if callable(estimate) else estimate)
        self.last = _sentence(done, self.total, self.what, done - self.begun, now - self.start, so_far)
        if now - self.shown >= (0.2 if self.terminal else QUIET) or done == self.total:
            self.shown = now
            self._show()

    def _show(self) -> None:
        if not self.last:
            return
        if self.terminal:
            sys.stderr.write(f"\r{self.last:<{self.width}}")
            self.width = len(self.last)
        else:
            sys.stderr.write(f"{self.last}\n")
        sys.stderr.flush()
        self.last = ""

    def close(self) -> None:
        if self.terminal:
            self._show()
            if self.width:
                sys.stderr.write("\n")


def _sentence(done: int, total: int | None, what: str, made: int, seconds: float, estimate: str) -> str:
    """`steps 1200 of 5000 (24%), 310 a second, 12 s left, E = 3.01 ± 0.02`."""
    rate = made / seconds if seconds > 0 else 0.0
    parts = [f"{what} {done}" if total is None else f"{what} {done} of {total} ({100 * done / max(total, 1):.0f}%)"]
    if rate > 0:
        parts.append(f"{rate:.3g} a second" if rate >= 1 else f"{1 / rate:.3g} s each")
        if total is not None and done < total:
            parts.append(f"{_time((total - done) / rate)} left")
    return ", ".join([*parts, *([estimate] if estimate else [])])


def _time(seconds: float) -> str:
    """Seconds as a reader likes them.

    >>> _time(12.3), _time(754.0), _time(9000.0)
    ('12 s', '12 min 34 s', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class BatchMeans:
    """The mean of a series that arrives in batches, its error from the spread of their means."""

    def __init__(self) -> None:
        self.means: dict[str, list[float]] = {}

    def add(self, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self.means.setdefault(name, []).append(value)

    def __str__(self) -> str:
        from thalweg._results import Estimate

        told = []
        for name, means in list(self.means.items())[:3]:
            n = len(means)
            mean = sum(means) / n
            error = (sum((m - mean) ** 2 for m in means) / (n * (n - 1))) ** 0.5 if n > 1 else float("inf")
            told.append(f"{name} = {Estimate(mean, error)}")
        return ", ".join(told)
