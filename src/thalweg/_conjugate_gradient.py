"""Conjugate gradients: a symmetric system solved from products alone, with a status where there is no answer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from thalweg._edge import check_function, check_number, is_whole, shown
from thalweg._results import Status

_SENTENCES = {
    Status.NOT_CONVERGED: "the residual is {residual:.2g} of the right-hand side after {iterations} iterations: "
    "allow more iterations, or a larger ridge",
    Status.UNDEFINED: "a direction of curvature <= 0 was met at iteration {iterations}: a larger ridge is needed",
}


class Solution(NamedTuple):
    """What a solve gives back.

    - `value`: the solution, a pytree like the right-hand side. - `residual`: what is left of the right-hand side, as
      a share of it. - `iterations`: how many were made.
    - `status`: `NOT_CONVERGED` where the residual is above the tolerance; `UNDEFINED` where a direction of
      curvature <= 0 was met (the value is then the solution so far, and means nothing).
    """

    value: Any
    residual: Any
    iterations: Any
    status: Any

    @property
    def ok(self) -> bool:
        """Whether the solution can be trusted."""
        return int(self.status) == Status.OK

    @property
    def message(self) -> str:
        """The status in words."""
        sentence = _SENTENCES.get(Status(int(self.status)), Status.OK.sentence())
        return sentence.format(residual=float(self.residual), iterations=int(self.iterations))


def conjugate_gradient(
    matvec: Callable[[Any], Any], b: Any, ridge: Any = 0.0, *, tolerance: float = 1e-10, iterations: int = 1000
) -> Solution:
    """`(A + ridge)^-1 b` for a symmetric A that is known only by its products with vectors.

    **Arguments**: `matvec(v)`, a pytree like `b`; `b`; `ridge` >= 0; `tolerance`, the residual to reach as a share
    of `b`; `iterations`, the most to make.

    **Returns** a `Solution`; its status is `UNDEFINED` where A + ridge turns out not to be positive.

    **Source.** Hestenes and Stiefel, J. Res. NBS 49, 409 (1952).

    >>> import jax.numpy as jnp
    >>> from thalweg._conjugate_gradient import conjugate_gradient
    >>> conjugate_gradient(lambda v: jnp.array([2.0, 4.0]) * v, jnp.array([2.0, 2.0])).value.tolist()
    [1.0, 0.5]
    """
    check_function(matvec, "matvec", "v")
    if not is_whole(iterations) or not 1 <= iterations < 2**62:
        raise ValueError(f"iterations must be a whole number >= 1, got {shown(iterations)}")
    tolerance = check_number(tolerance, "tolerance", above=0)
    ridge = check_number(ridge, "ridge", least=0)
    flat, back = ravel_pytree(b)

    def times(v: Any) -> Any:
        return ravel_pytree(matvec(back(v)))[0] + ridge * v

    size = flat @ flat
    # The state: solution, residual, direction, |residual|^2, iterations made, whether curvature <= 0 was met.
    start = (jnp.zeros_like(flat), flat, flat, size, jnp.zeros((), int), jnp.zeros((), bool))

    def going(state: Any) -> Any:
        _, _, _, left, made, bent = state
        return (left > tolerance**2 * size) & (made < iterations) & ~bent

    def one(state: Any) -> Any:
        x, r, p, left, made, _ = state
        Ap = times(p)
        curvature = p @ Ap
        bent = ~(curvature > 0)
        step = jnp.where(bent, 0.0, left / jnp.where(bent, 1.0, curvature))
        x, r = x + step * p, r - step * Ap
        new = r @ r
        return x, r, r + (new / left) * p, new, made + 1, bent

    x, _, _, left, made, bent = lax.while_loop(going, one, start)
    residual = jnp.sqrt(left / jnp.where(size > 0, size, 1.0))
    status = jnp.where(residual <= tolerance, int(Status.OK), int(Status.NOT_CONVERGED))
    return Solution(back(x), residual, made, jnp.where(bent, int(Status.UNDEFINED), status))
