"""Where a user's density of real numbers has its peaks, and a law that is made of them for annealing to start from.

Climbs from narrow and wide starts, from the last states of other chains and from data end on peaks. Gaussians with the
peaks' curvatures, and a share of the wide base, are a start from which chains see modes of different width in their
right proportion; from one wide base hardly any chain ends in a narrow mode.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg.energy.boltzmann._base import NormalBase

SCALES = (0.1, 0.3, 1.0, 2.0)  # of the base, where climbs start: a narrow mode has a narrow basin
STARTS = 128  # climbs from each, and from each set of other states
SLOPES, NEWTONS = 60, 20  # steps of a climb: along the slope, then by curvature
ROUNDS = 3  # of climbs of the density over what is known of it
PEAKS = 32  # at most
LEAST = 15.0  # nats by which a peak may weigh less than the heaviest
WIDE = 0.1  # the share of chains that start from the wide base all the same
LOOSE = 1.2  # how much wider than its curvature says a Gaussian is
MOST_COORDINATES = 50  # beyond, curvatures cost too much


class PeaksBase(eqx.Module):
    """A mixture of Gaussians at peaks, and of a wide base.

    - `peaks` (k, d); `axes` (k, d, d), the principal axes of each in its columns, of length `widths` (k, d).
    - `log_share` (k,): of each among the Gaussians, -inf for a place that is not taken.
    """

    wide: NormalBase
    peaks: Any
    axes: Any
    widths: Any
    log_share: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.wide.shape

    @property
    def scale(self) -> Any:
        return self.wide.scale

    def log_density(self, x: Any) -> Any:
        return jnp.logaddexp(math.log1p(-WIDE) + self.of_peaks(x, LOOSE), math.log(WIDE) + self.wide.log_density(x))

    def of_peaks(self, x: Any, loose: float = 1.0) -> Any:
        """The log density of the Gaussians at the peaks, `loose` times as wide as their curvatures say."""
        widths = loose * self.widths
        z = jnp.einsum("kij,ki->kj", self.axes, x - self.peaks) / widths
        each = -jnp.sum(z**2, axis=1) / 2 - jnp.sum(jnp.log(widths), axis=1) - x.size * math.log(2 * math.pi) / 2
        return jax.nn.logsumexp(self.log_share + each)

    def draw(self, key: Any, chains: int) -> Any:
        for_wide, for_peak, for_place, for_coin = jax.random.split(key, 4)
        at = jax.random.categorical(for_peak, self.log_share, shape=(chains,))
        z = LOOSE * self.widths[at] * jax.random.normal(for_place, (chains, *self.shape))
        near = self.peaks[at] + jnp.einsum("nij,nj->ni", self.axes[at], z)
        coins = jax.random.bernoulli(for_coin, WIDE, (chains, 1))
        return jnp.where(coins, self.wide.draw(for_wide, chains), near)


def find(log_density: Callable, base: NormalBase, states: list[Any], key: Any) -> PeaksBase | None:
    """The law of the peaks that climbs end on, or `None` where no climb ends on one.

    `states`: arrays (n, d) of states that other chains or data have, to climb from too. Then climbs of the density
    divided by the law of the peaks found so far, which is flat where that law is right, lead to peaks whose own basins
    no start has met.
    """
    scales = jnp.repeat(jnp.asarray(SCALES), STARTS)[:, None]
    starts = [base.mean + scales * base.scale * jax.random.normal(key, (len(scales), *base.shape))]
    starts += [jnp.asarray(some)[np.arange(STARTS) * len(some) // STARTS] for some in states]
    width = jnp.maximum(jnp.std(starts[1] if states else starts[0], axis=0), 1e-3 * base.scale)
    x = jnp.concatenate(starts)
    ends = tuple(np.asarray(part) for part in _climb(log_density, x, width))
    law = _law(ends, base, width)
    for _ in range(ROUNDS):
        if law is None:
            break
        known = np.sum(np.isfinite(law.log_share))
        more = _climb(log_density, _climb_ratio(log_density, law, x, width), width)
        ends = tuple(np.concatenate([np.asarray(new), old]) for new, old in zip(more, ends, strict=True))
        law = _law(ends, base, width)
        if law is not None and np.sum(np.isfinite(law.log_share)) == known:
            break
    return law


def _law(ends: tuple[np.ndarray, ...], base: NormalBase, width: Any) -> PeaksBase | None:
    """The law of the peaks among the ends of climbs."""
    tops, values, steep, axes, rest = ends
    # A peak: all curvatures are downwards, and what is left to climb is less than its width.
    found = np.flatnonzero(np.isfinite(values) & (steep.min(axis=1, initial=np.inf) > 1e-8) & (rest < 1))
    width, size = np.asarray(width), tops.shape[1]
    chosen: list[int] = []
    for i in found[np.argsort(-values[found], kind="stable")]:
        if all(_apart(i, j, tops / width, steep, axes) > size for j in chosen):
            chosen.append(i)
    if not chosen:
        return None
    mass = values[chosen] - np.log(steep[chosen]).sum(axis=1) / 2
    chosen = [chosen[i] for i in np.argsort(-mass)[:PEAKS] if mass[i] > mass.max() - LEAST]
    share = np.sort(mass)[::-1][: len(chosen)]
    # Axes of unit length, in the coordinates of the density rather than in widths.
    spread = width[:, None] * axes[chosen] / np.sqrt(steep[chosen])[:, None, :]
    principal, lengths, _ = np.linalg.svd(spread)
    room = 2 ** math.ceil(math.log2(len(chosen)))  # few shapes, few compilations

    def padded(x: np.ndarray, fill: float | None = None) -> Any:
        tail = np.repeat(x[:1], room - len(x), axis=0)
        return jnp.asarray(np.concatenate([x, tail if fill is None else np.full_like(tail, fill)]))

    share = share - np.logaddexp.reduce(share)
    return PeaksBase(base, padded(tops[chosen]), padded(principal), padded(lengths), padded(share, -np.inf))


def _apart(i: int, j: int, places: np.ndarray, steep: np.ndarray, axes: np.ndarray) -> float:
    """The squared distance of two peaks in units of the narrower one's widths."""
    step = places[i] - places[j]
    return max(float(np.sum(steep[k] * (axes[k].T @ step) ** 2)) for k in (i, j))


