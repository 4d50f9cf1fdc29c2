"""The Hamiltonian: particles in a harmonic trap, or in a potential of a user's own."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import check_choice, check_function, is_traced, is_whole, one_number, shown
from thalweg._precision import use_float64
from thalweg.energy.ground_states._coordinates import MOST_PARTICLES, coordinates_first, pair_distances
from thalweg.energy.ground_states._orbitals import Orbital, check_orbitals, lowest_orbitals

use_float64()


class HarmonicTrap(eqx.Module):
    """Particles in a harmonic trap: the Hamiltonian of quantum dots.

    `H = sum_i [-(1/2) lap_i + (1/2) sum_d omega_d^2 x_id^2] + sum_{i<j} v(r_ij)`, in atomic units; `v(r) = 1/r`.

    **Arguments**

    - `particles`: how many, or `(up, down)` for so many fermions of each spin. A number of fermions is split as
      evenly as possible.
    - `dimension`: 1, 2 or 3.
    - `omega`: the frequency, > 0; or one for each direction.
    - `interaction`: `True` for `1/r`, `False` for none, or `v(r)`: a JAX function of one distance.
    - `statistics`: `"fermions"` or `"bosons"`.
    - `orbitals`: what the fermions fill, by default the lowest orbitals: quantum numbers such as `[(0, 0), (1, 0)]`
      (the first so many for each spin), or a list for spin up and one for spin down.
    - `potential`: `V(r)`: a JAX function of the position of one particle, shape (dimension,), in place of the
      trap. `omega` then only says how large the cloud is about, and which orbitals are filled.

    Coordinates `x` have shape (..., particles * dimension), particle by particle, or (..., particles, dimension).

    **Raises** `ValueError` or `TypeError` for numbers out of range, orbitals that are fewer than the particles or not
    different, and functions that are not finite where particles are usually found.

    Source: Kvaal, Phys. Rev. B 80, 045321 (2009), eq. 1.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap((2, 1), dimension=2, omega=1.0, interaction=False)
    >>> trap.free_energy        # two in the lowest orbital, one in the next: 1 + 1 + 2
    4.0
    >>> float(trap.potential_energy([1.0, 0.0, 0.0, 2.0, 0.0, 0.0]))
    2.5
    """

    omega: Float[Array, "..."]
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)
    spins: tuple[int, int] = eqx.field(static=True)
    statistics: str = eqx.field(static=True)
    orbitals: tuple[tuple[Orbital, ...], ...] = eqx.field(static=True)
    interaction: bool | Callable[[Any], Any] = eqx.field(static=True)
    potential: Callable[[Any], Any] | None = eqx.field(static=True)
    charge: float = eqx.field(static=True)

    def __init__(
        self,
        particles: int | tuple[int, int],
        dimension: int = 2,
        omega: Any = 1.0,
        interaction: bool | Callable[[Any], Any] = True,
        statistics: str = "fermions",
        orbitals: Any = None,
        potential: Callable[[Any], Any] | None = None,
    ):
        check_choice(statistics, "statistics", ("fermions", "bosons"))
        if not is_whole(dimension) or dimension not in (1, 2, 3):
            raise ValueError(f"dimension must be 1, 2 or 3, got {shown(dimension)}")
        self.dimension, self.statistics = int(dimension), statistics
        self.particles, self.spins = _count(particles, statistics)
        self.omega = _frequencies(omega, self.dimension)
        frequencies = np.broadcast_to(np.ones(()) if is_traced(self.omega) else self.omega, (self.dimension,))
        if statistics == "bosons":
            if orbitals is not None:
                raise ValueError(f"orbitals must be None for bosons, which all share the lowest, got {shown(orbitals)}")
            self.orbitals = (((0,) * self.dimension,),)
        elif orbitals is None:
            self.orbitals = tuple(lowest_orbitals(count, frequencies) for count in self.spins)
        else:
            self.orbitals = check_orbitals(orbitals, self.spins, self.dimension)
        check_function(potential, "potential", "r", optional=True)
        if not isinstance(interaction, bool | np.bool_):
            check_function(interaction, "interaction", "r")
        self.interaction = bool(interaction) if isinstance(interaction, bool | np.bool_) else interaction
        self.potential = potential
        self._check_functions(1 / np.sqrt(frequencies.min()))
        self.charge = self._charge(1 / np.sqrt(frequencies.max()))

    @property
    def coordinates(self) -> int:
        """How many coordinates there are: particles times dimension."""
        return self.particles * self.dimension

    @property
    def frequencies(self) -> Float[Array, " dimension"]:
        """One frequency for each direction."""
        return jnp.broadcast_to(self.omega, (self.dimension,))

    @property
    def free_energy(self) -> float | None:
        """The exact energy without interaction, from the filled orbitals; None in a potential of a user's own."""
        if self.potential is not None:
            return None
        frequencies = np.broadcast_to(np.asarray(self.omega), (self.dimension,))
        filled = [n for part in self.orbitals for n in part] * (self.particles if self.statistics == "bosons" else 1)
        return float(sum(np.dot(np.array(n) + 0.5, frequencies) for n in filled))

    @property
    def exact_energy(self) -> float | None:
        """The exact ground-state energy where it is known in closed form here: without interaction."""
        return self.free_energy if self.interaction is False or self.particles == 1 else None

    def trap_energy(self, x: Any) -> Any:
        """The potential energy of the trap, of shape (...)."""
        return self.trap_at(coordinates_first(x, self.particles, self.dimension))

    def interaction_energy(self, x: Any) -> Any:
        """The energy of the pairs, of shape (...)."""
        return self.interaction_at(coordinates_first(x, self.particles, self.dimension))

    def potential_energy(self, x: Any) -> Any:
        """Trap and interaction together, of shape (...)."""
        return self.trap_energy(x) + self.interaction_energy(x)

    # Below and in every wavefunction: `_at` takes coordinates that lead, shape (M, ...). The walkers are then the
    # last axis, along which a processor works on several at once.

    def trap_at(self, x: Any) -> Any:
        r = x.reshape(self.particles, self.dimension, *x.shape[1:])
        if self.potential is None:
            square = self.frequencies.reshape(1, -1, *(1,) * (x.ndim - 1)) ** 2
            return jnp.sum(square * r**2, axis=(0, 1)) / 2
        flat = jnp.moveaxis(r, 1, 0).reshape(self.dimension, -1)
        each = jax.vmap(lambda r: one_number(self.potential(r), "potential"), in_axes=-1)(flat)
        return jnp.sum(each.reshape(self.particles, *x.shape[1:]), axis=0)

    def interaction_at(self, x: Any) -> Any:
        if self.interaction is False or self.particles == 1:
            return jnp.zeros(x.shape[1:])
        r = pair_distances(x, self.particles, self.dimension)
        if self.interaction is True:
            return jnp.sum(1 / r, axis=0)
        each = jax.vmap(lambda r: one_number(self.interaction(r), "interaction"))(r.reshape(-1))
        return jnp.sum(each.reshape(r.shape), axis=0)

    def _check_functions(self, length: float) -> None:
        """Refuse functions that are not finite at usual places."""
        if self.potential is not None:
            places = length * jnp.stack([jnp.full(self.dimension, s) for s in (0.3, -1.0, 2.0)])
            values = np.asarray(jax.vmap(lambda r: one_number(self.potential(r), "potential"))(places))
            if np.iscomplexobj(values) or not np.all(np.isfinite(values)):
                raise ValueError(f"potential must give finite real numbers, got {shown(values)} at {shown(places)}")
        if callable(self.interaction):
            apart = length * jnp.array([0.1, 1.0, 4.0])
            values = np.asarray(jax.vmap(lambda r: one_number(self.interaction(r), "interaction"))(apart))
            if np.iscomplexobj(values) or not np.all(np.isfinite(values)):
                raise ValueError(
                    f"interaction must give finite real numbers, got {shown(values.tolist())} at distances "
                    f"{shown(apart.tolist())}"
                )

    def _charge(self, length: float) -> float:
        """lim r v(r) for r -> 0, which is what the cusp of the wavefunction cancels: 1 for 1/r."""
        if self.interaction is False or self.particles == 1:
            return 0.0
        if self.interaction is True:
            return 1.0
        near, nearer = (float(r * self.interaction(jnp.asarray(r))) for r in (1e-6 * length, 1e-8 * length))
        if not (np.isfinite(near) and np.isfinite(nearer)):
            return 0.0
        if abs(nearer - near) > 1e-3 * max(abs(near), 1e-3):
            return 0.0  # more singular than 1/r (no cusp of this form), or falling to 0
        return nearer if abs(nearer) > 1e-5 else 0.0


