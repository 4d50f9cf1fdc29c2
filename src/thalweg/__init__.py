"""Learners as stochastic update maps: perturb one thing, hold another still, see what is carried."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names by the module that defines them. They load on first use, so that
# `import thalweg` stays light; subpackages load the same way.
_NAMES = {
    "_clamp": ["clamp"],
    "_node": ["node"],
    "_process": ["Checkpoint", "Fold", "Options", "Process", "Run", "ensemble", "fork", "simulate", "stack"],
    "_response": ["Carried", "Response", "response"],
    "_results": ["Estimate", "Status"],
    "_saving": ["load", "save"],
    "_sweep": ["sweep"],
}
_MODULES = ["energy", "flow", "noise", "plot", "processes", "stats", "steering", "studies", "systems"]

_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"thalweg.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"thalweg.{name}")
    else:
        raise AttributeError(f"thalweg has no attribute {name!r}; it has: {', '.join(sorted(__all__))}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
