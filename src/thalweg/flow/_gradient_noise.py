"""The noise of stochastic gradients at the size of a network: drift, covariance, Hessian, alignment."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from thalweg._edge import check_function, is_whole, one_number, shown
from thalweg._noise import as_key
from thalweg._results import Estimate, Status
from thalweg.flow._asked import array, whole
from thalweg.flow._per_datum import check_data

GROUPS = 20  # of data, left out in turn (a delete-a-group jackknife) where each datum in turn would cost too much
STORED = 2**27  # numbers: per-datum gradients are kept if they are no more than this
DIRECT = 256  # up to so many parameters traces are taken over all directions instead of random ones


class Eigenpairs(NamedTuple):
    """`values`: an `Estimate` of shape (k,), largest first; `vectors` (d, k), of length 1."""

    values: Estimate
    vectors: Float[np.ndarray, "d k"]


class GradientNoise:
    """What `gradient_noise` gives back: the noise of one datum's gradient, and the Hessian beside it.

    With g_i the gradient of datum i, `g` their mean and `c_i = g_i - g`:

    - `drift`: `g`, an `Estimate` of shape (d,); `drift_tree`: its value, like the parameters.
    - `covariance`: `S = mean_i c_i c_i^T` as a scipy `LinearOperator`: the covariance of one step's gradient at batch
      size 1 (divide by B for batches with replacement).
    - `trace`: of S, an `Estimate`. - `top(k)`: its largest eigenpairs.
    - `hessian`: H of the mean loss, a `LinearOperator` (`None` if none was given); `hessian_trace`.
    - `alignment`: the cosine `tr(H S) / (|H|_F |S|_F)`, an `Estimate`.
    - `anisotropy`: `d tr(H S) / (tr H tr S)`: 1 for noise that is blind to curvature.

    Error bars are standard errors over the data: of a sample from a larger population.
    """

    def __init__(self, source: "_Source", probes: int, key: Any):
        self._source, self._probes, self._key = source, probes, key
        self.drift = source.drift()
        self.covariance = source.covariance()
        self.hessian = source.hessian()
        self.trace = _mean_of(source.squares())
        self._second: dict[str, Estimate] | None = None

    @property
    def drift_tree(self) -> Any:
        """The drift as a pytree like the parameters."""
        return self._source.back(self.drift.value)

    def top(self, k: int = 1) -> Eigenpairs:
        """The k largest eigenvalues of the covariance, with their errors over the data, and the eigenvectors.

        Error: the delta method, whose influence of datum i on an eigenvalue is `(v . c_i)^2 - lambda`. Where
        eigenvalues lie closer than their errors, vectors mix and the largest are biased upwards.
        """
        d, n = self._source.d, self._source.n
        if not is_whole(k) or not 1 <= k <= min(d, n):
            raise ValueError(f"k must be a whole number from 1 to {min(d, n)}, got {shown(k)}")
        values, vectors = self._source.largest(int(k))
        influence = self._source.project(vectors) ** 2  # (n, k)
        error = np.std(influence, axis=0, ddof=1) / math.sqrt(n) if n > 1 else np.full(k, np.inf)
        return Eigenpairs(Estimate(values, error), vectors)

    @property
    def alignment(self) -> Estimate:
        """`tr(H S) / (|H|_F |S|_F)`, between -1 and 1."""
        return self._aligned["alignment"]

    @property
    def anisotropy(self) -> Estimate:
        """`d tr(H S) / (tr H tr S)`: how much more noise there is along curved directions than for isotropic noise."""
        return self._aligned["anisotropy"]

    @property
    def hessian_trace(self) -> Estimate:
        """tr H."""
        return self._aligned["hessian_trace"]

    @property
    def _aligned(self) -> dict[str, Estimate]:
        if self._second is None:
            if self.hessian is None:
                raise ValueError("the alignment needs a Hessian: pass loss with params and data, or hessian=")
            self._second = _alignment(self._source, self._probes, self._key)
        return self._second


def gradient_noise(
    loss: Callable[[Any, Any], Any] | None = None,
    params: Any = None,
    data: Any = None,
    *,
    gradients: Any = None,
    hessian: Any = None,
    probes: int = 64,
    key: Any = 0,
) -> GradientNoise:
    """The gradient noise of SGD at one point: drift, covariance, and how it lines up with the Hessian.

    Nothing of size d x d is formed: covariance and Hessian are products with vectors (`jvp` and `vjp` of the
    per-datum losses), so that networks of any size will do. Small problems come out exactly.

    **Arguments**

    - `loss(params, datum)`: a number. - `params`: a pytree. - `data`: arrays that lead with the n data.
    - `gradients`: instead of these, per-datum gradients: an array (n, d), or a scipy LinearOperator of that shape.
    - `hessian`: a Hessian of the mean loss from elsewhere: a matrix or LinearOperator (d, d). It carries no error.
    - `probes`, `key`: random directions (Hutchinson) for traces of the Hessian beyond 256 parameters.

    **Returns** a `GradientNoise`. **Raises** `ValueError` for data or gradients that cannot be used.

    **When not to trust it**: error bars take the data as independent. Eigenvalues of a covariance from fewer
    data than parameters describe these data (what SGD sees), not the population.

    Source: Zhu et al. (2019) for the anisotropy; Hutchinson (1990) for the traces.

    **Example**: gradients +1 and -1 along the first of two axes.

    >>> import numpy as np, thalweg as tw
    >>> noise = tw.flow.gradient_noise(gradients=np.array([[1.0, 2.0], [-1.0, 2.0]]), hessian=np.diag([3.0, 1.0]))
    >>> noise.drift.value.tolist(), float(noise.trace), round(float(noise.alignment), 4)  # 3 / sqrt(10)
    ([0.0, 2.0], 1.0, 0.9487)
    """
    probes = whole(probes, "probes", 2)
    key = as_key(key)
    if key.ndim:
        raise ValueError(f"key must be one key, got {key.shape[0]}")
    if (loss is None) == (gradients is None):
        raise ValueError("give either loss with params and data, or gradients, and not both")
    source: _Source
    if gradients is not None:
        source = _Given(gradients, hessian)
    else:
        check_function(loss, "loss", "params, datum")
        assert loss is not None
        if params is None or data is None:
            raise ValueError("loss needs params and data beside it, got None")
        params, data, n = check_data(params, data)
        first = jax.tree.map(lambda leaf: leaf[0], data)
        one_number(eqx.filter_eval_shape(loss, params, first), "loss")
        source = _FromLoss(loss, params, data, n, hessian)
    return GradientNoise(source, probes, key)


# Where the gradients come from ---------------------------------------------------------------------


class _Source:
    """Per-datum gradients as an (n, d) operator, and Hessian products group by group."""

    n: int
    d: int
    mean: np.ndarray

    def rows(self) -> np.ndarray | None:
        """All gradients (n, d), or `None` if they are too many to store."""
        raise NotImplementedError

    def times(self, v: np.ndarray) -> np.ndarray:
        """`g_i . v` for all i: (n, k) from (d, k)."""
        raise NotImplementedError

    def back_times(self, u: np.ndarray) -> np.ndarray:
        """`sum_i u_i g_i`: (d, k) from (n, k)."""
        raise NotImplementedError

    def hessian_groups(self, v: np.ndarray) -> np.ndarray:
        """`H_group v` for each group of data: (groups, d, k) from (d, k), so that they average to `H v`."""
        raise NotImplementedError

    def has_hessian(self) -> bool:
        raise NotImplementedError

    def back(self, flat: np.ndarray) -> Any:
        return flat

    def groups(self) -> list[np.ndarray]:
        """Which data are in each group."""
        return np.array_split(np.arange(self.n), min(GROUPS, self.n))

    def project(self, v: np.ndarray) -> np.ndarray:
        """`c_i . v`."""
        return self.times(v) - self.mean @ v

    def squares(self) -> np.ndarray:
        """`|c_i|^2` for all i."""
        rows = self.rows()
        if rows is not None:
            return np.sum((rows - self.mean) ** 2, axis=1)
        return self.raw_squares() - 2 * self.times(self.mean[:, None])[:, 0] + self.mean @ self.mean

    def raw_squares(self) -> np.ndarray:
        raise NotImplementedError

    def drift(self) -> Estimate:
        rows = self.rows()
        if self.n == 1:
            return Estimate(self.mean, np.full(self.d, np.inf))
        if rows is not None:
            variance = np.mean((rows - self.mean) ** 2, axis=0)
        else:
            variance = np.maximum(self.second_moment() - self.mean**2, 0)
        return Estimate(self.mean, np.sqrt(variance / (self.n - 1)))

    def second_moment(self) -> np.ndarray:
        raise NotImplementedError

    def covariance(self) -> Any:
        from scipy.sparse.linalg import LinearOperator

        def product(v: np.ndarray) -> np.ndarray:
            shape = v.shape
            v = v.reshape(self.d, -1)
            u = self.project(v)
            return ((self.back_times(u) - np.outer(self.mean, np.sum(u, axis=0))) / self.n).reshape(shape)

        return LinearOperator((self.d, self.d), matvec=product, rmatvec=product, matmat=product, dtype=float)

    def hessian(self) -> Any:
        from scipy.sparse.linalg import LinearOperator

        if not self.has_hessian():
            return None

        def product(v: np.ndarray) -> np.ndarray:
            shape = v.shape
            return np.mean(self.hessian_groups(v.reshape(self.d, -1)), axis=0).reshape(shape)

        return LinearOperator((self.d, self.d), matvec=product, rmatvec=product, matmat=product, dtype=float)

    def gram(self) -> np.ndarray:
        """`c_i . c_j`, where the gradients are stored."""
        rows = self.rows()
        centred = rows - self.mean  # type: ignore[operator]
        return centred @ centred.T

    def largest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest eigenpairs of the covariance: from the smaller of the two Gram matrices, or by Lanczos."""
        from scipy.sparse.linalg import eigsh

        rows = self.rows()
        if self.d <= 1024:
            matrix = self.covariance() @ np.eye(self.d)
            values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
            return np.maximum(values[::-1][:k], 0), vectors[:, ::-1][:, :k]
        if rows is not None and self.n <= 4096:
            values, U = np.linalg.eigh(self.gram() / self.n)
            values, U = np.maximum(values[::-1][:k], 0), U[:, ::-1][:, :k]
            vectors = (rows - self.mean).T @ U
            return values, vectors / np.maximum(np.linalg.norm(vectors, axis=0), 1e-300)
        start = np.random.default_rng(0).normal(size=self.d)
        values, vectors = eigsh(self.covariance(), k=k, which="LA", v0=start)
        return values[::-1], vectors[:, ::-1]


