"""The door for PyTorch: tallies of a training loop of one's own, and of one that is finished. It does not use JAX."""

from thalweg._lazy import lazy

_NAMES = {
    "_memory": ["memory"],
    "_tally": ["Tally"],
    "_replay": ["replay"],
    "_callback": ["callback"],
}

__getattr__, __dir__, __all__ = lazy("thalweg.knowledge.torch", _NAMES)
