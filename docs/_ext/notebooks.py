"""Tutorials as notebooks: every one is also written as .ipynb beside its HTML, and says so under its title.

Cells tagged `needs-torch` are shown and not run where PyTorch is absent.
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

FOLDER = "tutorials"
FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TAGS = re.compile(r"\A(?::tags: \[([^\]]*)\]\n\n?)?")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")
NEEDS = "*All that this notebook needs is `pip install thalweg jupyter`.*"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def as_notebook(text: str) -> dict[str, Any]:
    """A page of MyST text as a notebook without outputs; links to other pages become their words."""
    text, cells, at = FRONT.sub("", text), [], 0
    for found in CELL.finditer(text):
        tags = TAGS.match(found[1])
        cells += [*_words(text[at : found.start()]), _code(found[1][tags.end() :], tags[1])]
        at = found.end()
    cells += _words(text[at:])
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def offered(text: str, name: str) -> str:
    """The page with a line on its notebook under its title."""
    link = f'<a href="{name}.ipynb" download>{name}.ipynb</a>'
    line = f"This page as a notebook: {link}. It needs nothing but `pip install thalweg jupyter`."
    return re.sub(r"^# .+$", lambda title: f"{title[0]}\n\n{line}", text, count=1, flags=re.MULTILINE)


def _words(text: str) -> list[dict[str, Any]]:
    text = LINK.sub(r"\1", text).strip()
    if text.startswith("# "):
        title, _, rest = text.partition("\n")
        text = f"{title}\n\n{NEEDS}\n{rest}"
    return [{"cell_type": "markdown", "metadata": {}, "source": text}] if text else []


def _code(source: str, tags: str | None) -> dict[str, Any]:
    metadata = {"tags": [tag.strip() for tag in tags.split(",")]} if tags else {}
    return {
        "cell_type": "code",
        "metadata": metadata,
        "source": source.rstrip(),
        "outputs": [],
        "execution_count": None,
    }


def _read(app: Any, page: str, source: list[str]) -> None:
    if importlib.util.find_spec("torch") is None:
        source[0] = source[0].replace("needs-torch", "skip-execution")
    if page.startswith(f"{FOLDER}/") and CELL.search(source[0]):
        source[0] = offered(source[0], page.rpartition("/")[2])


def _write(app: Any, problem: Exception | None) -> None:
    if problem is not None or app.builder.format != "html":
        return
    for path in sorted((Path(app.srcdir) / FOLDER).glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if CELL.search(text):
            notebook = json.dumps(as_notebook(text), indent=1, ensure_ascii=False)
            (Path(app.outdir) / FOLDER / f"{path.stem}.ipynb").write_text(notebook + "\n", encoding="utf-8")