def check_trap(trap: Any, name: str = "trap") -> None:
    if not isinstance(trap, HarmonicTrap):
        raise TypeError(f"{name} must be a tw.energy.HarmonicTrap, got {shown(trap)}")


def _count(particles: Any, statistics: str) -> tuple[int, tuple[int, int]]:
    wanted = (
        f"particles must be a whole number from 1 to {MOST_PARTICLES}, or (up, down) for fermions, "
        f"got {shown(particles)}"
    )
    if is_whole(particles):
        if not 1 <= particles <= MOST_PARTICLES:
            raise ValueError(wanted)
        count = int(particles)
        return count, ((count + 1) // 2, count // 2) if statistics == "fermions" else (count, 0)
    if not isinstance(particles, tuple | list) or len(particles) != 2 or statistics != "fermions":
        raise ValueError(wanted)
    if not all(is_whole(n) and n >= 0 for n in particles) or not 1 <= sum(particles) <= MOST_PARTICLES:
        raise ValueError(wanted)
    up, down = (int(n) for n in particles)
    return up + down, (up, down)


def _frequencies(omega: Any, dimension: int) -> Any:
    if is_traced(omega):
        return jnp.asarray(omega, float)
    wanted = f"omega must be a frequency > 0, or {dimension} of them, got {shown(omega)}"
    try:
        array = np.asarray(omega)
    except Exception:
        raise TypeError(wanted) from None
    if array.dtype.kind not in "iuf":
        raise TypeError(wanted)
    if array.shape not in ((), (dimension,)) or not np.all(np.isfinite(array)) or not np.all(array > 0):
        raise ValueError(wanted)
    return jnp.asarray(array, float)
