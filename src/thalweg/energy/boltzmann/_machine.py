"""What every restricted Boltzmann machine can do; likelihood, sampling and learning are written for this."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg._edge import is_traced, is_whole, shown
from thalweg._noise import Law, as_key
from thalweg.energy.boltzmann import _units

MOST = 2**31  # more units, chains or steps than this are a slip of the pen


class Machine(eqx.Module):
    """Two layers, the units of each independent given the other: `p(v, h) = exp(-E(v, h)) / Z`.

    Arrays of states lead with any number of axes; the last axis runs over the units of a layer. A machine
    is a pytree of its parameters; derivatives have the same structure.
    """

    weights: eqx.AbstractVar[Any]
    visible_bias: eqx.AbstractVar[Any]
    hidden_bias: eqx.AbstractVar[Any]
    units: eqx.AbstractVar[_units.Units]

    @property
    def visible(self) -> int:
        """How many visible units there are."""
        return self.weights.shape[0]

    @property
    def hidden(self) -> int:
        """How many hidden units there are."""
        return self.weights.shape[-1]

    @abc.abstractmethod
    def energy(self, v: Any, h: Any) -> Any:
        """`E(v, h)`."""

    @abc.abstractmethod
    def hidden_field(self, v: Any) -> Any:
        """The field on each hidden unit: `E` is `-h . field(v)` plus what does not depend on `h`."""

    @abc.abstractmethod
    def log_unnormalized(self, v: Any) -> Any:
        """`log sum_h exp(-E(v, h))`: the log-likelihood of `v`, up to `log Z`."""

    @abc.abstractmethod
    def log_unnormalized_hidden(self, h: Any) -> Any:
        """`log sum_v exp(-E(v, h))`, the integral where the visible units are real."""

    @abc.abstractmethod
    def visible_mean(self, h: Any) -> Any:
        """`E[v | h]`."""

    @abc.abstractmethod
    def draw_visible(self, h: Any, w: Any) -> Any:
        """Visible units given the hidden ones, drawn with the noise `w` of `visible_noise`."""

    @abc.abstractmethod
    def visible_noise(self, lead: tuple[int, ...] = ()) -> Law:
        """The law of the noise that `draw_visible` takes, for `lead` chains."""

    @abc.abstractmethod
    def derivatives(self, v: Any, weights: Any = None) -> Any:
        """The derivative of `log_unnormalized` by every parameter, at one state or averaged over many."""

    @abc.abstractmethod
    def derivatives_given_hidden(self, h: Any, weights: Any = None) -> Any:
        """The same derivative averaged over `p(v | h)`, at one hidden state or averaged over many."""

    @abc.abstractmethod
    def interpolate(self, other: Any, t: Any) -> Any:
        """The machine with energy `(1 - t) E_self + t E_other`, up to a constant that is 0 at t = 0 and 1."""

    @abc.abstractmethod
    def independent(self, data: Any = None) -> Any:
        """A machine without couplings whose `log Z` is known: uniform, or with the means of `data`."""

    @abc.abstractmethod
    def log_partition_independent(self) -> Any:
        """`log Z` of a machine without couplings."""

    @abc.abstractmethod
    def visible_states(self, numbers: Any) -> Any:
        """The visible states with these numbers, where there are finitely many."""

    @property
    @abc.abstractmethod
    def visible_count(self) -> int | None:
        """How many visible states there are; `None` for real units."""

    @abc.abstractmethod
    def check_data(self, data: Any, name: str = "data") -> Any:
        """`data` as an array of shape (n, visible), or one sentence about what is wrong with it."""

    # What follows is the same for all machines.

    @property
    def hidden_count(self) -> int:
        """How many hidden states there are."""
        return 2**self.hidden

    def free_energy(self, v: Any) -> Any:
        """`F(v) = -log sum_h exp(-E(v, h))`."""
        return -self.log_unnormalized(v)

    def hidden_mean(self, v: Any) -> Any:
        """`E[h | v]`."""
        return _units.mean(self.hidden_field(v), self.units)

    def draw_hidden(self, v: Any, w: Any) -> Any:
        """Hidden units given the visible ones, drawn with uniform numbers `w` of shape (..., hidden)."""
        return _units.draw(self.hidden_field(v), w, self.units)

    def scores(self, v: Any) -> Any:
        """The derivative of `log p~` by all parameters, flat, at each of many states: shape (n, parameters)."""
        return jax.vmap(lambda one: ravel_pytree(self.derivatives(one))[0])(v)

    def hidden_states(self, numbers: Any) -> Any:
        """The hidden states with these numbers, from 0 to 2^hidden - 1."""
        return _units.states(numbers, self.hidden, self.units)

    def save(self, path: Any) -> Any:
        """Write the machine to an .npz file that `load` reads; the file appears whole or not at all."""
        from thalweg.energy.boltzmann._files import save

        return save(self, path)

    @classmethod
    def load(cls, path: Any) -> Any:
        """Read a machine that `save` wrote."""
        from thalweg.energy.boltzmann._files import load

        return load(cls, path)


def parameter(name: str, value: Any, shape: tuple[int | None, ...], wanted: str) -> Float[Array, "..."]:
    """A parameter as a floating array of a shape (`None`: any size), or a sentence."""
    try:
        array = jnp.asarray(value)
        array = array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of numbers of shape {wanted}, got {type(value).__name__}") from None
    fits = array.ndim == len(shape) and all(s in (None, a) for s, a in zip(shape, array.shape, strict=True))
    if not fits or 0 in array.shape:
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}")
    if not is_traced(array) and not np.all(np.isfinite(np.asarray(array))):
        raise ValueError(f"{name} must be finite, got NaN or infinity in it")
    return array


def rows(data: Any, width: int, name: str) -> np.ndarray:
    """Data as a finite array of shape (n, width)."""
    try:
        array = np.asarray(data)
        array = array if array.dtype.kind == "c" else array.astype(float)
    except (TypeError, ValueError):
        array = None
    if array is None or array.dtype.kind == "c":
        raise TypeError(f"{name} must be an array of real numbers of shape (n, {width}), got {shown(data)}")
    if array.ndim == 1 and array.size == width:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != width or not len(array):
        raise ValueError(f"{name} must have shape (n, {width}), a row a datum, got {array.shape}")
    if not np.all(np.isfinite(array)):
        row = int(np.flatnonzero(~np.all(np.isfinite(array), axis=1))[0])
        raise ValueError(f"{name} must be finite, got NaN or infinity in row {row}: drop or fill such rows")
    return array


def check_count(value: Any, name: str, least: int = 1) -> None:
    """Refuse what is not a whole number from `least` up to what an array can hold."""
    if not is_whole(value) or not least <= value < MOST:
        raise ValueError(f"{name} must be a whole number >= {least}, got {shown(value)}")


def one_key(key: Any) -> Any:
    """One random key."""
    found = as_key(key)
    if found.ndim:
        raise ValueError(f"key must be one key or a seed, got {found.shape[0]} keys")
    return found


def check_betas(betas: Any, count: int) -> np.ndarray:
    """Inverse temperatures, `count` equally spaced ones by default."""
    try:
        array = np.linspace(0, 1, count) if betas is None else np.asarray(betas, dtype=float)
    except (TypeError, ValueError):
        array = np.array([])
    if array.ndim != 1 or array.size < 2 or not np.all((array >= 0) & (array <= 1)):
        raise ValueError(f"betas must be at least two numbers from 0 to 1, got {shown(betas)}")
    return array


def check_machine(model: Any) -> None:
    """Refuse what is not a machine."""
    if not isinstance(model, Machine):
        raise TypeError(
            f"model must be a machine such as tw.energy.RBM(...), got {type(model).__name__}; bring others in with "
            "RBM.from_arrays, RBM.from_sklearn or RBM.from_rbms"
        )


def first_weights(data: Any, hidden: int, key: Any) -> tuple[np.ndarray, np.ndarray]:
    """(data as rows, weights ~ Normal(0, 0.01^2) of shape (columns, hidden)), for a start."""
    if not is_whole(hidden) or not 1 <= hidden < MOST:
        raise ValueError(f"hidden must be a whole number of units >= 1, got {hidden!r}")
    try:
        shape = np.shape(data)
    except ValueError:  # rows of unequal length
        shape = ()
    if len(shape) != 2:
        raise ValueError(f"data must have shape (n, visible), a row a datum, got {shape or shown(data)}")
    array = rows(data, shape[1], "data")
    return array, 0.01 * np.asarray(jax.random.normal(one_key(key), (array.shape[1], hidden)))


def averaging(states: Any, weights: Any) -> tuple[Any, Any]:
    """States as (n, units), and the weights of the rows, equal ones by default."""
    flat = jnp.reshape(states, (-1, jnp.shape(states)[-1]))
    return flat, jnp.full(flat.shape[0], 1 / flat.shape[0]) if weights is None else jnp.reshape(weights, (-1,))


def subtract(first: Any, second: Any) -> Any:
    """The difference of two pytrees of one structure."""
    return jax.tree.map(lambda a, b: a - b, first, second)
