"""The Jastrow factor: what keeps particles apart, with the cusp that cancels 1/r exactly."""

import functools
import itertools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import check_one_number, check_truth
from thalweg.energy.ground_states._checks import check_count
from thalweg.energy.ground_states._coordinates import length
from thalweg.energy.ground_states._trap import check_trap
from thalweg.energy.ground_states._wavefunction import Local, Wavefunction, column, stacked

MOST_TERMS = 64
# Powers (n, k, m) of the terms tau^n (s_i^k s_j^m + s_i^m s_j^k): none is linear in r, which would spoil the cusp.
MIXED = ((2, 1, 0), (2, 1, 1), (2, 2, 0), (3, 1, 0), (3, 1, 1), (0, 1, 1), (0, 2, 1), (0, 2, 2))


class PadeJastrow(Wavefunction):
    """The Pade-Jastrow factor with further terms; it cancels the `1/r` of the interaction exactly.

    ```
    ln J = sum_{i<j} [c r/(1 + beta r) + sum_{k>=2} a_k tau^k] + sum_i sum_k b_k s_i^k
         + sum_{i<j} sum_{nkm} g_nkm tau^n (s_i^k s_j^m + s_i^m s_j^k)
    tau = beta r/(1 + beta r),   s_i = q_i/(kappa + q_i),   q_i = sum_d omega_d x_id^2
    c = charge/(D - 1) for pairs that may meet, charge/(D + 1) for pairs that exchange keeps apart
    ```

    On a line, where `1/r` lets no two particles meet, `ln r` is added for pairs that exchange does not keep apart.

    **Arguments** (`PadeJastrow.of(trap)` finds all of them)

    - `log_beta`: `ln beta`, in inverse lengths.
    - `pair`: `a_k` for k = 2, 3, ..., shape (kinds of pairs, terms). - `single`: `b_k`, shape (terms,).
    - `mixed`: `g_nkm` in the order of `MIXED`, shape (kinds of pairs, 8), or (kinds, 0) for none.
    - `cusps`: `c` of each kind of pair. - `frequencies`: `omega_d`. - `kappa`: how large `q` is in the cloud.
    - `spins`: `(up, down)`; pairs of equal spin come first. Bosons: `(0, N)`, all of one kind.
    - `hard`: for each kind of pair, whether `ln r` is added.

    Sources: Jastrow, Phys. Rev. 98, 1479 (1955); cusps: Pack and Byers Brown, J. Chem. Phys. 45, 556 (1966); further
    terms after Drummond, Towler and Needs, Phys. Rev. B 70, 235119 (2004), in other variables.

    >>> import thalweg as tw
    >>> psi = tw.energy.PadeJastrow.of(tw.energy.HarmonicTrap(2, 2, 1.0), beta=0.5)
    >>> round(float(psi.log_psi([0.0, 0.0, 2.0, 0.0])), 6)      # 2/(1 + 0.5 * 2)
    1.0
    """

    log_beta: Float[Array, ""]
    pair: Float[Array, "kinds terms"]
    single: Float[Array, " singles"]
    mixed: Float[Array, "kinds mixed"]
    cusps: Float[Array, " kinds"]
    frequencies: Float[Array, " d"]
    kappa: Float[Array, ""]
    spins: tuple[int, int] = eqx.field(static=True)
    hard: tuple[bool, ...] = eqx.field(static=True)
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    @classmethod
    def of(
        cls, trap: Any, terms: int | None = None, mixed: bool | None = None, beta: float | None = None
    ) -> "PadeJastrow":
        """The factor of a `HarmonicTrap`, its further terms at 0.

        `terms`: the highest power of `tau` and twice that of `s`, by default 8 for two particles and 5 for more; 1
        leaves the plain Pade-Jastrow factor. `mixed`: whether there are terms in `tau` and `s` together, by default
        for more than two particles. `beta`: by default sqrt(omega).
        """
        check_trap(trap)
        if terms is not None:
            check_count(terms, "terms", MOST_TERMS)
        if mixed is not None:
            check_truth(mixed, "mixed")
        few = trap.particles == 2
        terms = (8 if few else 5) if terms is None else terms
        mixed = (not few and terms > 1) if mixed is None else mixed
        frequencies = np.asarray(trap.frequencies)
        fermions = trap.statistics == "fermions"
        spins = trap.spins if fermions else (0, trap.particles)
        apart = [fermions and like for like in _pairs(spins).like]
        # On a line 1/r lets no two particles meet: psi must vanish there, whatever exchange does.
        hard = tuple(trap.dimension == 1 and trap.charge != 0 and not kept for kept in apart)
        zeros = [kept or wall for kept, wall in zip(apart, hard, strict=True)]
        filled = np.array([n for part in trap.orbitals for n in part])
        return cls(
            log_beta=jnp.log(jnp.sqrt(frequencies.mean()) if beta is None else check_one_number(beta, "beta", above=0)),
            pair=jnp.zeros((len(hard), max(terms - 1, 0))),
            single=jnp.zeros(terms // 2),
            mixed=jnp.zeros((len(hard), len(MIXED) if mixed else 0)),
            cusps=jnp.array([trap.charge / (trap.dimension - 1 + 2 * z) if trap.charge else 0.0 for z in zeros]),
            frequencies=jnp.asarray(frequencies),
            kappa=jnp.asarray(2 * (filled + 0.5).sum(axis=1).mean()),
            spins=spins,
            hard=hard,
            particles=trap.particles,
            dimension=trap.dimension,
        )

    def trained(self) -> "PadeJastrow":
        fixed = jax.tree.map(lambda _: False, self)
        wanted = lambda p: (p.log_beta, p.pair, p.single, p.mixed)  # noqa: E731
        # beta shapes the cusp term alone; without it and without further terms there is nothing for it to do
        return eqx.tree_at(wanted, fixed, (True, True, True, True))

    def log_at(self, x: Any) -> Any:
        g = self._geometry(x)
        pairs = self._cusp_slope(x) * g.tau + _power_sum(self._by_pair(self.pair, x), g.tau, 2)
        log = jnp.sum(pairs, axis=0)
        if any(self.hard):
            log = log + jnp.sum(self._by_pair(jnp.asarray(self.hard, float), x) * jnp.log(g.r), axis=0)
        if self.single.size:
            log = log + jnp.sum(_power_sum(self.single, g.s, 1), axis=0)
        if self.mixed.size:
            log = log + jnp.sum(_mixed(self._by_pair(self.mixed, x), g.tau, g.s[g.i], g.s[g.j]).value, axis=0)
        return log

    def local_at(self, x: Any) -> Local:
        g, beta, d = self._geometry(x), jnp.exp(self.log_beta), self.dimension
        pair = self._by_pair(self.pair, x)
        f = self._cusp_slope(x) * g.tau + _power_sum(pair, g.tau, 2)
        by_tau = self._cusp_slope(x) + _power_sum(pair, g.tau, 2, 1)
        by_tau_tau = _power_sum(pair, g.tau, 2, 2)
        slope = beta * (1 - g.tau) ** 2  # dtau/dr; the second derivative is -2 beta (1 - tau) times it

        # one-body terms, and how s follows from the coordinates
        s, frequencies = g.s, column(self.frequencies, x)
        by_s = _power_sum(self.single, s, 1, 1)
        by_s_s = _power_sum(self.single, s, 1, 2)
        s_q = (1 - s) ** 2 / self.kappa
        ds = s_q[:, None] * 2 * frequencies * g.position
        ds_square = jnp.sum(ds**2, axis=1)
        lap_s = -2 * (1 - s) / self.kappa * s_q * jnp.sum((2 * frequencies * g.position) ** 2, axis=1)
        lap_s = lap_s + s_q * 2 * jnp.sum(self.frequencies)

        log = jnp.sum(_power_sum(self.single, s, 1), axis=0)
        bend = 0.0
        if self.mixed.size:
            m = _mixed(self._by_pair(self.mixed, x), g.tau, s[g.i], s[g.j])
            f, by_tau, by_tau_tau = f + m.value, by_tau + m.t, by_tau_tau + m.tt
            by_s = by_s + jnp.tensordot(g.first, m.a, axes=1) + jnp.tensordot(g.second, m.b, axes=1)
            by_s_s = by_s_s + jnp.tensordot(g.first, m.aa, axes=1) + jnp.tensordot(g.second, m.bb, axes=1)
            along = lambda p: jnp.sum(g.unit * ds[p], axis=1)  # noqa: E731
            bend = 2 * jnp.sum(slope * (m.ta * along(g.i) - m.tb * along(g.j)), axis=0)

        by_r = by_tau * slope
        by_r_r = by_tau_tau * slope**2 - 2 * beta * (1 - g.tau) * by_r
        if any(self.hard):
            wall = self._by_pair(jnp.asarray(self.hard, float), x)
            f, by_r, by_r_r = f + wall * jnp.log(g.r), by_r + wall / g.r, by_r_r - wall / g.r**2
        gradient = jnp.tensordot(g.first - g.second, by_r[:, None] * g.unit, axes=1) + by_s[:, None] * ds
        laplacian = 2 * jnp.sum(by_r_r + (d - 1) * by_r / g.r, axis=0) + bend
        laplacian = laplacian + jnp.sum(by_s_s * ds_square + by_s * lap_s, axis=0)
        return Local(log + jnp.sum(f, axis=0), gradient.reshape(x.shape), laplacian)

    def derivatives_at(self, x: Any) -> Any:
        g = self._geometry(x)
        slices = _pairs(self.spins).slices
        powers = _powers(g.tau, self.pair.shape[1] + 2)
        # d tau/d ln beta = tau (1 - tau), and the cusp term is c tau/beta
        by_log_beta = -self._by_pair(self.cusps, x) / jnp.exp(self.log_beta) * g.tau**2
        by_log_beta = by_log_beta + _power_sum(self._by_pair(self.pair, x), g.tau, 2, 1) * g.tau * (1 - g.tau)
        by_kind = lambda rows: [jnp.sum(rows[k], axis=0) for k in slices]  # noqa: E731
        pair = [jnp.stack(by_kind(powers[k])) for k in range(2, self.pair.shape[1] + 2)]
        mixed = []
        if self.mixed.size:
            coefficients = self._by_pair(self.mixed, x)
            by_log_beta = by_log_beta + _mixed(coefficients, g.tau, g.s[g.i], g.s[g.j]).t * g.tau * (1 - g.tau)
            mixed = [jnp.stack(by_kind(term)) for term in _mixed_terms(g.tau, g.s[g.i], g.s[g.j])]
        single = [jnp.sum(p, axis=0) for p in _powers(g.s, self.single.shape[0] + 1)[1:]]
        parts = [jnp.sum(by_log_beta, axis=0)[None]]
        parts += [jnp.stack(pair, axis=1)] if pair else []
        parts += [jnp.stack(single)] if single else []
        parts += [jnp.stack(mixed, axis=1)] if mixed else []
        return stacked(parts, x)

    def _geometry(self, x: Any) -> "_Geometry":
        found = _pairs(self.spins)
        position = x.reshape(self.particles, self.dimension, *x.shape[1:])
        difference = position[found.i] - position[found.j]
        r = length(difference)
        beta_r = jnp.exp(self.log_beta) * r
        q = jnp.sum(column(self.frequencies, x) * position**2, axis=1)
        unit = difference / r[:, None]
        return _Geometry(
            found.i, found.j, found.first, found.second, position, r, unit, beta_r / (1 + beta_r), q / (self.kappa + q)
        )

    def _by_pair(self, of_kind: Any, x: Any) -> Any:
        """Coefficients of kinds, of shape (kinds, ...), one row a pair: a tuple of columns, or one column."""
        rows = jnp.concatenate(
            [jnp.repeat(of_kind[k : k + 1], n, axis=0) for k, n in enumerate(_pairs(self.spins).counts)]
        )
        return column(rows, x) if rows.ndim == 1 else [column(rows[:, k], x) for k in range(rows.shape[1])]

    def _cusp_slope(self, x: Any) -> Any:
        return self._by_pair(self.cusps, x) / jnp.exp(self.log_beta)


class _Pairs(NamedTuple):
    """Pairs in order of their kind, and which particles they are of."""

    i: np.ndarray
    j: np.ndarray
    first: np.ndarray  # (particles, pairs): 1 where the particle is the first of the pair
    second: np.ndarray
    counts: tuple[int, ...]
    slices: tuple[slice, ...]
    like: tuple[bool, ...]


@functools.cache
def _pairs(spins: tuple[int, int]) -> _Pairs:
    up, down = spins
    i, j = np.triu_indices(up + down, 1)
    like = (i < up) == (j < up)
    like = np.zeros_like(like) if up == 0 else like
    order = np.argsort(~like, kind="stable")
    i, j = i[order], j[order]
    counts = [(int(like.sum()), True), (int((~like).sum()), False)]
    kinds = tuple(kind for count, kind in counts if count)
    numbers = tuple(count for count, _ in counts if count)
    ends = np.cumsum((0, *numbers))
    one = np.eye(up + down)
    slices = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))
    return _Pairs(i, j, one[:, i], one[:, j], numbers, slices, kinds)


