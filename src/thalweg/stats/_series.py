"""The edge: what a user hands in becomes float64 chains, or one sentence that says what is wrong."""

from typing import Any

import numpy as np
from jaxtyping import Float

SHORTEST = 8


def as_chains(series: Any, name: str = "series", shortest: int = SHORTEST) -> Float[np.ndarray, "chains n"]:
    """The series as float64 of shape (chains, n); one chain becomes a single row."""
    if hasattr(series, "dims") and "chain" in getattr(series, "dims", ()) and hasattr(series, "transpose"):
        series = series.transpose("chain", ...)  # labelled data know which axis is which
    array = as_numbers(series, name)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} must have shape (n,) for one chain or (chains, n) for several, got shape {array.shape}: "
            "pass one quantity at a time"
        )
    chains = np.atleast_2d(array)
    if chains.shape[0] == 0 or chains.shape[1] < shortest:
        hint = " (it is read as (chains, n): transpose it?)" if chains.shape[0] > chains.shape[1] > 0 else ""
        raise ValueError(
            f"{name} must have at least {shortest} values in each chain, got shape {array.shape}{hint}: "
            "pass a longer series"
        )
    _refuse_non_finite(chains, name, array.ndim)
    return chains


def as_numbers(values: Any, name: str) -> np.ndarray:
    """Anything array-like as float64; text, objects, complex and masked numbers are refused."""
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        raise ValueError(f"{name} must not hold masked values: pass {name}.compressed() or fill them")
    try:
        array = np.asarray(values)
    except Exception as error:
        if "Tracer" in type(values).__name__:
            raise TypeError(
                f"{name} must be plain numbers, got an array that JAX is tracing: call this outside jax.jit"
            ) from None
        raise TypeError(f"{name} must be an array of numbers, got {_what(values, error)}: pass plain numbers") from None
    if array.dtype.kind == "c":
        raise TypeError(f"{name} must be real, got dtype {array.dtype}: pass {name}.real")
    if array.dtype.kind not in "biuf":
        # float16 of other packages (bfloat16) has kind 'V' but converts
        try:
            if array.dtype.kind in "OSUmM":
                raise TypeError
            return array.astype(np.float64)
        except (TypeError, ValueError):
            kind = f"{type(values).__name__} of dtype {array.dtype}"
            raise TypeError(f"{name} must be an array of numbers, got {kind}: pass a list or array of floats") from None
    return array.astype(np.float64, copy=False)


def _what(values: Any, error: Exception) -> str:
    reason = str(error).strip().splitlines()
    return f"{type(values).__name__} ({reason[0][:100] if reason else type(error).__name__})"


def as_weights(weights: Any, shape: tuple[int, int]) -> Float[np.ndarray, "chains n"]:
    """Weights that are finite, non-negative and of the shape of the series, scaled to a largest value of 1."""
    array = np.atleast_2d(as_numbers(weights, "weights"))
    if array.shape != shape:
        raise ValueError(
            f"weights must have the shape of the series, {_shape(shape)}, got {_shape(array.shape)}: "
            "pass one weight for each value"
        )
    _refuse_non_finite(array, "weights", 1 if shape[0] == 1 else 2)
    if array.min() < 0:
        raise ValueError(f"weights must be >= 0, got {array.min():g}: pass exp(log weight), not the log weight")
    if array.max() == 0:
        raise ValueError("weights must not sum to 0, got all weights 0: pass at least one positive weight")
    return array / array.max()


def generator(key: Any) -> np.random.Generator:
    """A NumPy generator from an integer, a JAX key or a NumPy generator."""
    if isinstance(key, np.random.Generator):
        return key
    if isinstance(key, bool) or key is None:
        raise TypeError(f"key must be an integer >= 0, a JAX key or a NumPy Generator, got {key!r}: pass key=0")
    if isinstance(key, int | np.integer):
        if key < 0:
            raise ValueError(f"key must be an integer >= 0, got {key}: pass key=0")
        return np.random.default_rng(int(key))
    import jax

    try:
        words = np.asarray(jax.random.key_data(key)).ravel()
        return np.random.default_rng([int(word) for word in words])
    except (TypeError, ValueError, AttributeError):
        raise TypeError(
            f"key must be an integer >= 0, a JAX key or a NumPy Generator, got {type(key).__name__}: pass key=0"
        ) from None


def as_count(value: Any, name: str, least: int) -> int:
    """An integer that is large enough."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}: pass {name}={max(least, 1000)}")
    return int(value)


def _refuse_non_finite(array: np.ndarray, name: str, ndim: int) -> None:
    # The sum is finite only if every value is (or overflows, which the full look decides).
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum()):
            return
    bad = ~np.isfinite(array)
    if bad.any():
        first = np.argwhere(bad)[0]
        where = f"position {first[1]}" if ndim == 1 else f"chain {first[0]}, position {first[1]}"
        raise ValueError(
            f"{name} must be finite, got {array[tuple(first)]} at {where} "
            f"({bad.sum()} of {array.size} values are not finite): remove them and ask why they are there"
        )


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if len(shape) == 2 and shape[0] == 1 else shape


def centred(chains: Float[np.ndarray, "chains n"]) -> tuple[float, float, Float[np.ndarray, "chains n"]]:
    """The mean, a scale, and the deviations divided by that scale, so that no square over- or underflows."""
    largest = float(max(abs(chains.max()), abs(chains.min())))
    if largest == 0:
        return 0.0, 0.0, np.zeros_like(chains)
    mean = largest * float(np.mean(chains / largest)) if largest > 1e150 else float(np.mean(chains))
    if chains.max() == chains.min():
        return float(chains[0, 0]), 0.0, np.zeros_like(chains)
    if largest > 1e150:
        deviations = chains / largest - mean / largest
        inner = float(np.abs(deviations).max())
        return mean, inner * largest, deviations / inner
    deviations = chains - mean
    scale = float(max(deviations.max(), -deviations.min()))
    deviations /= scale
    return mean, scale, deviations
