"""Stochastic reconfiguration: the natural gradient of the energy, from the parameters' or the samples' side."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Num

from thalweg._edge import check_number, is_traced, shown
from thalweg._fisher import Fisher
from thalweg.energy.ground_states._checks import real_numbers


def stochastic_reconfiguration(
    derivatives: Num[Array, "p n"],
    energies: Num[Array, " n"],
    *,
    slopes: Any = None,
    rate: Any = 0.0,
    relative_shift: Any = 1e-3,
    shift: Any = 0.0,
) -> Array:
    """The direction d of `(S + rate K + relative_shift diag S + shift) d = f`, `S = cov(O, O)`, `f = cov(E_L, O)`.

    `theta -= rate * d` follows imaginary time: the energy falls by `2 rate f.d` to first order, and psi turns by
    `rate sqrt(d.S.d)`. For a positive psi = sqrt(p), S is a quarter of the Fisher information of p, and it is solved
    for through the same operator: from the side of the parameters, or of the samples where these are fewer (minSR),
    with the same solution.

    `K_jk = (1/2) <grad O_j . grad O_k>` is how much energy a change of psi costs, to leading order: the matrix of
    H - E between the states `O_j psi`, where the local energy is even. With it the step is one of implicit Euler in
    imaginary time, stable at any rate, and at a large rate it is Newton's. Without it (slopes None) it is explicit.

    **Arguments**

    - `derivatives`: `O = d ln psi/d theta` of n samples, shape (parameters, n); complex for a complex psi.
    - `energies`: local energies, shape (n,).
    - `slopes`: `v . grad O` along a random direction v of each sample, whose coordinates are 1 or -1; shape as
      `derivatives`. On average over v, `slopes slopes^T/(2 n)` is K. - `rate`: of the step to be made.
    - `relative_shift`, `shift`: regularisation, >= 0.

    **Returns** shape (parameters,); 0 for a parameter that does nothing.

    Sources: Sorella, Phys. Rev. Lett. 80, 4558 (1998); with the curvature: Sorella, Phys. Rev. B 71, 241103 (2005);
    from the samples' side: Chen and Heyl, Nature Physics 20, 1476 (2024).

    >>> import jax.numpy as jnp, thalweg as tw
    >>> O = jnp.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])
    >>> tw.energy.stochastic_reconfiguration(O, 3 * O[0] + O[1], relative_shift=0.0).round(6).tolist()
    [3.0, 1.0]
    """
    derivatives = real_numbers(derivatives, "derivatives", "numbers of shape (parameters, n)", "iufc")
    energies = real_numbers(energies, "energies", "numbers of shape (n,)", "iufc")
    if derivatives.ndim != 2 or energies.shape != derivatives.shape[1:] or not energies.size:
        raise ValueError(
            f"derivatives must have shape (parameters, n) and energies (n,), got {derivatives.shape} and "
            f"{shown(energies.shape)}"
        )
    if not is_traced((relative_shift, shift)):
        check_number(relative_shift, "relative_shift", least=0), check_number(shift, "shift", least=0)
    o = derivatives - jnp.mean(derivatives, axis=1, keepdims=True)
    e = energies - jnp.mean(energies)
    n = len(e)
    if jnp.iscomplexobj(o) or jnp.iscomplexobj(e):
        # real parameters: S = Re cov(O*, O), so both parts of a sample count like samples of their own
        o, e = _both_parts(o), _both_parts(e)
    size = jnp.sum(o**2, axis=1) / n
    slope = jnp.sum(o * e, axis=1) / n
    if slopes is not None:
        slopes = _both_parts(slopes) if jnp.iscomplexobj(slopes) else slopes
        o = jnp.concatenate([o, jnp.sqrt(rate / 2) * slopes], axis=1)
    # In units in which the regularised diagonal is about 1, one ridge serves parameters of every kind.
    added = relative_shift * size + shift
    unit = jnp.sqrt(jnp.where(added > 0, added, jnp.where(size > 0, size, 1.0)))
    ridge = jnp.where(jnp.any(added > 0), 1.0, 1e-12)
    fisher = Fisher.from_scores(o.T / unit * jnp.sqrt(o.shape[1] / n), centred=False)
    return fisher.solve(slope / unit, ridge, method="direct") / unit


def _both_parts(values: Any) -> Any:
    return jnp.concatenate([jnp.real(values), jnp.imag(values)], axis=-1)
