"""Tutorials as notebooks: every one is also written as .ipynb beside its HTML, and says so under its title.

Cells tagged `needs-torch` are shown and not run where PyTorch is absent.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

import nbformat

FOLDER = "tutorials"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TAGS = re.compile(r"\A(?::tags: \[([^\]]*)\]\n)?\n?")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")
HEAD = "*Open this notebook anywhere: all it needs is `pip install thalweg jupyter`.*"


def as_notebook(text: str) -> nbformat.NotebookNode:
    """A page of MyST text as a notebook without outputs; links to other pages become their words."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    cells, at = [], 0
    for found in CELL.finditer(text):
        cells += _words(text[at : found.start()])
        tags = TAGS.match(found[1])
        code = nbformat.v4.new_code_cell(found[1][tags.end() :].rstrip())
        if tags[1]:
            code.metadata["tags"] = [tag.strip() for tag in tags[1].split(",")]
        cells.append(code)
        at = found.end()
    cells += _words(text[at:])
    cells.insert(1, nbformat.v4.new_markdown_cell(HEAD))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # the same file from the same page
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _words(text: str) -> list[nbformat.NotebookNode]:
    text = LINK.sub(r"\1", text).strip()
    # The title stands alone, so that the line about installing can follow it.
    parts = text.split("\n\n", 1) if text.startswith("# ") else [text]
    return [nbformat.v4.new_markdown_cell(part) for part in parts if part]


def offered(text: str, name: str) -> str:
    """The page with a line on its notebook under its title."""
    link = f'<a href="{name}.ipynb" download>{name}.ipynb</a>'
    line = f"This page as a notebook: {link}. It needs nothing but `pip install thalweg jupyter`."
    return re.sub(r"^# .+$", lambda title: f"{title[0]}\n\n{line}", text, count=1, flags=re.MULTILINE)


def _read(app: Any, page: str, source: list[str]) -> None:
    if importlib.util.find_spec("torch") is None:
        source[0] = source[0].replace("needs-torch", "skip-execution")
    if _runs(page, source[0]):
        source[0] = offered(source[0], page.rpartition("/")[2])


def _runs(page: str, text: str) -> bool:
    return page.startswith(f"{FOLDER}/") and "```{code-cell}" in text


def _write(app: Any, problem: Exception | None) -> None:
    if problem is not None or app.builder.format != "html":
        return
    for path in sorted((Path(app.srcdir) / FOLDER).glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if _runs(f"{FOLDER}/{path.stem}", text):
            nbformat.write(as_notebook(text), Path(app.outdir) / FOLDER / f"{path.stem}.ipynb")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
