"""Ctrl-C and SIGTERM as a request: the run finishes its chunk, writes a checkpoint and hands back what it has."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Stop:
    """Whether somebody asked a run to stop."""

    asked = False

    def __call__(self, number: int, _frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice by hand: now
        self.asked = True


@contextlib.contextmanager
def stopping(term: bool) -> Iterator[Stop]:
    """Inside, the first Ctrl-C (and SIGTERM, where `term`) sets `.asked`; a second Ctrl-C interrupts at once.

    Signals reach the main thread only, and a handler of the user's own is left alone: there, nothing is caught.
    """
    stop, before = Stop(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM) if term else (signal.SIGINT,):
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = handler
                signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
