"""The curvature that each datum contributes, reduced to the span of them all."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from thalweg._edge import check_function
from thalweg.flow._asked import array, arrays

MOST_PARAMETERS = 300  # of exact Hessians that are stored without asking for their rank
MOST_FACTORS = 4000  # rows of the Gram matrix
STORED = 2**27  # numbers in all Hessians together
NULL = 1e-11  # eigenvalues of the Gram matrix below this share of the largest are its null space


class Curvatures:
    """Hessians H_i on the span of their ranges, in the eigenbasis of their mean H.

    - `spectrum`: the eigenvalues of H, ascending. - `basis`: its eigenvectors (d, r); `None` where not formed.
    - `frozen`: how many directions no H_i acts on. - `sandwich(S)`: `E[H_i S H_i]`.
    - `overlaps()`: the matrix `tr H_i H_j`. - `largest_of_one()`: max_i lambda_max(H_i).
    - `lowest`: the lowest eigenvalue of H if it is below 0. - `leaks`: whether some H_i act on the null space of H.
    """

    def __init__(
        self,
        frozen: int,
        rows: Float[np.ndarray, "n m r"] | None = None,
        signs: Float[np.ndarray, "n m"] | None = None,
        matrices: Float[np.ndarray, "n r r"] | None = None,
        basis: Float[np.ndarray, "d r"] | None = None,
    ):
        given: Any = matrices if rows is None else rows
        self.count, self.rank, self.frozen = len(given), given.shape[-1], frozen
        self.signs = None if signs is None or np.all(signs >= 0) else signs
        if rows is None:
            mean = np.mean(given, axis=0)
        else:
            flat = rows.reshape(-1, self.rank)
            signed = flat if self.signs is None else flat * self.signs.reshape(-1, 1)
            mean = signed.T @ flat / self.count
        self.spectrum: np.ndarray = np.zeros(0)
        turn: np.ndarray = np.zeros((0, 0))
        if self.rank:
            self.spectrum, turn = np.linalg.eigh((mean + mean.T) / 2)
        self.rows: Any = None if rows is None else rows @ turn
        self.matrices: Any = None if matrices is None else turn.T @ matrices @ turn
        self.basis = None if basis is None else basis @ turn
        size = np.max(np.abs(self.spectrum), initial=0.0)
        lowest = float(np.min(self.spectrum, initial=0.0))
        self.lowest = lowest if lowest < -1e-9 * size else 0.0
        # Where all curvature is positive, H vanishes nowhere on the span.
        self.leaks = (rows is None or self.signs is not None) and bool(np.any(np.abs(self.spectrum) <= 1e-9 * size))

    def sandwich(self, S: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"]:
        if self.rows is None:
            return np.mean(self.matrices @ S @ self.matrices, axis=0)
        n, m, r = self.rows.shape
        flat = self.rows.reshape(n * m, r)
        if m == 1:  # H_i = +-y y^T: the mean of (y^T S y) y y^T
            quadratic = np.einsum("nr,nr->n", flat @ S, flat)
            return flat.T @ (quadratic[:, None] * flat) / n
        inner = np.einsum("nmr,nkr->nmk", (flat @ S).reshape(n, m, r), self.rows)
        if self.signs is not None:
            inner = self.signs[:, :, None] * inner * self.signs[:, None, :]
        return flat.T @ np.einsum("nmk,nkr->nmr", inner, self.rows).reshape(n * m, r) / n

    def overlaps(self) -> Float[np.ndarray, "n n"]:
        if self.rows is None:
            flat = self.matrices.reshape(self.count, -1)
            return flat @ flat.T
        n, m, r = self.rows.shape
        flat = self.rows.reshape(n * m, r)
        squares = (flat @ flat.T) ** 2
        if self.signs is not None:
            squares = self.signs.reshape(-1, 1) * squares * self.signs.reshape(-1)
        return squares.reshape(n, m, n, m).sum(axis=(1, 3))

    def largest_of_one(self) -> float:
        if self.rows is None:
            return float(np.max(np.linalg.eigvalsh(self.matrices), initial=0.0))
        gram = self.rows @ self.rows.transpose(0, 2, 1)
        if self.signs is None:
            return float(np.max(np.linalg.eigvalsh(gram), initial=0.0))
        return float(np.max(np.linalg.eigvals(self.signs[:, :, None] * gram).real, initial=0.0))


def curvatures(
    loss: Any,
    params: Any,
    data: Any,
    outputs: Any,
    factors: Any,
    hessians: Any,
    scale: np.ndarray | None,
    weights: Float[np.ndarray, " n"] | None = None,
) -> Curvatures:
    """The curvature of each datum, from whichever way it is given, times its weight."""
    ways = [factors is not None, hessians is not None, loss is not None]
    if sum(ways) != 1:
        raise ValueError("give the curvature in one way: loss with params and data, or factors, or hessians")
    if factors is not None:
        return from_factors(_as_rows(factors), None, scale)
    if hessians is not None:
        return from_hessians(_as_matrices(hessians), scale)
    check_function(loss, "loss", "output, datum" if outputs is not None else "params, datum")
    if params is None or data is None:
        raise ValueError("loss needs params and data beside it, got None")
    params, data, n = check_data(params, data)
    if outputs is not None:
        rows = gauss_newton_factors(loss, outputs, params, data)
        rows = rows if weights is None else rows * np.sqrt(weights)[:, None, None]
        return from_factors(rows, None, scale)
    if weights is None:
        return _of_loss(loss, params, data, n, scale)
    weighted = (data, jnp.asarray(weights))
    return _of_loss(lambda p, z: z[1] * loss(p, z[0]), params, weighted, n, scale)


def _of_loss(loss: Any, params: Any, data: Any, n: int, scale: np.ndarray | None) -> Curvatures:
    """Exact Hessians: stored where they are small, else by their low rank."""
    from thalweg.flow._low_rank import low_rank_hessians

    d = int(ravel_pytree(params)[0].size)
    storable = n * d * d <= STORED
    if d > MOST_PARAMETERS or not storable:
        found = low_rank_hessians(loss, params, data, MOST_FACTORS)
        if found is not None:
            return from_factors(*found, scale)
        if not storable:
            raise ValueError(
                f"the exact Hessians of {n} data with {d} parameters are too large to store, and not of low rank: pass "
                "outputs= and a loss of (output, datum), whose Gauss-Newton curvature is"
            )
    return from_hessians(np.asarray(_hessians(loss, params, data)), scale)


def from_factors(
    rows: Float[np.ndarray, "n m d"], signs: Float[np.ndarray, "n m"] | None, scale: np.ndarray | None
) -> Curvatures:
    """`H_i = sum_m sign x x^T` through the Gram matrix of all rows: nothing of size d x d is formed."""
    n, m, d = rows.shape
    if scale is not None:
        if scale.shape != (d,):
            raise ValueError(f"preconditioner must have {d} entries, one a parameter, got {scale.size}")
        rows = rows * np.sqrt(scale)
    flat = rows.reshape(n * m, d)
    used = np.flatnonzero(np.any(flat != 0, axis=1))
    if len(used) > MOST_FACTORS and d > MOST_FACTORS:
        raise ValueError(
            f"the Gram matrix would have {len(used)} rows, wanted at most {MOST_FACTORS}: take fewer data or outputs"
        )
    if d <= n * m:
        values, basis = np.linalg.eigh(flat.T @ flat)
        kept = (values > NULL * max(values[-1], 0.0)) & (values > 0)
        basis = basis[:, kept]
        reduced = flat @ basis
    else:
        values, U = np.linalg.eigh(flat @ flat.T)
        kept = (values > NULL * values[-1]) & (values > 0)
        values, U = values[kept], U[:, kept]
        reduced = U * np.sqrt(values)
        formed = d * len(values) <= 2**26
        basis = flat.T @ (U / np.sqrt(values)) if formed else np.zeros((0, 0))
    rank = reduced.shape[1]
    return Curvatures(d - rank, rows=reduced.reshape(n, m, rank), signs=signs, basis=basis if len(basis) == d else None)


def from_hessians(matrices: Float[np.ndarray, "n d d"], scale: np.ndarray | None) -> Curvatures:
    d = matrices.shape[1]
    if scale is not None:
        if scale.shape != (d,):
            raise ValueError(f"preconditioner must have {d} entries, one a parameter, got {scale.size}")
        root = np.sqrt(scale)
        matrices = root[:, None] * matrices * root
    _, basis = common_null_space(matrices)
    reduced = basis.T @ matrices @ basis
    return Curvatures(d - basis.shape[1], matrices=reduced, basis=basis)


def common_null_space(matrices: Float[np.ndarray, "n d d"]) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal bases of what all matrices send to 0, and of the rest.

    Four random combinations of the matrices leave candidates, which each matrix is then asked about: so that a
    direction in which curvature is only small is kept.
    """
    n, d, _ = matrices.shape
    combined = np.tensordot(np.random.default_rng(0).normal(size=(4, n)), matrices, axes=1).reshape(4 * d, d)
    _, s, V = np.linalg.svd(combined, full_matrices=False)
    candidates = V[s <= 1e-9 * max(s[0], 0.0)].T
    if not candidates.shape[1]:
        return np.zeros((d, 0)), np.eye(d)
    images = (matrices @ candidates).reshape(n * d, -1)
    values, turn = np.linalg.eigh(images.T @ images)
    null = candidates @ turn[:, np.sqrt(np.maximum(values, 0)) <= NULL * max(np.abs(matrices).max(), 1e-300)]
    if not null.shape[1]:
        return null, np.eye(d)
    return null, np.linalg.svd(null, full_matrices=True)[0][:, null.shape[1] :]


