"""Public names that load on first use, so that importing a package stays light."""

import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any


def lazy(
    package: str, names: dict[str, list[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of `package`: `names` by the module that defines them, and submodules.

    >>> __getattr__, __dir__, __all__ = lazy("thalweg.stats", {"_blocking": ["blocking"]})
    >>> __getattr__("blocking").__name__, __all__
    ('blocking', ['blocking'])
    """
    home = {name: f"{package}.{module}" for module, found in names.items() for name in found}
    public = sorted([*home, *modules])

    def load(name: str) -> Any:
        if name in home:
            value = getattr(importlib.import_module(home[name]), name)
        elif name in public:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"{package} has no attribute {name!r}; it has: {', '.join(public)}")
        # Found once, it is an attribute like any other, and is not looked up here again.
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: public, public
