"""What is known of trapped particles without a run: free energies, exact pairs, and what others have published."""

from typing import Any, NamedTuple

import numpy as np

from thalweg.energy.ground_states._trap import HarmonicTrap, check_trap
from thalweg.energy.ground_states._two_electrons import LARGEST, SMALLEST, two_electrons

HOGBERGET = "J. Hogberget, master's thesis, University of Oslo (2013)"
OTHER = "another diffusion Monte Carlo calculation, quoted at second hand"
NORDHAGEN = "E. M. Nordhagen, master's thesis, University of Oslo (2019)"


class Known(NamedTuple):
    """An energy that is known or has been published, in hartree.

    - `value`, `error`: as printed; the error is 0 where the value is exact, NaN where none was printed.
    - `method`: `"exact"`, `"DMC"` (diffusion Monte Carlo with fixed nodes), `"VMC"`, `"RBM"`, `"RBM and Jastrow"`.
    - `source`: where it stands. - `note`: what to know besides.
    """

    value: float
    error: float
    method: str
    source: str
    note: str = ""

    def __str__(self) -> str:
        """The value as it was printed, with its error in the last digit."""
        if not self.error > 0:
            return f"{self.value:.12g}"
        digits = round(-np.floor(np.log10(self.error)))
        return f"{self.value:.{digits}f}({self.error * 10**digits:.0f})"


def known_energies(trap: HarmonicTrap) -> list[Known]:
    """What is known of the ground state of a `HarmonicTrap`: exact values first, then published ones.

    Exact are all energies without interaction, and those of two particles that repel as `1/r` in an isotropic trap.
    Only an exact value is a lower bound: diffusion Monte Carlo (DMC) with fixed nodes lies above the true energy,
    so that a good variational state may come below it.

    **Returns** a list of `Known`, empty where nothing is known: other interactions, potentials of one's own.

    >>> import thalweg as tw
    >>> [(row.method, str(row)) for row in tw.energy.known_energies(tw.energy.HarmonicTrap(6))][:2]
    [('DMC', '20.15932(8)'), ('VMC', '20.1902(4)')]
    >>> tw.energy.known_energies(tw.energy.HarmonicTrap(2, 3, 0.5))[0].value
    2.0
    """
    check_trap(trap)
    if trap.exact_energy is not None:
        return [Known(float(trap.exact_energy), 0.0, "exact", "a sum of oscillator levels")]
    frequencies = np.unique(np.asarray(trap.frequencies))
    if trap.interaction is not True or trap.potential is not None or len(frequencies) > 1:
        return []
    omega, bosons, (up, down) = float(frequencies[0]), trap.statistics == "bosons", trap.spins
    if trap.particles == 2:
        return _pair(trap, omega)
    if bosons or up != down or trap.orbitals != HarmonicTrap((up, down), trap.dimension).orbitals:
        return []
    return _published(trap.dimension, trap.particles, omega)


def _pair(trap: Any, omega: float) -> list[Known]:
    """Two particles: the distance has an even or an odd angular momentum."""
    if not SMALLEST <= omega <= LARGEST:
        return []
    like = trap.statistics == "fermions" and 2 in trap.spins
    exact = two_electrons(omega, trap.dimension, angular_momentum=int(like))
    row = Known(float(exact.energy), 0.0, "exact", "the power series of their distance")
    return [row, *([] if like else _published(trap.dimension, 2, omega))]


def _published(dimension: int, electrons: int, omega: float) -> list[Known]:
    return [
        Known(*row)
        for (d, n, w), rows in _PUBLISHED.items()
        if (d, n) == (dimension, electrons) and np.isclose(w, omega, rtol=1e-9)
        for row in rows
    ]


_BELOW = "below the exact energy by more than 60 of its errors"
_NAN = float("nan")

# (dimension, electrons, omega): rows of value, error, method, source, note. Closed shells, 1/r, atomic units.
_PUBLISHED: dict[tuple[int, int, float], list[tuple]] = {
    (2, 2, 1.0): [
        (2.99936, 0.00001, "VMC", NORDHAGEN, _BELOW),
        (2.999587, 0.000005, "RBM and Jastrow", NORDHAGEN, _BELOW),
        (3.0803, 0.0002, "RBM", NORDHAGEN),
    ],
    (2, 6, 0.28): [
        (7.60019, 0.00006, "DMC", HOGBERGET),
        (7.6216, 0.0004, "VMC", HOGBERGET),
    ],
    (2, 6, 0.5): [
        (11.78484, 0.00006, "DMC", HOGBERGET, "19 errors from the other DMC value"),
        (11.7888, 0.0002, "DMC", OTHER),
    ],
    (2, 6, 1.0): [
        (20.15932, 0.00008, "DMC", HOGBERGET),
        (20.1902, 0.0004, "VMC", HOGBERGET),
        (20.1832, _NAN, "RBM and Jastrow", NORDHAGEN),
        (20.716, _NAN, "RBM", NORDHAGEN),
    ],
    (2, 12, 1.0): [
        (65.7001, 0.0001, "DMC", HOGBERGET),
        (65.7905, 0.0007, "VMC", HOGBERGET),
        (65.7911, _NAN, "RBM and Jastrow", NORDHAGEN),
        (67.614, _NAN, "RBM", NORDHAGEN),
    ],
    (2, 20, 1.0): [
        (155.8822, 0.0001, "DMC", HOGBERGET),
        (155.868, 0.006, "DMC", OTHER),
        (156.062, 0.001, "VMC", HOGBERGET),
        (156.104, _NAN, "RBM and Jastrow", NORDHAGEN),
        (159.4, _NAN, "RBM", NORDHAGEN, "159.6 in another source"),
    ],
    (3, 8, 0.5): [(18.9611, 0.0001, "DMC", HOGBERGET)],
    (3, 8, 1.0): [(32.6680, 0.0001, "DMC", HOGBERGET)],
    (3, 20, 1.0): [(142.8875, 0.0002, "DMC", HOGBERGET)],
}