def gauss_newton_factors(loss: Any, outputs: Any, params: Any, data: Any) -> Float[np.ndarray, "n m d"]:
    """Rows `sqrt(loss'') df/dw` for each datum."""
    check_function(outputs, "outputs", "params, datum")
    return np.asarray(_factors(loss, outputs, params, data))


@eqx.filter_jit
def _factors(loss: Any, outputs: Any, params: Any, data: Any) -> Any:
    flat, back = ravel_pytree(params)

    def one(datum):
        def f(p):
            return jnp.ravel(jnp.asarray(outputs(back(p), datum)))

        shape = jnp.shape(outputs(params, datum))
        value = f(flat)
        curvature = jax.hessian(lambda y: jnp.sum(loss(y.reshape(shape), datum)))(value)
        h, U = jnp.linalg.eigh(curvature)
        return (jnp.sqrt(jnp.maximum(h, 0.0))[:, None] * U.T) @ jax.jacrev(f)(flat)

    return jax.lax.map(one, data)


@eqx.filter_jit
def _hessians(loss: Any, params: Any, data: Any) -> Any:
    flat, back = ravel_pytree(params)
    return jax.lax.map(lambda datum: jax.hessian(lambda p: loss(back(p), datum))(flat), data)


def check_data(params: Any, data: Any) -> tuple[Any, Any, int]:
    """Parameters as floating arrays, data as arrays, and how many data there are."""
    params = arrays(params, "params", "a pytree of numbers")
    params = jax.tree.map(lambda p: p.astype(jnp.promote_types(p.dtype, jnp.float32)), params)
    data = arrays(data, "data", "arrays that lead with the data")
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or sizes == {()} or sizes == {(0,)}:
        raise ValueError(
            f"every array of data must lead with the same number of data (at least 1), got shapes {sorted(sizes)}"
        )
    return params, data, int(sizes.pop()[0])