class _Geometry(NamedTuple):
    i: Any
    j: Any
    first: Any
    second: Any
    position: Any
    r: Any
    unit: Any
    tau: Any
    s: Any


class _Mixed(NamedTuple):
    """A function of tau, a = s_i and b = s_j with the derivatives that a Laplacian needs."""

    value: Any
    t: Any
    tt: Any
    a: Any
    b: Any
    aa: Any
    bb: Any
    ta: Any
    tb: Any


def _mixed(coefficients: list[Any], tau: Any, a: Any, b: Any) -> _Mixed:
    t, t1, t2 = _tables(tau, 3)
    pa, pa1, pa2 = _tables(a, 2)
    pb, pb1, pb2 = _tables(b, 2)
    total = [0.0] * 9
    for g, (n, k, m) in zip(coefficients, MIXED, strict=True):
        both = lambda u, v: u[k] * v[m] + (u[m] * v[k] if k != m else 0.0)  # noqa: B023, E731
        value, by_a, by_b, by_aa, by_bb = both(pa, pb), both(pa1, pb), both(pa, pb1), both(pa2, pb), both(pa, pb2)
        new = [t[n] * value, t1[n] * value, t2[n] * value, t[n] * by_a, t[n] * by_b, t[n] * by_aa, t[n] * by_bb]
        new += [t1[n] * by_a, t1[n] * by_b]
        total = [old + g * term for old, term in zip(total, new, strict=True)]
    return _Mixed(*total)


