"""The edge: arguments as users give them, made usable or refused in one sentence."""

import inspect
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


def check_number(
    value: Any, name: str, *, least: float | None = None, above: float | None = None, fix: str = ""
) -> Any:
    """Real finite numbers in a range as an array of floats; one number, or one a member."""
    if is_traced(value):
        return jnp.asarray(value, dtype=float)
    wanted = "a finite number"
    wanted = f"a number >= {least:g}" if least is not None else f"a number > {above:g}" if above is not None else wanted
    sentence = f"{name} must be {wanted}, got {shown(value)}{fix}"
    try:
        array = np.asarray(value)
    except Exception:
        raise TypeError(sentence) from None
    if array.dtype.kind not in "iuf" or not array.size:
        raise TypeError(sentence)
    outside = (least is not None and np.any(array < least)) or (above is not None and np.any(array <= above))
    if outside or not np.all(np.isfinite(array)):
        raise ValueError(sentence)
    return jnp.asarray(array, dtype=float)


def check_one_number(value: Any, name: str, **wanted: Any) -> Any:
    """As `check_number`, and one number only."""
    array = check_number(value, name, **wanted)
    if array.ndim:
        raise ValueError(f"{name} must be a single number, got shape {array.shape}")
    return array


def check_truth(value: Any, name: str) -> None:
    """Refuse what is not `True` or `False`."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        wanted = ", ".join(f'"{choice}"' for choice in choices[:-1]) + f' or "{choices[-1]}"'
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")


def check_function(value: Any, name: str, arguments: str, optional: bool = False, by_name: bool = False) -> None:
    """Refuse what cannot be called with these arguments, such as `"state, w"`, by position or by name."""
    if value is None and optional:
        return
    if not callable(value):
        raise TypeError(f"{name} must be a function of ({arguments}), got {shown(value)}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return  # some callables of C do not tell
    try:
        names = arguments.split(", ")
        signature.bind(**dict.fromkeys(names)) if by_name else signature.bind(*names)
    except TypeError:
        raise TypeError(f"{name} must be a function of ({arguments}), got one of {signature}") from None


def check_arrays(tree: Any, what: str) -> None:
    """Refuse what a user's function gave, unless every leaf of it is a number or an array of numbers."""
    for leaf in jax.tree.leaves(tree):
        dtype = getattr(leaf, "dtype", None)
        if not isinstance(leaf, int | float | complex) if dtype is None else getattr(dtype, "kind", "f") in "USOmM":
            raise TypeError(f"{what} must give numbers and arrays, got {shown(leaf)}")


def one_number(value: Any, what: str) -> Any:
    """What a user's function gave, refused unless it is a single number."""
    check_arrays(value, what)
    if jax.tree.structure(value) != jax.tree.structure(0) or jnp.shape(value) != ():
        raise ValueError(f"{what} must give a single number, got {outline(value)}")
    return value


def one_truth(value: Any, what: str) -> Any:
    """What a user's predicate gave, refused unless it is a single truth value."""
    return jnp.asarray(one_number(value, what), dtype=bool)


def shown(value: Any) -> str:
    """A value in part of a line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


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
        if not is_traced(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(_all_finite(leaf)):
            raise ValueError(f"{what}{jax.tree_util.keystr(path)} must be finite, got NaN or infinity in it")


def _all_finite(leaf: Any) -> Any:
    """Whether an array is finite throughout; of one that is spread over processes every one of them learns it."""
    if getattr(leaf, "is_fully_addressable", True):
        return np.all(np.isfinite(np.asarray(leaf)))
    return jax.jit(lambda x: jnp.all(jnp.isfinite(x)))(leaf)


def one_a_datum(given: Any, n: int, what: str) -> np.ndarray:
    """Refuse what are not n numbers, one a datum."""
    try:
        array = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be {n} numbers, one a datum, got {shown(given)}") from None
    if array.shape != (n,):
        raise ValueError(f"{what} must have shape ({n},), one a datum, got {array.shape}")
    return array


def check_weights(weights: Any, n: int) -> Any:
    """Refuse what are not n numbers >= 0, one a datum, some of them above 0."""
    if is_traced(weights):
        return weights
    weights = one_a_datum(weights, n, "weights")
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or not np.any(weights):
        raise ValueError(f"weights must be finite, >= 0 and not all 0, got from {weights.min()} to {weights.max()}")
    return jnp.asarray(weights)


def check_real(tree: Any, what: str) -> None:
    """Refuse complex numbers where a point is wanted."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(
                f"{what}{jax.tree_util.keystr(path)} must be real, got complex numbers: pass their real parts"
            )


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
