"""A docstring as text for the site: its formulas drawn, its examples coloured, its public names linked."""

import inspect
import re
from collections.abc import Callable, Collection

from formulas import to_latex

_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# Short docstrings put several items of a list on one line: `- `a`: this. - `b`: that.`
_NEXT_ITEM = re.compile(r"(?<=[^\s-])\s+- (?=`[^`]+`(?:, `[^`]+`)*(?: [^:`]+)?:)")
_HEADING = re.compile(r"(?m)^(?=\*\*[A-Z][a-z ]+\*\*)")


def to_myst(text: str, arguments: Collection[str] = (), link: Callable[[str], str | None] = lambda name: None) -> str:
    """The docstring `text` as MyST.

    A formula between backticks becomes a formula, unless it is the name of one of the `arguments`; a name that `link`
    knows the home of becomes a link.
    """
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(
        f"```pycon\n{block}\n```" if block.lstrip().startswith(">>>") else _prose(block, arguments, link)
        for block in blocks
    )


def _prose(block: str, arguments: Collection[str], link: Callable[[str], str | None]) -> str:
    block = _HEADING.sub("\n", _NEXT_ITEM.sub("\n- ", block))

    def span(match: re.Match) -> str:
        inside = " ".join(match[1].split())
        if inside in arguments:
            return f"`{inside}`"
        if (home := link(inside)) is not None:
            return f"{{py:obj}}`{inside} <{home}>`"
        latex = to_latex(inside)
        return f"`{inside}`" if latex is None else f"${latex}$"

    return _SPAN.sub(span, block).strip("\n")


def first_line(text: str) -> str:
    """The sentence a docstring opens with."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
