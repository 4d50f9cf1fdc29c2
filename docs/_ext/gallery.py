"""`{gallery}`: every named system with its picture and what its docstring says of it."""

import inspect
from pathlib import Path
from typing import Any

from docstrings import first_line, to_myst
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import thalweg as tw
from thalweg.studies._discover import list_systems

FOLDER = "_gallery"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def sections() -> dict[str, str]:
    """What the gallery says of each system, by its name, as MyST."""
    return {name: _section(name) for name, _ in list_systems()}


def _section(name: str) -> str:
    system = getattr(tw.systems, name)
    said = f"tw.systems.{name}"
    text = inspect.getdoc(system) or ""
    told = to_myst(text, list(inspect.signature(system).parameters))
    picture = f"```{{image}} {FOLDER}/{name}.png\n:alt: {_alt(text)}\n:class: figure\n:width: 100%\n```"
    return f"## {name}\n\n{picture}\n\n{told}\n\n{{py:obj}}`Reference <{said}>`"


def _alt(text: str) -> str:
    return first_line(text).replace("`", "").split(": ")[0].rstrip(".")


class Gallery(SphinxDirective):
    """Draws the pictures that are not there yet, and writes the sections."""

    def run(self) -> list[nodes.Node]:
        import matplotlib

        matplotlib.use("agg")
        from pictures import draw

        folder = Path(self.env.srcdir) / FOLDER
        folder.mkdir(exist_ok=True)
        found = sections()
        for name in found:
            figure = draw(name)
            figure.savefig(folder / f"{name}.png", dpi=120)
            matplotlib.pyplot.close(figure)
        # Headings need a place in the page's own tree.
        lines = "\n\n".join(found.values()).splitlines()
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, source=self.get_source_info()[0]), self.content_offset, node,
                                match_titles=True)  # fmt: skip
        return node.children
