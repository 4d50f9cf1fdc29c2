"""Learners as stochastic update maps: perturb one thing, hold another still, see what is carried."""

from thalweg._lazy import lazy

__version__ = "0.1.0"

# Public names by the module that defines them. They load on first use, so that
# `import thalweg` stays light; subpackages load the same way.
_NAMES = {
    "_across": ["connect"],
    "_clamp": ["clamp"],
    "_fisher": ["Fisher"],
    "_node": ["node"],
    "_process": ["Checkpoint", "Fold", "Options", "Process", "Run", "ensemble", "fork", "simulate", "stack"],
    "_response": ["Carried", "Response", "response"],
    "_results": ["Estimate", "Status"],
    "_saving": ["load", "save"],
    "_sweep": ["sweep"],
}
_MODULES = [
    "energy",
    "flow",
    "knowledge",
    "loggers",
    "noise",
    "plot",
    "processes",
    "stats",
    "steering",
    "studies",
    "systems",
]

__getattr__, __dir__, __all__ = lazy("thalweg", _NAMES, _MODULES)
__all__ += ["__version__"]
