"""Arguments of this room as users give them, made usable or refused in one sentence."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from thalweg._edge import is_traced, is_whole, shown
from thalweg._noise import as_key


def one_key(key: Any) -> Any:
    """A single random key, from a key or a seed."""
    key = as_key(key)
    if key.ndim:
        raise ValueError(f"key must be one random key or a seed, got {key.shape[0]} keys")
    return key


def check_count(value: Any, name: str, most: int, least: int = 1) -> int:
    """A whole number from `least` to `most`."""
    if not is_whole(value) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {shown(value)}")
    return int(value)


def real_numbers(value: Any, name: str, wanted: str, kinds: str = "iuf") -> Any:
    """An array of floats (or complex numbers, with "iufc"), from whatever a user gives, or one sentence."""
    if is_traced(value):
        return jnp.asarray(value)
    try:
        array = np.asarray(value)
    except Exception:
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}") from None
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}")
    return jnp.asarray(array, complex if array.dtype.kind == "c" else float)
