"""Modified equations: the diffusion whose moments over one step are those of the process."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import check_choice
from thalweg._process import Process
from thalweg._results import Estimate, Status
from thalweg.flow._asked import whole
from thalweg.flow._increments import Increments

CONVENTIONS = {"ito": 0.0, "stratonovich": 0.5, "anti-ito": 1.0}


class ModifiedEquation(eqx.Module):
    """Drift and diffusion of `dx = drift dt + noise of covariance diffusion dt`, one unit of t being one step.

    `modified_equation` makes one. Both functions work under `jit`, `vmap` and `grad`.

    - `drift(point)`: shape of the point, `()` in one dimension or `(d,)`, in the Ito reading.
    - `diffusion(point)`: the covariance gained in one unit of time (2D), shape `()` or `(d, d)`. As the
      formula gives it: nothing is clipped.
    - `validity(points)`: where the diffusion is positive.
    """

    increments: Increments
    order: int = eqx.field(static=True)
    diffusion_order: int = eqx.field(static=True)
    convention: str = eqx.field(static=True)

    def drift(self, point: Any) -> Array:
        """The Ito drift: increments a step."""
        x, shape = self._flat(point)
        m = self.increments.mean
        drift = m(x)
        if self.order == 2:
            drift = drift - jax.jvp(m, (x,), (drift,))[1] / 2
        share = CONVENTIONS[self.convention]
        if share:
            divergence = jnp.einsum("ijj->i", jax.jacfwd(self._diffusion)(x))
            drift = drift + share * divergence / 2
        return drift.reshape(shape)

    def diffusion(self, point: Any) -> Array:
        """The covariance gained in one unit of time."""
        x, shape = self._flat(point)
        return self._diffusion(x).reshape(shape + shape)

    def validity(self, points: Any) -> Estimate:
        """The least eigenvalue of the diffusion at each point, with a status where it is negative.

        **Arguments**: `points`, shape `(n,)` in one dimension, `(n, d)` otherwise.

        **Returns** an `Estimate` of shape `(n,)` without error. Status `UNDEFINED` where the value is negative:
        there no diffusion has these moments, and the equation must not be used.
        """
        points = jnp.asarray(points, float)
        d = self.increments.dimension
        if points.ndim == 0 or (points.ndim == 1 and d > 1 and points.shape == (d,)):
            points = points[None]
        wanted = points.ndim == 1 if d == 1 else points.ndim == 2 and points.shape[-1] == d
        if not wanted:
            raise ValueError(f"points must have shape {'(n,)' if d == 1 else f'(n, {d})'}, got {points.shape}")
        matrices = _at_all(self, points.reshape(-1, d))
        eigenvalues = np.linalg.eigvalsh(np.asarray(matrices))
        least, most = eigenvalues[:, 0], eigenvalues[:, -1]
        bad = ~(least >= -1e-12 * np.maximum(most, 0))
        details = {}
        if np.any(bad):
            where = np.asarray(points)[bad]
            details["why"] = (
                f"the corrected diffusion is negative at {bad.sum()} of {len(bad)} points, first at {where[0]}: "
                "no diffusion has the moments of a step there; take order=1, or the transfer operator"
            )
        status = np.where(bad, int(Status.UNDEFINED), int(Status.OK))
        return Estimate(least, np.zeros(len(least)), status, details)

    def _diffusion(self, x: Float[Array, " d"]) -> Float[Array, "d d"]:
        if self.diffusion_order == 1:
            return self.increments.moments(x)[1]
        m = self.increments.mean(x)
        covariance = lambda y: self.increments.moments(y)[1]  # noqa: E731
        C, along = jax.jvp(covariance, (x,), (m,))
        JC = jax.jacfwd(self.increments.mean)(x) @ C
        return C - (along + JC + JC.T) / 2

    def _flat(self, point: Any) -> tuple[Array, tuple[int, ...]]:
        x = jnp.asarray(point, float)
        d = self.increments.dimension
        if x.shape != (d,) and not (d == 1 and x.shape == ()):
            raise ValueError(f"point must have shape {'()' if d == 1 else f'({d},)'}, got {x.shape}")
        return x.reshape(d), x.shape


@eqx.filter_jit
def _at_all(equation: ModifiedEquation, points: Array) -> Array:
    return jax.vmap(equation._diffusion)(points)


def modified_equation(
    process: Process,
    order: int = 1,
    convention: str = "ito",
    *,
    diffusion_order: int | None = None,
    state: Any = 0.0,
) -> ModifiedEquation:
    """The diffusion approximation of a process, with or without its correction for the size of a step.

    With `m(x)` and `C(x)` the exact mean and covariance of one increment, and J = dm/dx:

    - order 1: `drift = m`, `diffusion = C`;
    - order 2: `drift = m - J m / 2`, `diffusion = C - ((m . grad) C + J C + C J^T) / 2`,

    so that the moments of the diffusion over one unit of time are those of a step up to third order in the
    step size. For SGD, `m = -T G` and `C = T^2 S`. No step size need be known: increments say it all.

    **Arguments**

    - `process`: noise must be finite or Gaussian (its increments are integrated exactly).
    - `order`: 1 or 2.
    - `convention`: `"ito"`, which is right; `"stratonovich"` and `"anti-ito"` add `a div(diffusion) / 2` to the drift
      with a = 1/2 and 1, to show what a wrong reading does.
    - `diffusion_order`: the order of the diffusion, if it differs: `order=2, diffusion_order=1` corrects the drift
      alone, as is often done, and *doubles* the error of a stationary variance.
    - `state`: any state of the process, or what its `init` takes, to tell the shape of a state.

    **Returns** a `ModifiedEquation`. **Raises** `ValueError` for another order or convention, or noise that
    cannot be integrated.

    **When not to trust it**: rare escapes (exponentially wrong, see `quasi_potential`), expanding maps, and where
    `validity` says that the corrected diffusion is negative.

    Source: Li, Tai and E (2017) for the drift; the diffusion term by matching moments of one step.

    **Example**: at its fixed point, linear noise (T = 0.5, C = 0.04) needs `C (1 + T)`, since `m' = -T`.

    >>> import thalweg as tw
    >>> equation = tw.flow.modified_equation(tw.systems.linear_noise(0.5), order=2)
    >>> round(float(equation.diffusion(2.0)), 12)
    0.06
    """
    order = whole(order, "order", 1, 2)
    diffusion_order = order if diffusion_order is None else whole(diffusion_order, "diffusion_order", 1, 2)
    check_choice(convention, "convention", tuple(CONVENTIONS))
    return ModifiedEquation(Increments(process, state), order, diffusion_order, convention)
