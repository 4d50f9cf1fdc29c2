"""Stochastic reconfiguration: the natural gradient of the energy, from the parameters' or the samples' side."""

from typing import Any

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float


def stochastic_reconfiguration(
    derivatives: Float[Array, "p n"],
    energies: Float[Array, " n"],
    *,
    relative_shift: Any = 1e-3,
    shift: Any = 0.0,
    side: str = "auto",
) -> Float[Array, " p"]:
    """The direction d that solves `(S + relative_shift diag S + shift) d = f`, `S = cov(O, O)`, `f = cov(O, E_L)`.

    `theta -= rate * d` follows imaginary time: the energy falls by `2 rate f.d` to first order, and psi turns by
    `rate sqrt(d.S.d)`. For a positive psi = sqrt(p), S is a quarter of the Fisher information of p.

    **Arguments**

    - `derivatives`: `O = d ln|psi|/d theta` of n samples, shape (parameters, n); complex for a complex psi.
    - `energies`: local energies, shape (n,).
    - `relative_shift`, `shift`: regularisation, added to the diagonal.
    - `side`: `"parameters"`: a system of parameters; `"samples"`: the same solution from a system of samples
      (minSR); `"auto"`: the smaller one.

    Sources: Sorella, Phys. Rev. Lett. 80, 4558 (1998); from the samples' side: Chen and Heyl, Nature Physics 20, 1476
    (2024).

    >>> import jax.numpy as jnp, thalweg as tw
    >>> O = jnp.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])
    >>> tw.energy.stochastic_reconfiguration(O, 3 * O[0] + O[1], relative_shift=0.0).round(6).tolist()
    [3.0, 1.0]
    """
    n = energies.shape[0]
    o = derivatives - jnp.mean(derivatives, axis=1, keepdims=True)
    e = energies - jnp.mean(energies)
    if jnp.iscomplexobj(o) or jnp.iscomplexobj(e):
        # real parameters: both parts of a sample count like samples of their own, in S = Re cov(O*, O)
        o = jnp.concatenate([o.real, o.imag], axis=1)
        e = jnp.concatenate([e.real, e.imag])
    o, e = o / jnp.sqrt(n), e / jnp.sqrt(n)
    size = jnp.sum(o**2, axis=1)
    ridge = relative_shift * size + shift
    if side == "parameters" or (side == "auto" and o.shape[0] <= o.shape[1]):
        # scaled to a unit diagonal, so that parameters of any unit are solved for alike; one that does nothing gets 0
        scale = jnp.where(size > 0, 1 / jnp.sqrt(jnp.where(size > 0, size, 1.0)), 0.0)
        matrix = scale[:, None] * (o @ o.T) * scale + jnp.diag(jnp.where(size > 0, ridge * scale**2, 1.0))
        matrix = matrix + 1e-14 * jnp.eye(len(size))
        return scale * cho_solve(cho_factor(matrix, lower=True), scale * (o @ e))
    weighted = jnp.where(ridge > 0, 1 / jnp.where(ridge > 0, ridge, 1.0), 0.0)[:, None] * o
    kernel = o.T @ weighted + jnp.eye(o.shape[1])
    return weighted @ cho_solve(cho_factor(kernel, lower=True), e)
