"""The Fisher information as one linear operator: dense, diagonal, matrix-free, and solved for a gradient."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg._edge import check_choice, check_function, check_number, is_traced, shown
from thalweg._precision import use_float64

use_float64()

DIRECT = 3000  # the side of a matrix up to which a system is solved directly
BLOCK = 256  # scores held at once by a matrix-free diagonal


class Fisher(eqx.Module):
    """The Fisher information `F = sum_k w_k (O_k - O)(O_k - O)^T` of scores `O_k = d log p(x_k) / d theta`.

    Made by `Fisher.from_scores` from a table of scores, or by `Fisher.of` from a log density, whose scores are then
    never stored. `O` is the weighted mean of the scores (0 where they are not centred). The weights sum to 1.

    A vector is flat, shape (p,), in the order of `jax.flatten_util.ravel_pytree`.

    For `psi = sqrt(p)` the metric of stochastic reconfiguration is `F / 4`.

    >>> import numpy as np
    >>> from thalweg._fisher import Fisher
    >>> F = Fisher.from_scores(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]))
    >>> F.dense().tolist(), F.solve(np.array([1.0, 1.0]), ridge=0.0).round(12).tolist()
    ([[0.5, 0.0], [0.0, 2.0]], [2.0, 0.5])
    """

    scores: "_Table | _Derivative"
    weights: Float[Array, " n"]
    centred: bool = eqx.field(static=True)

    @classmethod
    def from_scores(cls, scores: Any, weights: Any = None, centred: bool = True) -> "Fisher":
        """From `scores`, shape (n, p), with `weights` of shape (n,) >= 0 (equal by default; scaled to sum 1)."""
        table = _rows(scores)
        return cls(_Table(table), _weights(weights, len(table)), bool(centred))

    @classmethod
    def of(
        cls,
        log_density: Callable[[Any, Any], Any],
        params: Any,
        data: Any,
        weights: Any = None,
        centred: bool = False,
    ) -> "Fisher":
        """From `log_density(params, datum)`, a number, at `params` (a pytree) and `data` (leading axis n), matrix-free.

        A product costs one pass forward and one back through the density at all data.
        """
        check_function(log_density, "log_density", "params, datum")
        data = jax.tree.map(jnp.asarray, data)
        counts = {leaf.shape[:1] for leaf in jax.tree.leaves(data)}
        if len(counts) != 1 or counts <= {(), (0,)}:
            raise ValueError(f"data must be arrays with one leading axis, at least 1 long, got {sorted(counts)}")
        flat, back = ravel_pytree(jax.tree.map(jnp.asarray, params))
        return cls(_Derivative(log_density, flat, back, data), _weights(weights, counts.pop()[0]), bool(centred))

    @property
    def size(self) -> int:
        """p, the number of parameters."""
        return self.scores.size

    def matvec(self, vector: Any) -> Float[Array, " p"]:
        """`F v`."""
        along = self.scores.push(jnp.asarray(vector, float))
        if self.centred:
            along = along - self.weights @ along  # which centres both sides, since the weights sum to 1
        return self.scores.pull(self.weights * along)

    def diagonal(self) -> Float[Array, " p"]:
        """The diagonal of `F`, shape (p,)."""
        mean = self.scores.pull(self.weights) if self.centred else 0.0
        return jnp.maximum(self.scores.weighted_squares(self.weights) - mean**2, 0.0)

    def dense(self) -> Float[Array, "p p"]:
        """`F` as a matrix, shape (p, p)."""
        if isinstance(self.scores, _Table):
            rows = self._scaled()
            return rows.T @ rows
        return jax.lax.map(self.matvec, jnp.eye(self.size))

    def solve(
        self, vector: Any, ridge: Any, method: str = "auto", tolerance: float = 1e-10, iterations: int = 1000
    ) -> Float[Array, " p"]:
        """`(F + ridge I)^{-1} v`: the natural direction of a gradient `v`.

        **Arguments**

        - `vector`: shape (p,). - `ridge`: >= 0, in the units of `F`; > 0 where `F` is singular, as it is with fewer
          scores than parameters. - `method`: `"direct"` (through the smaller of the matrices n x n and p x p), `"cg"`
          (conjugate gradients, matrix-free), or `"auto"`.
        - `tolerance`, `iterations`: of conjugate gradients; the residual relative to `vector`.

        **Raises** `RuntimeError` where conjugate gradients end before the tolerance, outside of compiled code.
        """
        check_choice(method, "method", ("auto", "direct", "cg"))
        check_number(ridge, "ridge", least=0)
        vector = jnp.asarray(vector, float)
        if vector.shape != (self.size,):
            raise ValueError(f"vector must have shape ({self.size},), one entry a parameter, got {vector.shape}")
        if method == "auto":
            stored = isinstance(self.scores, _Table)
            side = min(len(self.weights), self.size) if stored else self.size
            method = "direct" if side <= (DIRECT if stored else DIRECT // 10) else "cg"
        if method == "direct":
            return self._direct(vector, ridge)
        found = _conjugate_gradients(self, vector, ridge, tolerance, iterations)
        if not is_traced(found):
            residual = float(jnp.linalg.norm(self.matvec(found) + ridge * found - vector))
            if residual > 10 * tolerance * float(jnp.linalg.norm(vector)):
                raise RuntimeError(
                    f"conjugate gradients left a residual of {residual:.2g} after {iterations} iterations: allow more, "
                    "or a larger ridge"
                )
        return found

    def _direct(self, vector: Any, ridge: Any) -> Any:
        if isinstance(self.scores, _Table) and len(self.weights) < self.size and not _is_zero(ridge):
            # (A^T A + r)^-1 v = (v - A^T (A A^T + r)^-1 A v) / r: the smaller matrix
            rows = self._scaled()
            inner = jnp.linalg.solve(rows @ rows.T + ridge * jnp.eye(len(rows)), rows @ vector)
            return (vector - rows.T @ inner) / ridge
        return jnp.linalg.solve(self.dense() + ridge * jnp.eye(self.size), vector)

    def _scaled(self) -> Any:
        """A, with `F = A^T A`."""
        rows = self.scores.table  # type: ignore[union-attr]
        if self.centred:
            rows = rows - self.weights @ rows
        return jnp.sqrt(self.weights)[:, None] * rows


class _Table(eqx.Module):
    """Scores that are stored."""

    table: Float[Array, "n p"]

    @property
    def size(self) -> int:
        return self.table.shape[1]

    def push(self, vector: Any) -> Any:
        return self.table @ vector

    def pull(self, weights: Any) -> Any:
        return weights @ self.table

    def weighted_squares(self, weights: Any) -> Any:
        return weights @ self.table**2


class _Derivative(eqx.Module):
    """Scores as the derivative of a log density, never stored."""

    log_density: Callable[[Any, Any], Any] = eqx.field(static=True)
    flat: Float[Array, " p"]
    back: Callable[[Any], Any] = eqx.field(static=True)
    data: Any

    @property
    def size(self) -> int:
        return len(self.flat)

    def _logs(self, flat: Any) -> Any:
        return jax.vmap(lambda datum: self.log_density(self.back(flat), datum))(self.data)

    def push(self, vector: Any) -> Any:
        return jax.jvp(self._logs, (self.flat,), (vector,))[1]

    def pull(self, weights: Any) -> Any:
        return jax.vjp(self._logs, self.flat)[1](weights)[0]

    def weighted_squares(self, weights: Any) -> Any:
        score = jax.grad(lambda flat, datum: self.log_density(self.back(flat), datum))
        one = lambda at: at[0] * score(self.flat, at[1]) ** 2  # noqa: E731
        return jnp.sum(jax.lax.map(one, (weights, self.data), batch_size=BLOCK), axis=0)


@eqx.filter_jit
def _conjugate_gradients(fisher: Fisher, vector: Any, ridge: Any, tolerance: float, iterations: int) -> Any:
    product = lambda x: fisher.matvec(x) + ridge * x  # noqa: E731
    return jax.scipy.sparse.linalg.cg(product, vector, tol=tolerance, maxiter=iterations)[0]


def _is_zero(ridge: Any) -> bool:
    return not is_traced(ridge) and float(ridge) == 0


def _rows(scores: Any) -> Any:
    if is_traced(scores):
        return scores
    table = np.asarray(scores)
    if table.ndim != 2 or table.dtype.kind not in "iuf" or 0 in table.shape:
        raise ValueError(f"scores must be numbers of shape (n, p), one row a sample, got {shown(scores)}")
    if not np.all(np.isfinite(table)):
        raise ValueError("scores must be finite, got NaN or infinity in them")
    return jnp.asarray(scores, float)


def _weights(weights: Any, n: int) -> Any:
    if weights is None:
        return jnp.full(n, 1 / n)
    if not is_traced(weights):
        array = np.asarray(weights)
        if array.shape != (n,) or array.dtype.kind not in "iuf":
            raise ValueError(f"weights must be numbers of shape ({n},), one a sample, got {shown(weights)}")
        if not np.all(np.isfinite(array)) or np.any(array < 0) or array.sum() == 0:
            raise ValueError("weights must be finite, >= 0 and not all 0")
    weights = jnp.asarray(weights, float)
    return weights / jnp.sum(weights)
