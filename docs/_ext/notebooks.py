"""What the pages with examples need besides MyST-NB: tutorials to take along, and output in the pieces it came in."""

import re
from typing import Any

from myst_nb.core import render


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _offer)
    # MyST-NB ends a line after every piece of a stream, and a command's output comes in pieces of any length.
    render.coalesce_streams = joined
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def joined(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell with the pieces of each stream, stdout and stderr, put together again."""
    kept: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] in streams:
            streams[output["name"]]["text"] += output["text"]
            continue
        if output["output_type"] == "stream":
            streams[output["name"]] = output
        kept.append(output)
    return [output for output in kept if output["output_type"] != "stream" or output["text"].strip()]


def _offer(app: Any, name: str, source: list[str]) -> None:
    if name.startswith("tutorials/") and "{code-cell}" in source[0]:
        source[0] = offered(source[0], name.rsplit("/", 1)[1])


def offered(text: str, name: str) -> str:
    """The page with a line on its notebook under its title."""
    line = f"This page as a notebook: {{nb-download}}`{name}.ipynb`. It needs nothing but `pip install thalweg`."
    return re.sub(r"^# .+$", lambda title: f"{title[0]}\n\n{line}", text, count=1, flags=re.MULTILINE)
