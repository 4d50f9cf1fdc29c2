"""Claims about learning, each run, measured and judged: one file a study.

A study is a file in this folder (or anywhere: `thalweg run path/to/file.py`) that states its room and its
time and has a function `run(size, ...)` which returns an `Outcome`. Its first docstring line is what
`thalweg list` prints.
"""

import importlib
from typing import Any

_HOME = {
    "Claim": "_study",
    "Erratum": "_study",
    "Outcome": "_study",
    "Picture": "_study",
    "ROOMS": "_study",
    "Study": "_study",
    "VERDICTS": "_study",
    "find": "_discover",
    "list_studies": "_discover",
    "run_study": "_run",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"thalweg.studies has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}")
    value = getattr(importlib.import_module(f"thalweg.studies.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
