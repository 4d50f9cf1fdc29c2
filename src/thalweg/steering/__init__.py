"""What optimizes what: optimizing strength in bits, Comp and Op in nats, exponents with a part held still."""

import importlib
from typing import Any

_NAMES = {
    "_continuous": ["gaussian_strength", "square_strength"],
    "_entropy": ["entropy"],
    "_finite": ["BesideNull", "FiniteSystem"],
    "_loops": ["Budget", "bode_integral", "sensitivity"],
    "_lyapunov": ["lyapunov_exponents"],
    "_op": ["Op", "op"],
    "_sampled": ["SampledStrength", "sampled_strength"],
    "_volume": ["OpVolume", "op_volume"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"thalweg.steering has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"thalweg.steering.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
