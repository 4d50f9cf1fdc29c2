"""Where does probability go? Densities, escapes, first passages and stationary laws of a process."""

import importlib
from typing import Any

_NAMES = {
    "_discrete": ["StatesOperator"],
    "_fokker_planck": ["FokkerPlanck", "fokker_planck"],
    "_gradient_noise": ["GradientNoise", "gradient_noise"],
    "_modified": ["ModifiedEquation", "modified_equation"],
    "_monte_carlo": ["MonteCarlo", "monte_carlo"],
    "_quasi_potential": ["QuasiPotential", "quasi_potential"],
    "_space": ["Grid", "States"],
    "_splitting": ["splitting"],
    "_stability": ["largest_stable_learning_rate", "mean_square_stability"],
    "_symmetrise": ["SchroedingerOperator", "symmetrise"],
    "_transfer_operator": ["TransferOperator", "transfer_operator"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"thalweg.flow has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"thalweg.flow.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
