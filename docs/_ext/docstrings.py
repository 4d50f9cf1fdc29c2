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
        f"```pycon\n{block}\n```"
        if block.lstrip().startswith(">>>")
        else _formulas(block)
        if block.startswith("```")
        else _prose(block, arguments, link)
        for block in blocks
    )


def _formulas(block: str) -> str:
    """Lines between fences: formulas, words beside them at a distance; left as they are where one is not understood."""
    lines: list[str] = []
    for line in block.splitlines()[1:-1]:
        if line.startswith(" ") and lines:
            lines[-1] += line if lines[-1].endswith("  ") else f" {line.strip()}"
        else:
            lines.append(line)
    drawn = [[_cell(cell) for cell in re.split(r"\s{3,}", line.strip())] for line in lines]
    if any(cell is None for line in drawn for cell in line):
        return block
    inside = "\n\n".join(" &emsp; ".join(filter(None, line)) for line in drawn)
    return f"::::{{container}} formulas\n{inside}\n::::"


def _cell(text: str) -> str | None:
    comma = "," if text.endswith(",") else ""
    if (latex := to_latex(text.removesuffix(","))) is not None:
        return f"${latex}${comma}"
    return text if re.fullmatch(r"[\w ,.:;'()-]+", text) else None


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
