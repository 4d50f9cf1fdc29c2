"""What the questions about rare events and stability check of their arguments."""

from typing import Any

import numpy as np

from thalweg._edge import check_finite, is_whole, shown
from thalweg._loop import as_arrays


def whole(value: Any, name: str, least: int, most: int = 2**31 - 1) -> int:
    """A whole number in a range."""
    if not is_whole(value) or not least <= value <= most:
        wanted = f">= {least}" if most == 2**31 - 1 else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {wanted}, got {shown(value)}")
    return int(value)


def arrays(value: Any, name: str, wanted: str) -> Any:
    """A pytree of finite numbers."""
    try:
        tree = as_arrays(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}") from None
    import jax

    leaves = jax.tree.leaves(tree)
    if not leaves or any(np.dtype(leaf.dtype).kind not in "biuf" for leaf in leaves):
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    check_finite(tree, name)
    return tree


def array(value: Any, name: str, wanted: str) -> np.ndarray:
    """An array of finite numbers."""
    try:
        found = np.asarray(value)
    except (TypeError, ValueError):
        found = np.asarray(None)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}")
    found = found.astype(float, copy=False)
    if not np.all(np.isfinite(found)):
        raise ValueError(f"{name} must be finite, got NaN or infinity in it")
    return found
