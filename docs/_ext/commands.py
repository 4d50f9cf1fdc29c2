"""`{commands}`: what every command says of itself."""

import io
from collections.abc import Iterator
from typing import Any

from referee import _Written
from rich.console import Console

from thalweg.cli import app as command


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Commands(_Written):
    """A section a command with its help."""

    def text(self) -> str:
        return "\n\n".join(
            f"## thalweg {' '.join(words)}\n\n```text\n{helped(words)}\n```" for words in command_words(command)
        )


def command_words(app: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something: ("list",), ("energy", "train"), ..."""
    for name in app:
        if name.startswith("-"):
            continue
        below = list(command_words(app[name], (*before, name)))
        yield from below or [(*before, name)]


def helped(words: tuple[str, ...]) -> str:
    """The help text as it stands at a terminal of 88 columns."""
    kept = io.StringIO()
    command.help_print(list(words), console=Console(file=kept, width=88, no_color=True))
    return "\n".join(line.rstrip() for line in kept.getvalue().strip("\n").splitlines())
