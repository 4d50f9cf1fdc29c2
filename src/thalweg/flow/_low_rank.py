"""The Hessians of single data where they have low rank, found from a few products with vectors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

MOST_PROBES = 64
AT_ONCE = 2**25  # numbers in one batch of products
NOTHING = 1e-9  # a singular value below this share of the largest is none


def low_rank_hessians(
    loss: Any, params: Any, data: Any, most: int
) -> tuple[Float[np.ndarray, "n m d"], Float[np.ndarray, "n m"]] | None:
    """Factors and signs of every datum's Hessian, `H_i = sum_m sign_im x_im x_im^T`; `None` where the rank is not low.

    With k random directions W (d, k) the products `Y = H W` span the range of H as soon as its rank is below k, which
    shows: then Y has a rank below k too. From an orthonormal basis Q of that range, `H = Q C Q^T` with
    `C = (Q^T Y) (Q^T W)^+`, and the eigenvectors of C turn Q into the factors (Halko, Martinsson and Tropp, 2011).
    At most `most` factors in all are looked for.
    """
    flat, back = ravel_pytree(params)
    d, n = int(flat.size), len(jax.tree.leaves(data)[0])
    k = 2
    while k <= min(MOST_PROBES, d) and n * (k - 1) <= max(most, n):
        found = _with_probes(loss, back, flat, data, n, np.random.default_rng(0).normal(size=(d, k)))
        if found is not None:
            return found
        k *= 2
    return None


def _with_probes(
    loss: Any, back: Any, flat: Any, data: Any, n: int, W: Float[np.ndarray, "d k"]
) -> tuple[np.ndarray, np.ndarray] | None:
    d, k = W.shape
    some = max(1, min(n, AT_ONCE // (d * k)))
    parts = []
    for first in range(0, n, some):
        index = np.minimum(np.arange(first, first + some), n - 1)  # the last batch repeats a datum: one compilation
        batch = jax.tree.map(lambda leaf, index=index: leaf[index], data)
        products = np.asarray(_products(loss, back, flat, batch, jnp.asarray(W)))[: n - first]
        for Y in products:
            factored = _factors(Y, W)
            if factored is None:
                return None
            parts.append(factored)
    m = max(1, max(len(signs) for _, signs in parts))
    rows, signs = np.zeros((n, m, d)), np.zeros((n, m))
    for i, (x, sign) in enumerate(parts):
        rows[i, : len(sign)], signs[i, : len(sign)] = x, sign
    return rows, signs


def _factors(Y: Float[np.ndarray, "d k"], W: Float[np.ndarray, "d k"]) -> tuple[np.ndarray, np.ndarray] | None:
    Q, R = np.linalg.qr(Y)
    U, s, _ = np.linalg.svd(R)
    rank = int(np.sum(s > NOTHING * max(s[0], 1e-300)))
    if not np.all(np.isfinite(s)) or rank == len(s):
        return None
    Q = Q @ U[:, :rank]
    C = (Q.T @ Y) @ np.linalg.pinv(Q.T @ W)
    values, vectors = np.linalg.eigh((C + C.T) / 2)
    return (Q @ (vectors * np.sqrt(np.abs(values)))).T, np.sign(values)


@eqx.filter_jit
def _products(loss: Any, back: Any, flat: Any, data: Any, W: Any) -> Any:
    def one(datum):
        slope = jax.grad(lambda p: loss(back(p), datum))
        return jax.vmap(lambda w: jax.jvp(slope, (flat,), (w.astype(flat.dtype),))[1], in_axes=1, out_axes=1)(W)

    return jax.lax.map(one, data)