@eqx.filter_jit
def _climb_ratio(log_density: Callable, law: PeaksBase, x: Any, width: Any) -> Any:
    """Where climbs of `log density - log law` end. Slopes may be minute, so only their directions count."""
    slopes = jax.vmap(jax.value_and_grad(lambda u: log_density(u * width) - law.of_peaks(u * width)))

    def move(_, carry):
        u, now, way, size = carry
        v = u + size[:, None] * way
        then, slope = slopes(v)
        better, turned = then >= now, slope / jnp.maximum(jnp.linalg.norm(slope, axis=1, keepdims=True), 1e-300)
        u, way = jnp.where(better[:, None], v, u), jnp.where(better[:, None], turned, way)
        return u, jnp.where(better, then, now), way, size * jnp.where(better, 1.3, 0.4)

    u = x / width
    now, slope = slopes(u)
    way = slope / jnp.maximum(jnp.linalg.norm(slope, axis=1, keepdims=True), 1e-300)
    return lax.fori_loop(0, SLOPES, move, (u, now, way, jnp.full(len(u), 0.3)))[0] * width


@eqx.filter_jit
def _climb(log_density: Callable, x: Any, width: Any) -> tuple[Any, ...]:
    """(ends, values, curvatures, their axes, what is left to climb), lengths measured in `width`."""
    of = lambda u: log_density(u * width)  # noqa: E731
    value, slopes = jax.vmap(of), jax.vmap(jax.value_and_grad(of))

    def along_slope(_, carry):
        u, now, slope, size = carry
        v = u + size[:, None] * slope
        then, steeper = slopes(v)
        better = then > now
        u, slope = jnp.where(better[:, None], v, u), jnp.where(better[:, None], steeper, slope)
        return u, jnp.where(better, then, now), slope, size * jnp.where(better, 1.3, 0.4)

    def curved(u):
        steep, axes = jnp.linalg.eigh(-jnp.nan_to_num(jax.vmap(jax.hessian(of))(u)))
        slope = jnp.einsum("nij,ni->nj", axes, jnp.nan_to_num(slopes(u)[1]))
        return steep, axes, slope

    def newton(i, carry):
        u, now, size, _ = carry
        steep, axes, slope = curvature = curved(u)
        step = slope / jnp.maximum(jnp.abs(steep), 1e-3)  # upwards also where the curvature is the wrong way round
        v = u + size[:, None] * jnp.einsum("nij,nj->ni", axes, step)
        then = value(v)
        better = (then > now) & (i < NEWTONS)  # the last time only to look
        return (
            jnp.where(better[:, None], v, u),
            jnp.where(better, then, now),
            jnp.where(better, jnp.minimum(2 * size, 1), size / 4),
            curvature,
        )

    u = x / width
    u, now, *_ = lax.fori_loop(0, SLOPES, along_slope, (u, *slopes(u), jnp.full(len(u), 0.3)))
    nothing = jnp.zeros_like(u), jnp.zeros((*u.shape, u.shape[1])), jnp.zeros_like(u)
    start = (u, now, jnp.ones(len(u)), nothing)
    u, now, _, (steep, axes, slope) = lax.fori_loop(0, NEWTONS + 1, newton, start)
    rest = jnp.sum(slope**2 / jnp.maximum(jnp.abs(steep), 1e-12), axis=1)
    return u * width, now, steep, axes, rest
