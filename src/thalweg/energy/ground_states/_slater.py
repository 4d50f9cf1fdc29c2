"""Slater determinants of oscillator orbitals, and their inverses for many walkers at once."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from thalweg.energy.ground_states._orbitals import Orbital, hermite
from thalweg.energy.ground_states._trap import check_trap
from thalweg.energy.ground_states._wavefunction import Local, Wavefunction


class SlaterDeterminants(Wavefunction):
    """A determinant for spin up times one for spin down, of the polynomials of oscillator orbitals.

    `psi = det[phi_k(r_i)]_up det[phi_k(r_i)]_down`, `phi_n(r) = prod_d h_{n_d}(sqrt(omega_d) x_d)` with the Hermite
    polynomials h. The Gaussians of the orbitals are another factor (`GaussianState` or `RBMState`). With the inverse
    `B` of the matrix, `grad_i ln det = sum_k grad phi_k(r_i) B_ki` and `lap_i det/det = sum_k lap phi_k(r_i) B_ki`.

    **Arguments**

    - `frequencies`: `omega_d`, shape (dimension,). - `orbitals`: quantum numbers, for spin up and for spin down.

    It has no parameters of its own.

    Source: as for determinants in Foulkes et al., Rev. Mod. Phys. 73, 33 (2001).

    >>> import thalweg as tw
    >>> psi = tw.energy.SlaterDeterminants.of(tw.energy.HarmonicTrap((2, 0), 1, 1.0))
    >>> round(float(psi.log_psi([0.0, 2.0])), 6)        # |x_1 - x_2|
    0.693147
    """

    frequencies: Float[Array, " d"]
    orbitals: tuple[tuple[Orbital, ...], ...] = eqx.field(static=True)
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __init__(self, frequencies: Any, orbitals: tuple[tuple[Orbital, ...], ...]):
        self.frequencies = jnp.atleast_1d(jnp.asarray(frequencies, float))
        self.orbitals = orbitals
        self.particles, self.dimension = sum(len(part) for part in orbitals), int(self.frequencies.shape[0])

    @classmethod
    def of(cls, trap: Any) -> "SlaterDeterminants":
        """The determinants of a `HarmonicTrap`."""
        check_trap(trap)
        return cls(trap.frequencies, trap.orbitals)

    def trained(self) -> "SlaterDeterminants":
        return eqx.tree_at(lambda p: p.frequencies, self, False)

    def log_at(self, x: Any) -> Any:
        total = jnp.zeros(x.shape[1:])
        for part, z in self._parts(x):
            if varies(part):
                total = total + invert(self.matrix(part, z)[0])[1]
        return total

    def local_at(self, x: Any) -> Local:
        log, laplacian = jnp.zeros(x.shape[1:]), jnp.zeros(x.shape[1:])
        gradients = []
        for part, z in self._parts(x):
            if not varies(part):
                gradients.append(jnp.zeros_like(z))
                continue
            values, slopes, bends = self.matrix(part, z)
            inverse, log_part = invert(values)
            by_particle = jnp.moveaxis(inverse, 0, 1)  # (k, i) as the values are
            gradient = jnp.sum(slopes * by_particle[:, :, None], axis=0)
            # lap ln D = lap D/D - (grad ln D)^2, particle by particle
            laplacian = laplacian + jnp.sum(bends * by_particle, axis=(0, 1)) - jnp.sum(gradient**2, axis=(0, 1))
            log = log + log_part
            gradients.append(gradient)
        return Local(log, jnp.concatenate(gradients).reshape(x.shape), laplacian)

    def derivatives_at(self, x: Any) -> Any:
        return jnp.zeros((0, *x.shape[1:]))

    def _parts(self, x: Any) -> list[tuple[tuple[Orbital, ...], Any]]:
        """Orbitals and positions of each spin."""
        z = x.reshape(self.particles, self.dimension, *x.shape[1:])
        return [(part, z[first:last]) for part, first, last in self.ranges() if last > first]

    def ranges(self) -> list[tuple[tuple[Orbital, ...], int, int]]:
        """Orbitals of each spin, its first particle, and the one after its last."""
        up = len(self.orbitals[0])
        return [
            (part, 0 if spin == 0 else up, up if spin == 0 else self.particles)
            for spin, part in enumerate(self.orbitals)
        ]

    def matrix(self, part: tuple[Orbital, ...], r: Any) -> tuple[Any, Any, Any]:
        """Orbitals (k, i, ...), gradients (k, i, d, ...) and Laplacians (k, i, ...) of them."""
        root = jnp.sqrt(self.frequencies)
        highest = max(max(n) for n in part)
        tables = [hermite(root[d] * r[:, d], highest) for d in range(self.dimension)]
        values, slopes, bends = [], [], []
        for numbers in part:
            h = [tables[d][0][n] for d, n in enumerate(numbers)]
            h1 = [root[d] * tables[d][1][n] for d, n in enumerate(numbers)]
            h2 = [self.frequencies[d] * tables[d][2][n] for d, n in enumerate(numbers)]
            values.append(_product(h))
            slopes.append(jnp.stack([_product([*h[:d], h1[d], *h[d + 1 :]]) for d in range(len(h))], axis=1))
            bends.append(sum(_product([*h[:d], h2[d], *h[d + 1 :]]) for d in range(len(h))))
        return jnp.stack(values), jnp.stack(slopes), jnp.stack(bends)

    def second(self, part: tuple[Orbital, ...], r: Any) -> Any:
        """All second derivatives of the orbitals, of shape (k, i, d, d, ...)."""
        root = jnp.sqrt(self.frequencies)
        tables = [hermite(root[d] * r[:, d], max(max(n) for n in part)) for d in range(self.dimension)]

        def entry(numbers: Orbital, a: int, b: int) -> Any:
            orders = [(a == d) + (b == d) for d in range(self.dimension)]
            return root[a] * root[b] * _product([tables[d][orders[d]][n] for d, n in enumerate(numbers)])

        axes = range(self.dimension)
        by = lambda numbers, a: jnp.stack([entry(numbers, a, b) for b in axes], axis=1)  # noqa: E731
        return jnp.stack([jnp.stack([by(numbers, a) for a in axes], axis=1) for numbers in part])


def varies(part: tuple[Orbital, ...]) -> bool:
    """Whether the determinant is more than the constant of one particle in the lowest orbital."""
    return any(any(numbers) for numbers in part)


def _product(factors: list[Any]) -> Any:
    total = factors[0]
    for factor in factors[1:]:
        total = total * factor
    return total


def invert(matrix: Float[Array, "n n ..."]) -> tuple[Float[Array, "n n ..."], Float[Array, "..."]]:
    """The inverses and `ln|det|` of many small matrices, whose axes lead and whose batch is last.

    Gauss-Jordan elimination with row pivoting, all matrices in step: on a processor several times faster than one
    call of LAPACK for each. A singular matrix has `ln|det| = -inf`, and its inverse means nothing.
    """
    n = matrix.shape[0]
    batch = matrix.shape[2:]
    eye = jnp.broadcast_to(jnp.eye(n).reshape(n, n, *(1,) * len(batch)), matrix.shape)
    row = jnp.arange(n).reshape(n, *(1,) * len(batch))

    def eliminate(carry, k):
        both, free, log = carry
        now = lax.dynamic_index_in_dim(both, k, axis=1, keepdims=False)  # column k, (n, ...)
        size = jnp.where(free, jnp.abs(now), -1.0)
        chosen = (row == jnp.argmax(size, axis=0)[None]) & free
        picked = chosen.astype(both.dtype)
        pivot = jnp.sum(picked * now, axis=0)
        safe = jnp.where(pivot == 0, 1.0, pivot)
        pivot_row = jnp.sum(picked[:, None] * both, axis=0) / safe
        factor = jnp.where(chosen, now - 1, now)  # the pivot's own row becomes pivot_row
        both = both - factor[:, None] * pivot_row[None]
        return (both, free & ~chosen, log + jnp.log(jnp.abs(pivot))), jnp.argmax(chosen, axis=0)

    both = jnp.concatenate([matrix, eye], axis=1)
    free = jnp.ones((n, *batch), bool)
    (both, _, log), order = lax.scan(eliminate, (both, free, jnp.zeros(batch)), jnp.arange(n))
    # row order[k] of the eliminated system is the equation of unknown k
    inverse = jnp.take_along_axis(both[:, n:], order[:, None], axis=0)
    return inverse, log
