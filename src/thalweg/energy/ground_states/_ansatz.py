"""A wavefunction of a user's own: any JAX function, also as Flax and NetKet models have it."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from thalweg._edge import is_whole, outline, shown
from thalweg._loop import as_arrays
from thalweg.energy.ground_states._forward_laplacian import forward_laplacian
from thalweg.energy.ground_states._wavefunction import Local, Wavefunction

AT_ONCE = 256  # samples that are differentiated side by side


class Ansatz(Wavefunction):
    """A wavefunction of your own, differentiated for you: by a forward Laplacian in x, in reverse in its parameters.

    **Arguments**

    - `log_psi`: `log_psi(params, x)`, or `log_psi(x)` without parameters: `ln psi`, real or complex. `x` is one sample,
      shape (M,), or a batch, shape (samples, M); the `apply` of a Flax module or a NetKet model is such a function.
    - `params`: a pytree of arrays, or None. - `particles`, `dimension`: `M = particles * dimension`.

    **Raises** `TypeError` or `ValueError` for a function that does not take these arguments or does not give one number
    a sample. Complex parameters are refused: give their real and imaginary parts.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> psi = tw.energy.Ansatz(lambda params, x: -params["a"] * jnp.sum(x**2, axis=-1) / 2, {"a": 1.0}, 2, 2)
    >>> trap = tw.energy.HarmonicTrap(2, 2, 1.0, interaction=False)
    >>> float(tw.energy.local_energy(psi, trap, [0.3, -1.0, 2.0, 0.1]).total)
    2.0
    """

    params: Any
    function: Callable[..., Any] = eqx.field(static=True)
    takes: str = eqx.field(static=True)
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __init__(self, log_psi: Callable[..., Any], params: Any = None, particles: int = 1, dimension: int = 1):
        if not callable(log_psi) and callable(getattr(log_psi, "apply", None)):
            log_psi = log_psi.apply
        if not callable(log_psi):
            raise TypeError(f"log_psi must be a function of (params, x) or of (x), got {shown(log_psi)}")
        for name, value in (("particles", particles), ("dimension", dimension)):
            if not is_whole(value) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {shown(value)}")
        self.particles, self.dimension = int(particles), int(dimension)
        try:
            if any(isinstance(leaf, str | bytes) for leaf in jax.tree.leaves(params)):
                raise TypeError
            self.params = as_arrays(params)
        except (TypeError, ValueError):
            raise TypeError(f"params must be a pytree of arrays, got {shown(params)}") from None
        if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in jax.tree.leaves(self.params)):
            raise TypeError("params must be real, got complex numbers: pass real and imaginary parts as parameters")
        self.function = log_psi
        self.takes = _takes(log_psi, self.params, self.particles * self.dimension)

    def log_at(self, x: Any) -> Any:
        return self._rows(lambda row: jnp.real(self._one(self.params, row)), x)

    def local_at(self, x: Any) -> Local:
        log, gradient, laplacian = self._rows(
            lambda row: forward_laplacian(lambda r: self._one(self.params, r), row), x
        )
        return Local(jnp.real(log), jnp.moveaxis(gradient, -1, 0), laplacian)

    def derivatives_at(self, x: Any) -> Any:
        flat, back = ravel_pytree(eqx.filter(self.params, eqx.is_inexact_array))
        rest = eqx.filter(self.params, eqx.is_inexact_array, inverse=True)
        part = lambda take: lambda p, row: take(self._one(eqx.combine(back(p), rest), row))  # noqa: E731
        if not flat.size:
            return jnp.zeros((0, *x.shape[1:]))
        by = lambda take: self._rows(lambda row: jax.grad(part(take))(flat, row), x)  # noqa: E731
        found = by(jnp.real)
        if jnp.issubdtype(jax.eval_shape(lambda row: self._one(self.params, row), x[:, 0]).dtype, jnp.complexfloating):
            found = found + 1j * by(jnp.imag)
        return jnp.moveaxis(found, -1, 0)

    def _one(self, params: Any, row: Any) -> Any:
        """`ln psi` of one sample, shape (M,)."""
        return _call(self.function, self.takes, params, row)

    def _rows(self, f: Callable[[Any], Any], x: Any) -> Any:
        """`f` of every sample of coordinates (M, ...), in parts that fit into memory."""
        rows = x.reshape(x.shape[0], -1).T
        found = jax.vmap(f)(rows) if len(rows) <= AT_ONCE else lax.map(f, rows, batch_size=AT_ONCE)
        return jax.tree.map(lambda leaf: leaf.reshape(*x.shape[1:], *leaf.shape[1:]), found)


def _takes(log_psi: Callable[..., Any], params: Any, m: int) -> str:
    """How the function wants to be called: with parameters or without, with one sample or a batch."""
    without = params is None and _positional(log_psi) == 1
    row = jax.ShapeDtypeStruct((m,), jnp.result_type(float))
    problems = []
    for takes in ("x", "batch") if without else ("params, x", "params, batch"):
        try:
            found = jax.eval_shape(lambda p, x, takes=takes: _call(log_psi, takes, p, x), params, row)
        except Exception as problem:
            problems.append(problem)
            continue
        if getattr(found, "shape", None) == () and jnp.issubdtype(found.dtype, jnp.inexact):
            return takes
        problems.append(ValueError(f"it gave {outline(found)}"))
    raise ValueError(
        f"log_psi must give one number a sample, for x of shape ({m},) or (samples, {m}): {shown(problems[0])[:160]}"
    )


def _call(log_psi: Callable[..., Any], takes: str, params: Any, row: Any) -> Any:
    arguments = () if not takes.startswith("params") else (params,)
    if takes.endswith("batch"):
        found = log_psi(*arguments, row[None])
        return found[0] if getattr(found, "shape", None) == (1,) else found
    return log_psi(*arguments, row)


def _positional(function: Callable[..., Any]) -> int | None:
    """How many arguments must be given, where that can be told."""
    try:
        kinds = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in named and p.default is inspect.Parameter.empty for p in kinds)