def _mixed_terms(tau: Any, a: Any, b: Any) -> list[Any]:
    t, pa, pb = _powers(tau, 4), _powers(a, 3), _powers(b, 3)
    return [t[n] * (pa[k] * pb[m] + (pa[m] * pb[k] if k != m else 0.0)) for n, k, m in MIXED]


def _tables(z: Any, highest: int) -> tuple[list, list, list]:
    """Powers 0 ... highest with two derivatives of each."""
    powers = _powers(z, highest + 1)
    first = [k * powers[k - 1] if k else 0.0 for k in range(highest + 1)]
    second = [k * (k - 1) * powers[k - 2] if k > 1 else 0.0 for k in range(highest + 1)]
    return powers, first, second


def _powers(z: Any, count: int) -> list[Any]:
    powers = [jnp.ones_like(z), z][:count]
    while len(powers) < count:
        powers.append(powers[-1] * z)
    return powers


def _power_sum(coefficients: Any, z: Any, lowest: int, derivative: int = 0) -> Any:
    """`sum_k c_k z^(lowest + k)`, or its first or second derivative, by Horner's rule."""
    total = jnp.zeros_like(z)
    for place in reversed(range(len(coefficients))):
        k = lowest + place
        factor = 1 if derivative == 0 else k if derivative == 1 else k * (k - 1)
        total = total * z + factor * coefficients[place]
    power = lowest - derivative
    return total * z**power if power >= 0 else _shifted(coefficients, z)


def _shifted(coefficients: Any, z: Any) -> Any:
    """The second derivative of a sum that starts at the first power."""
    return _power_sum([(k + 2) * (k + 1) * c for k, c in enumerate(coefficients[1:])], z, 0)