class _Given(_Source):
    """Gradients from elsewhere: an array or a LinearOperator."""

    def __init__(self, gradients: Any, hessian: Any):
        operator = hasattr(gradients, "rmatvec")
        self._given = _as_operator(gradients)
        shape = self._given.shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"gradients must have shape (n, d), one row a datum, got {shape}")
        self.n, self.d = shape
        self._rows = None if operator else self._given
        if operator and self.n * self.d <= STORED:
            self._rows = (
                np.asarray(self._given.rmatmat(np.eye(self.n))).T if self.n < self.d else self._given @ np.eye(self.d)
            )
        if self._rows is not None and not np.all(np.isfinite(self._rows)):
            raise ValueError("gradients must be finite, got NaN or infinity in them")
        self.mean = self.back_times(np.ones((self.n, 1)))[:, 0] / self.n
        self._hessian = _as_hessian(hessian, self.d)

    def rows(self) -> np.ndarray | None:
        return self._rows

    def times(self, v: np.ndarray) -> np.ndarray:
        return self._given @ v

    def back_times(self, u: np.ndarray) -> np.ndarray:
        given: Any = self._given
        return given.rmatmat(u) if hasattr(given, "rmatmat") else given.T @ u

    def has_hessian(self) -> bool:
        return self._hessian is not None

    def hessian_groups(self, v: np.ndarray) -> np.ndarray:
        return np.asarray(self._hessian @ v)[None]

    def raw_squares(self) -> np.ndarray:
        return self._by_rows(lambda g: np.sum(g * g, axis=1))

    def second_moment(self) -> np.ndarray:
        return sum(self._by_rows(lambda g: np.sum(g * g, axis=0)[None])) / self.n

    def _by_rows(self, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        some = max(1, STORED // (8 * self.d))
        parts = []
        for first in range(0, self.n, some):
            unit = np.eye(self.n)[:, first : first + some]
            parts.append(f(self.back_times(unit).T))
        return np.concatenate(parts)


class _FromLoss(_Source):
    """Gradients of a loss: stored where they fit, else by products."""

    def __init__(self, loss: Any, params: Any, data: Any, n: int, hessian: Any):
        self.loss, self.data, self.n = loss, data, n
        flat, self._unravel = ravel_pytree(params)
        self.flat, self.d = flat, int(flat.size)
        self._hessian = _as_hessian(hessian, self.d)
        self._rows = np.asarray(_gradients(loss, self._unravel, flat, data)) if n * self.d <= STORED else None
        if self._rows is not None:
            self.mean = np.mean(self._rows, axis=0)
        else:
            self.mean = self.back_times(np.ones((n, 1)))[:, 0] / n
        if not np.all(np.isfinite(self.mean)):
            raise ValueError("loss must have finite gradients at params, got NaN or infinity")

    def back(self, flat: np.ndarray) -> Any:
        return self._unravel(jnp.asarray(flat))

    def rows(self) -> np.ndarray | None:
        return self._rows

    def times(self, v: np.ndarray) -> np.ndarray:
        if self._rows is not None:
            return self._rows @ v
        return np.asarray(_slopes(self.loss, self._unravel, self.flat, self.data, jnp.asarray(v)))

    def back_times(self, u: np.ndarray) -> np.ndarray:
        if self._rows is not None:
            return self._rows.T @ u
        return np.asarray(_weighted(self.loss, self._unravel, self.flat, self.data, jnp.asarray(u)))

    def has_hessian(self) -> bool:
        return True

    def hessian_groups(self, v: np.ndarray) -> np.ndarray:
        if self._hessian is not None:
            return np.asarray(self._hessian @ v)[None]
        return np.stack(
            [
                np.asarray(
                    _hessian_products(
                        self.loss,
                        self._unravel,
                        self.flat,
                        jax.tree.map(lambda leaf, g=group: leaf[g[0] : g[-1] + 1], self.data),
                        jnp.asarray(v),
                    )
                )
                * (len(self.groups()) * len(group) / self.n)
                for group in self.groups()
            ]
        )

    def raw_squares(self) -> np.ndarray:
        return np.asarray(_squares(self.loss, self._unravel, self.flat, self.data)[0])

    def second_moment(self) -> np.ndarray:
        return np.asarray(_squares(self.loss, self._unravel, self.flat, self.data)[1]) / self.n


@eqx.filter_jit
def _gradients(loss: Any, unravel: Any, flat: Any, data: Any) -> Any:
    return jax.lax.map(lambda z: jax.grad(lambda p: loss(unravel(p), z))(flat), data)


@eqx.filter_jit
def _squares(loss: Any, unravel: Any, flat: Any, data: Any) -> Any:
    def body(total, z):
        g = jax.grad(lambda p: loss(unravel(p), z))(flat)
        return total + g**2, jnp.sum(g**2)

    total, squares = jax.lax.scan(body, jnp.zeros_like(flat), data)
    return squares, total


@eqx.filter_jit
def _slopes(loss: Any, unravel: Any, flat: Any, data: Any, v: Any) -> Any:
    def one(z):
        f = lambda p: loss(unravel(p), z)  # noqa: E731
        return jax.vmap(lambda w: jax.jvp(f, (flat,), (w.astype(flat.dtype),))[1], in_axes=1)(v)

    return jax.lax.map(one, data)


@eqx.filter_jit
def _weighted(loss: Any, unravel: Any, flat: Any, data: Any, u: Any) -> Any:
    def body(total, part):
        z, weight = part
        return total + jnp.outer(jax.grad(lambda p: loss(unravel(p), z))(flat), weight), None

    return jax.lax.scan(body, jnp.zeros((flat.size, u.shape[1])), (data, u))[0]


@eqx.filter_jit
def _hessian_products(loss: Any, unravel: Any, flat: Any, data: Any, v: Any) -> Any:
    def mean_loss(p):
        return jnp.mean(jax.vmap(lambda z: loss(unravel(p), z))(data))

    slope = jax.grad(mean_loss)
    return jax.lax.map(lambda w: jax.jvp(slope, (flat,), (w.astype(flat.dtype),))[1], v.T).T


def _as_operator(gradients: Any) -> Any:
    return (
        gradients
        if hasattr(gradients, "rmatvec")
        else array(gradients, "gradients", "an array (n, d) or a LinearOperator")
    )


def _as_hessian(hessian: Any, d: int) -> Any:
    if hessian is None:
        return None
    operator = hessian if hasattr(hessian, "matvec") else array(hessian, "hessian", "a matrix or a LinearOperator")
    if operator.shape != (d, d):
        raise ValueError(f"hessian must have shape ({d}, {d}), as many as a gradient has entries, got {operator.shape}")
    return operator


def _mean_of(values: np.ndarray) -> Estimate:
    n = len(values)
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.inf)


# Alignment ----------------------------------------------------------------------------------------


def _alignment(source: _Source, probes: int, key: Any) -> dict[str, Estimate]:
    """Traces over all directions or random ones; error from leaving out groups of data, and from the probes."""
    d, n = source.d, source.n
    exact = d <= DIRECT
    if exact:
        Z, weight = np.eye(d), 1.0
    else:
        Z = np.asarray(jax.random.rademacher(key, (d, probes), float))
        weight = 1.0 / probes
    groups = source.groups()
    HZ = source.hessian_groups(Z)  # (groups or 1, d, k)
    SZ = _covariance_groups(source, Z, groups)

    def quantities(H: np.ndarray, S: np.ndarray, columns: Any = slice(None)) -> np.ndarray:
        """tr H, tr S, tr HS, |H|^2, |S|^2 from products with probes."""
        z, H, S = Z[:, columns], H[:, columns], S[:, columns]
        scale = weight * Z.shape[1] / z.shape[1]
        return scale * np.array([np.sum(z * H), np.sum(z * S), np.sum(H * S), np.sum(H * H), np.sum(S * S)])

    def answers(q: np.ndarray) -> np.ndarray:
        tiny = 1e-300
        return np.array(
            [q[2] / max(math.sqrt(max(q[3] * q[4], 0)), tiny), d * q[2] / (q[0] * q[1] if q[0] * q[1] else tiny), q[0]]
        )

    full_H, full_S = np.mean(HZ, axis=0), SZ(None)
    value = answers(quantities(full_H, full_S))
    if len(groups) > 1:
        left_out = []
        for g in range(len(groups)):
            H = full_H if len(HZ) == 1 else (np.sum(HZ, axis=0) - HZ[g]) * _share(groups, g, n)
            left_out.append(answers(quantities(H, SZ(g))))
        G = len(groups)
        variance = (G - 1) / G * np.sum((np.array(left_out) - np.mean(left_out, axis=0)) ** 2, axis=0)
    else:
        variance = np.full(3, np.inf)
    if not exact:  # leave out probes in turn
        k = Z.shape[1]
        without = np.array([answers(quantities(full_H, full_S, np.arange(k) != j)) for j in range(k)])
        variance = variance + (k - 1) / k * np.sum((without - np.mean(without, axis=0)) ** 2, axis=0)
    error = np.sqrt(variance)
    names = ("alignment", "anisotropy", "hessian_trace")
    status = Status.OK if np.all(np.isfinite(value)) else Status.UNDEFINED
    return {
        name: Estimate(float(v), float(e), status, {"probes": 0 if exact else probes, "groups": len(groups)})
        for name, v, e in zip(names, value, error, strict=True)
    }


def _share(groups: list[np.ndarray], g: int, n: int) -> float:
    """What turns `sum of the other groups' shares` into the mean Hessian of the data that stay."""
    return n / (len(groups) * (n - len(groups[g])))


def _covariance_groups(source: _Source, Z: np.ndarray, groups: list[np.ndarray]) -> Callable[[int | None], np.ndarray]:
    """`S Z` of all data, or of all but one group, from sums over groups."""
    u = source.times(Z)  # g_i . z
    sums = []
    for group in groups:
        chosen = np.zeros((source.n, Z.shape[1] + 1))
        chosen[group, :-1] = u[group]
        chosen[group, -1] = 1.0
        sums.append(source.back_times(chosen))
    total = np.sum(sums, axis=0)

    def product(without: int | None) -> np.ndarray:
        part = total if without is None else total - sums[without]
        count = source.n - (0 if without is None else len(groups[without]))
        mean = part[:, -1] / count
        return part[:, :-1] / count - np.outer(mean, mean @ Z)

    return product
