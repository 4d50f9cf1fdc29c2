"""The edge: arguments as users give them, made usable or refused in one sentence."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def is_traced(tree: Any) -> bool:
    """Whether a JAX transformation of the caller's own is tracing any leaf."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def is_whole(value: Any) -> bool:
    """Whether this is a whole number, and not a truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def number(value: Any) -> Any:
    """A step number as an array."""
    return jnp.asarray(value, dtype=jnp.result_type(int))


def check_steps(steps: Any) -> int:
    if not is_whole(steps) or not 0 <= steps < 2**62:
        raise ValueError(f"steps must be a whole number >= 0, got {steps!r}")
    return int(steps)


def check_start(start: Any) -> Any:
    if is_traced(start):
        return start
    array = np.asarray(start)
    if array.dtype.kind not in "iu" or np.any(array < 0):
        raise ValueError(f"start must be whole step numbers >= 0, got {start!r}")
    return number(array)


def check_finite(tree: Any, what: str) -> None:
    """Refuse NaN and infinity in what a user gives."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if (
            not is_traced(leaf)
            and jnp.issubdtype(leaf.dtype, jnp.inexact)
            and not np.all(np.isfinite(np.asarray(leaf)))
        ):
            raise ValueError(f"{what}{jax.tree_util.keystr(path)} must be finite, got NaN or infinity in it")


def count_members(tree: Any, what: str) -> int:
    """How many members lead every array of `tree`."""
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
    if len(sizes) != 1 or sizes == {()} or sizes == {(0,)}:
        found = ", ".join(str(size[0]) if size else "a single number" for size in sorted(sizes)) or "no array"
        raise ValueError(f"every array of {what} must lead with the same number of members (at least 1), got {found}")
    return sizes.pop()[0]


def outline(tree: Any) -> str:
    """A pytree in one line, arrays by their shapes."""
    text = " ".join(eqx.tree_pformat(tree, struct_as_array=True, width=10**6).split())
    return text if len(text) < 160 else text[:157] + "..."
