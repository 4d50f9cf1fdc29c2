"""A progress line on stderr, only where it is asked for."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(wanted: bool, total: int, what: str = "steps") -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the amount done so far."""
    if not wanted:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
