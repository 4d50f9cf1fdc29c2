"""Every page of the tutorials says where it is to be had as a notebook."""

import re
from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _offer(app: Any, name: str, source: list[str]) -> None:
    if name.startswith("tutorials/") and "{code-cell}" in source[0]:
        source[0] = offered(source[0], name.rsplit("/", 1)[1])


def offered(text: str, name: str) -> str:
    """The page with a line on its notebook under its title."""
    line = f"This page as a notebook: {{nb-download}}`{name}.ipynb`. It needs nothing but `pip install thalweg`."
    return re.sub(r"^# .+$", lambda title: f"{title[0]}\n\n{line}", text, count=1, flags=re.MULTILINE)
