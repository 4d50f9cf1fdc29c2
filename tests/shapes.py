"""The checker that pytest puts on every function of thalweg: shapes and dtypes of arrays, as signatures state them.

Plain Python types are mypy's part. Checked here as well, an `int` where a signature says `float` would fail in tests
only, and so would a traced learning rate in a sweep.
"""

import typing
from typing import Any

import jaxtyping
from beartype import beartype


def check(function: Any) -> Any:
    """beartype on those parameters whose annotation names an array's shape."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if _names_a_shape(hint)}
    return beartype(function) if function.__annotations__ else function


def _names_a_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_names_a_shape(part) for part in typing.get_args(hint))
