"""Error bars for anybody's series: local energies, losses, samples.

`analyse` answers everything at once; each of its parts can be asked alone.
"""

import importlib
from typing import Any

_NAMES = {
    "_analysis": ["Analysis", "analyse", "mean"],
    "_autocorrelation": ["autocorrelation", "autocorrelation_time"],
    "_blocking": ["Blocking", "blocking"],
    "_bootstrap": ["bootstrap"],
    "_chains": ["effective_sample_size", "r_hat"],
    "_permutation": ["permutation_test"],
    "_tails": ["Tails", "heavy_tails"],
}

_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"thalweg.stats has no attribute {name!r}; it has: {', '.join(sorted(__all__))}")
    value = getattr(importlib.import_module(f"thalweg.stats.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
