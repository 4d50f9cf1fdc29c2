"""Backflow: determinants of places that depend on where all the other particles are."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import is_traced, shown
from thalweg.energy.ground_states._checks import check_count, real_numbers
from thalweg.energy.ground_states._slater import SlaterDeterminants, invert, varies
from thalweg.energy.ground_states._wavefunction import Local, Wavefunction, stacked

TERMS = 3  # powers in each function of a distance
MOST_TERMS = 64


class BackflowDeterminants(Wavefunction):
    """Slater determinants in which every particle is shifted by where the others are; this moves the nodes.

    ```
    psi = det[phi_k(y_i)]_up det[phi_k(y_i)]_down
    y_i = r_i + sum_{j != i} eta(r_ij) (r_i - r_j) + mu(r_i) r_i
    eta(r) = sum_{k>=1} a_k/(1 + omega r^2/2)^k,      mu(r) = sum_{k>=1} b_k/(1 + omega r^2/2)^k
    ```

    with one `eta` for pairs of like spin, one for opposite spins. Both are even in r, so that the cusps of a
    `PadeJastrow` stay as they are. `mu` gives each shell a radial part of its own. With `J = dy/dx`, the Laplacian is
    `sum_ab (J J^T)_ab d2/dy_a dy_b + sum_a lap(y_a) d/dy_a` of the logarithm, everything in closed form.

    **Arguments** (`BackflowDeterminants.of(trap)` finds all of them)

    - `determinants`: `SlaterDeterminants`. - `pair`: `a_k`, shape (2, terms): like spins, opposite spins.
    - `single`: `b_k`, shape (terms,).

    Sources: Feynman and Cohen, Phys. Rev. 102, 1189 (1956); Lopez Rios et al., Phys. Rev. E 74, 066701 (2006).

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(6, 2, 1.0)
    >>> x = [0.1, 0.2, -1.0, 0.4, 0.7, -0.9, 0.3, 0.3, 1.2, -0.1, -0.5, -0.6]
    >>> plain, shifted = tw.energy.SlaterDeterminants.of(trap), tw.energy.BackflowDeterminants.of(trap)
    >>> abs(float(plain.log_psi(x) - shifted.log_psi(x))) < 1e-12       # it starts without a shift
    True
    """

    determinants: SlaterDeterminants
    pair: Float[Array, "2 terms"]
    single: Float[Array, " terms"]
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __init__(self, determinants: SlaterDeterminants, pair: Any, single: Any):
        if not isinstance(determinants, SlaterDeterminants):
            raise TypeError(f"determinants must be tw.energy.SlaterDeterminants, got {shown(determinants)}")
        self.determinants = determinants
        self.pair = _table(pair, "pair", "(2, terms)", lambda shape: len(shape) == 2 and shape[0] == 2)
        self.single = _table(single, "single", "(terms,)", lambda shape: len(shape) == 1)
        self.particles, self.dimension = determinants.particles, determinants.dimension

    @classmethod
    def of(cls, trap: Any, terms: int = TERMS) -> "BackflowDeterminants":
        """The determinants of a `HarmonicTrap`, not shifted yet."""
        check_count(terms, "terms", MOST_TERMS)
        return cls(SlaterDeterminants.of(trap), jnp.zeros((2, terms)), jnp.zeros(terms))

    def trained(self) -> "BackflowDeterminants":
        fixed = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda p: (p.pair, p.single), fixed, (True, True))

    def log_at(self, x: Any) -> Any:
        position, apart = self._places(x)
        pair, single = self._functions(position, apart)
        y = position + jnp.sum(pair.value[:, :, None] * apart, axis=1) + single.value[:, None] * position
        return self.determinants.log_at(y.reshape(x.shape))

    def local_at(self, x: Any) -> Local:
        position, apart = self._places(x)
        pair, single = self._functions(position, apart)
        y, jacobian, bend = _shifted(position, apart, pair, single)
        log, laplacian = jnp.zeros(x.shape[1:]), jnp.zeros(x.shape[1:])
        slopes = []
        for some in self._spins(y):
            rows = jacobian[some.particles]
            log, slope = log + some.log, jnp.sum(some.crossed * _diagonal(some.crossed), axis=2)
            for a in range(self.dimension):
                for b in range(self.dimension):
                    laplacian = laplacian + jnp.sum(
                        jnp.sum(rows[:, a] * rows[:, b], axis=(1, 2)) * some.second[:, a, b], axis=0
                    )
            # one matrix over particles for every coordinate of x: its square's trace is what exchange takes away
            turned = sum(rows[:, None, a] * some.crossed[:, a, :, None, None] for a in range(self.dimension))
            laplacian = laplacian - jnp.sum(turned * jnp.swapaxes(turned, 0, 1), axis=(0, 1, 2, 3))
            slopes.append(slope)
        slope = jnp.concatenate(slopes)
        gradient = jnp.sum(jacobian * slope[:, :, None, None], axis=(0, 1))
        return Local(log, gradient.reshape(x.shape), laplacian + jnp.sum(bend * slope, axis=(0, 1)))

    def derivatives_at(self, x: Any) -> Any:
        position, apart = self._places(x)
        pair, single = self._functions(position, apart)
        y = position + jnp.sum(pair.value[:, :, None] * apart, axis=1) + single.value[:, None] * position
        slope = self.determinants.local_at(y.reshape(x.shape)).gradient.reshape(position.shape)
        along = jnp.sum(slope[:, None] * apart, axis=2)
        by_pair = [
            jnp.stack([jnp.sum(along * g * column_pairs(mask, x), axis=(0, 1)) for g in pair.powers])
            for mask in _masks(self.determinants)
        ]
        radial = jnp.sum(slope * position, axis=1)
        by_single = [jnp.sum(radial * g, axis=0) for g in single.powers]
        return stacked([jnp.stack(by_pair), jnp.stack(by_single)], x)

    def _places(self, x: Any) -> tuple[Any, Any]:
        """Positions (N, d, ...) and differences of all of them (N, N, d, ...)."""
        position = x.reshape(self.particles, self.dimension, *x.shape[1:])
        return position, position[:, None] - position[None]

    def _functions(self, position: Any, apart: Any) -> tuple["_Radial", "_Radial"]:
        """eta of all pairs and mu of all particles, with derivatives by the square of the distance."""
        scale = jnp.mean(self.determinants.frequencies) / 2
        like, opposite = (column_pairs(mask, position[0]) for mask in _masks(self.determinants))
        of_pairs = [like * a + opposite * b for a, b in zip(*self.pair, strict=True)]
        return (
            _radial(of_pairs, jnp.sum(apart**2, axis=2), scale),
            _radial(list(self.single), jnp.sum(position**2, axis=1), scale),
        )

    def _spins(self, y: Any) -> list["_Spin"]:
        """What the Laplacian needs of the determinant of each spin, at positions (N, d, ...)."""
        found = []
        for part, first, last in self.determinants.ranges():
            if first == last:
                continue
            here = y[first:last]
            values, slopes, _ = self.determinants.matrix(part, here)
            inverse, log = invert(values)
            # crossed[i, a, j] = sum_k d_a phi_k(y_i) B_kj with B the inverse, rows of which are particles
            crossed = jnp.sum(slopes[:, :, :, None] * jnp.moveaxis(inverse, 0, 1)[:, None, None], axis=0)
            bends = self.determinants.second(part, here)
            second = jnp.sum(bends * jnp.moveaxis(inverse, 0, 1)[:, :, None, None], axis=0)
            found.append(_Spin(slice(first, last), log if varies(part) else jnp.zeros_like(log), crossed, second))
        return found


def _table(values: Any, name: str, wanted: str, fits: Callable[[tuple[int, ...]], bool]) -> Any:
    """Coefficients of the right shape."""
    if is_traced(values):
        return values
    table = real_numbers(values, name, f"numbers of shape {wanted}")
    if not fits(table.shape) or not bool(jnp.all(jnp.isfinite(table))):
        raise ValueError(f"{name} must be finite numbers of shape {wanted}, got {shown(values)}")
    return table


class _Spin(NamedTuple):
    particles: slice
    log: Any
    crossed: Any  # (i, a, j, ...)
    second: Any  # (i, a, b, ...): the second derivatives of phi_k, times the inverse


class _Radial(NamedTuple):
    """`sum_k c_k g^k` of `g = 1/(1 + scale u)`, its derivatives by u, and the powers of g."""

    value: Any
    by_u: Any
    by_uu: Any
    powers: list[Any]


def _radial(coefficients: list[Any], u: Any, scale: Any) -> _Radial:
    g = 1 / (1 + scale * u)
    powers = [g]
    while len(powers) < len(coefficients):
        powers.append(powers[-1] * g)
    value, by_u, by_uu = jnp.zeros_like(g), jnp.zeros_like(g), jnp.zeros_like(g)
    for k, (c, power) in enumerate(zip(coefficients, powers, strict=True), 1):
        # d g^k/du = -k scale g^(k+1)
        value, by_u = value + c * power, by_u - k * scale * c * power * g
        by_uu = by_uu + k * (k + 1) * scale**2 * c * power * g**2
    return _Radial(value, by_u, by_uu, powers)


def _shifted(position: Any, apart: Any, pair: _Radial, single: _Radial) -> tuple[Any, Any, Any]:
    """y (N, d, ...), `dy_ia/dx_jb` (N, d, N, d, ...) and the Laplacian of y (N, d, ...)."""
    n, d = position.shape[:2]
    y = position + jnp.sum(pair.value[:, :, None] * apart, axis=1) + single.value[:, None] * position
    one = column_pairs(np.eye(n), position[0])
    rows = []
    for a in range(d):
        columns = []
        for b in range(d):
            of_pair = 2 * pair.by_u * apart[:, :, a] * apart[:, :, b] + (pair.value if a == b else 0.0)
            own = jnp.sum(of_pair, axis=1) + 2 * single.by_u * position[:, a] * position[:, b]
            own = own + (1 + single.value if a == b else 0.0)
            columns.append(one * own[:, None] - of_pair)
        rows.append(jnp.stack(columns, axis=2))
    squares = jnp.sum(apart**2, axis=2), jnp.sum(position**2, axis=1)
    # lap f(u) r = (4 u f'' + 2 (d + 2) f') r; the difference of a pair feels both of its ends
    of_pairs = 2 * (4 * squares[0] * pair.by_uu + 2 * (d + 2) * pair.by_u)
    of_one = 4 * squares[1] * single.by_uu + 2 * (d + 2) * single.by_u
    bend = jnp.sum(of_pairs[:, :, None] * apart, axis=1) + of_one[:, None] * position
    return y, jnp.stack(rows, axis=1), bend


def _diagonal(crossed: Any) -> Any:
    """1 where the two particles of `crossed[i, a, j]` are the same one."""
    n = crossed.shape[0]
    return np.eye(n).reshape(n, 1, n, *(1,) * (crossed.ndim - 3))


def column_pairs(values: Any, x: Any) -> Any:
    """Values of all pairs (N, N), shaped to meet a batch like that of x."""
    return jnp.reshape(values, (*np.shape(values), *(1,) * (x.ndim - 1)))


def _masks(determinants: SlaterDeterminants) -> tuple[np.ndarray, np.ndarray]:
    return _pair_masks(determinants.particles, len(determinants.orbitals[0]))


@functools.cache
def _pair_masks(particles: int, up: int) -> tuple[np.ndarray, np.ndarray]:
    """1 for pairs of like spins, and 1 for pairs of opposite spins; no particle pairs with itself."""
    spin = np.arange(particles) < up
    like = spin[:, None] == spin[None]
    return (like & ~np.eye(particles, dtype=bool)).astype(float), (~like).astype(float)