def flatten_like(given: Any, params: Any, name: str) -> Float[np.ndarray, " d"]:
    """A pytree like `params`, or a flat array, as a flat array."""
    leaves = jax.tree.leaves(arrays(given, name, "numbers, like params"))
    if len(leaves) > 1 and params is not None and jax.tree.structure(given) != jax.tree.structure(params):
        raise ValueError(f"{name} must be like params, {jax.tree.structure(params)}, got {jax.tree.structure(given)}")
    flat = np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in leaves])
    return flat


def _as_rows(factors: Any) -> Float[np.ndarray, "n m d"]:
    rows = array(factors, "factors", "an array (n, d) or (n, m, d)")
    rows = rows[:, None, :] if rows.ndim == 2 else rows
    if rows.ndim != 3 or 0 in rows.shape:
        raise ValueError(f"factors must have shape (n, d) or (n, m, d), got {np.shape(factors)}")
    return rows


def _as_matrices(hessians: Any) -> Float[np.ndarray, "n d d"]:
    if isinstance(hessians, list | tuple):
        hessians = [H @ np.eye(H.shape[1]) if hasattr(H, "matvec") or hasattr(H, "tocsr") else H for H in hessians]
    matrices = array(hessians, "hessians", "an array (n, d, d), or a list of n operators")
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or 0 in matrices.shape:
        raise ValueError(f"hessians must have shape (n, d, d), or be a list of n operators, got {matrices.shape}")
    if matrices.shape[1] > MOST_PARAMETERS:
        raise ValueError(f"hessians are stored for at most {MOST_PARAMETERS} parameters, got {matrices.shape[1]}")
    if np.max(abs(matrices - matrices.transpose(0, 2, 1))) > 1e-8 * np.max(abs(matrices)):
        raise ValueError("hessians must be symmetric matrices, got one that is not")
    return matrices
