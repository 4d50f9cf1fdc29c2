"""Where does probability go? Densities, escapes, first passages and stationary laws of a process."""

import importlib
from typing import Any

_NAMES = {
    "_discrete": ["StatesOperator"],
    "_fokker_planck": ["FokkerPlanck", "fokker_planck"],
    "_monte_carlo": ["MonteCarlo", "monte_carlo"],
    "_space": ["Grid", "States"],
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
