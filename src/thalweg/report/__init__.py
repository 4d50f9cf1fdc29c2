"""The report: every study on one page that needs nothing but itself."""

import importlib
from typing import Any

_HOME = {"make_report": "_make", "print_claims": "_terminal", "waiting": "_terminal", "write_page": "_page"}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"thalweg.report has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}")
    value = getattr(importlib.import_module(f"thalweg.report.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
