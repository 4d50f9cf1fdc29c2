"""What does it settle into, and at what energy? Boltzmann machines whose likelihood can be believed."""

import importlib
from typing import Any

_NAMES = {
    "boltzmann._base": ["NormalBase", "UniformBase"],
    "boltzmann._categorical": ["CategoricalRBM"],
    "boltzmann._gaussian": ["GaussianRBM"],
    "boltzmann._likelihood": ["gradient", "log_likelihood", "log_partition", "pseudo_log_likelihood"],
    "boltzmann._rbm": ["RBM"],
    "boltzmann._estimators": ["BernoulliRBM"],
    "boltzmann._fit": ["Fit", "fit"],
    "boltzmann._sampling": ["sampler", "transition_matrix"],
    "boltzmann._training": ["Training", "training"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"thalweg.energy has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"thalweg.energy.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
