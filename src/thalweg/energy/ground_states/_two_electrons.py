"""Two electrons in a trap, exactly: the reference that every other answer of this room is held against."""

import decimal
import functools
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg._edge import check_number, is_whole, shown
from thalweg._results import Estimate

REACH = 14  # where the wavefunction counts as zero: this far beyond its classical place, in units of 1/sqrt(omega)
DIGITS = 40  # kept beyond those that cancel in the sum of the series
NODES = 120  # of the quadrature over the distance
SMALLEST, LARGEST = 1e-6, 1e12  # frequencies; below, the series needs hundreds of digits


def two_electrons(
    omega: float = 1.0, dimension: int = 2, *, angular_momentum: int = 0, level: int = 0
) -> "TwoElectrons":
    """The exact energy of two electrons in an isotropic harmonic trap, from the power series of their distance.

    The centre of mass is an oscillator of its own. With `r` the distance, `d = D + 2 l` and relative energy `e`,

    ```
    psi = Gaussian(centre) r^l Y_l exp(-omega r^2/4) f(r),      E = D omega/2 + e
    f'' + ((d - 1)/r - omega r) f' + (e - d omega/2 - 1/r) f = 0,   c_0 = 1,  c_1 = 1/(d - 1)
    c_(k+2) = [c_(k+1) + (omega k + d omega/2 - e) c_k] / ((k + 2)(k + d))
    ```

    and `e` is the number for which `psi` falls to zero.

    **Arguments**

    - `omega`: the frequency of the trap, in atomic units; default 1; from 1e-6 to 1e12.
    - `dimension`: `D`, 1, 2 or 3; default 2.
    - `angular_momentum`: `l` of the relative motion, default 0. Even: opposite spins (singlet); odd: like spins
      (triplet). In one dimension it is 0 or 1, even or odd: there the repulsion keeps the electrons apart, and both
      have the same energy.
    - `level`: the number of nodes in `f`, default 0: the lowest state of this angular momentum.

    **Returns** a `TwoElectrons`, good to all digits of a double.

    **Raises** `ValueError` or `TypeError` for a frequency outside the range, another dimension, and quantum numbers
    that are not whole or not there.

    Source: M. Taut, Phys. Rev. A 48, 3561 (1993); J. Phys. A 27, 1045 (1994), where `f` is a polynomial for certain
    frequencies.

    >>> import thalweg as tw
    >>> exact = tw.energy.two_electrons(omega=1.0, dimension=2)     # f = 1 + r
    >>> exact.energy.value, round(exact.interaction_energy.value, 6), exact.factor(0.5).item()
    (3.0, 0.818401, 1.5)
    >>> round(tw.energy.two_electrons(0.28).energy.value, 10)
    1.0216440136
    """
    checked = check_number(omega, "omega", least=SMALLEST)
    if checked.ndim:
        raise ValueError(f"omega must be one number, got {shown(omega)}: the trap must be isotropic")
    omega = float(checked)
    if omega > LARGEST:
        raise ValueError(f"omega must be at most {LARGEST:g}, got {omega:g}")
    if not is_whole(dimension) or dimension not in (1, 2, 3):
        raise ValueError(f"dimension must be 1, 2 or 3, got {dimension!r}")
    for name, value in (("angular_momentum", angular_momentum), ("level", level)):
        if not is_whole(value) or not 0 <= value <= 50:
            raise ValueError(f"{name} must be a whole number from 0 to 50, got {value!r}")
    if dimension == 1 and angular_momentum > 1:
        raise ValueError(f"angular_momentum must be 0 (even) or 1 (odd) in one dimension, got {angular_momentum}")
    return _solved(omega, int(dimension), int(angular_momentum), int(level))


@dataclass(frozen=True)
class TwoElectrons:
    """The exact state of two electrons in a trap; energies in hartree, lengths in bohr.

    - `omega`, `dimension`, `angular_momentum`, `level`: the state, as asked.
    - `energy`, `kinetic`, `trap_energy`, `interaction_energy`: `Estimate`s; the three parts add up to the energy, and
      `2 kinetic = 2 trap_energy - interaction_energy` (the virial theorem) holds to rounding.
    - `spins`: `"opposite"` or `"like"`.
    """

    omega: float
    dimension: int
    angular_momentum: int
    level: int
    energy: Estimate
    _series: "_Series"

    @functools.cached_property
    def _distance_means(self) -> tuple[float, float]:
        """`<r^2>` and `<1/r>` where omega = 1."""
        nodes, weights = self._series.quadrature
        p = weights * self._series.density(nodes)
        return float(np.sum(p * nodes**2)), float(np.sum(p / nodes))

    @property
    def trap_energy(self) -> Estimate:
        # The centre of mass has half of its zero-point energy in the trap.
        return Estimate(self.omega * (self.dimension + self._distance_means[0]) / 4, 0.0)

    @property
    def interaction_energy(self) -> Estimate:
        return Estimate(self.omega * float(self._series.strength) * self._distance_means[1], 0.0)

    @property
    def kinetic(self) -> Estimate:
        return Estimate(self.energy.value - self.trap_energy.value - self.interaction_energy.value, 0.0)

    @property
    def spins(self) -> str:
        return "like" if self.angular_momentum % 2 else "opposite"

    def factor(self, r: Any) -> Float[np.ndarray, "..."]:
        """`f(r)`, the cusp factor: what a perfect Jastrow factor would be. `f(0) = 1`."""
        return self._series.factor(_distances(r) * np.sqrt(self.omega))

    def distance_density(self, r: Any) -> Float[np.ndarray, "..."]:
        """The probability density of the distance of the two electrons; its integral over `r` is 1."""
        return self._series.density(_distances(r) * np.sqrt(self.omega)) * np.sqrt(self.omega)

    def density(self, r: Any) -> Float[np.ndarray, "..."]:
        """How many electrons there are a unit of volume, at a distance `r` from the centre; its integral is 2.

        The Gaussian of the centre of mass is folded with the distance density, averaged over directions.
        """
        from scipy.special import ive

        x = _distances(r)[..., None] * np.sqrt(self.omega)
        nodes, weights = self._series.quadrature
        squeeze = 2 * x * nodes
        gauss = np.exp(-2 * (x - nodes / 2) ** 2)
        average = {
            1: lambda t: (1 + np.exp(-2 * t)) / 2,
            2: lambda t: ive(0, t),
            3: lambda t: np.where(t < 1e-6, 1 - t, -np.expm1(-2 * t) / (2 * np.maximum(t, 1e-6))),
        }[self.dimension](squeeze)
        folded = np.sum(weights * self._series.density(nodes) * gauss * average, axis=-1)
        return 2 * (2 * self.omega / np.pi) ** (self.dimension / 2) * folded

    def __str__(self) -> str:
        return (
            f"two electrons in {self.dimension}-D, omega = {self.omega:g}, {self.spins} spins, "
            f"l = {self.angular_momentum}, level {self.level}: E = {self.energy.value:.12g}"
        )


@functools.lru_cache(maxsize=64)
def _solved(omega: float, dimension: int, angular_momentum: int, level: int) -> TwoElectrons:
    # In one dimension psi(0) must be 0 for either parity, so that both are |x| f with the f of l = 1.
    d = dimension + 2 * (1 if dimension == 1 else angular_momentum)
    series = _Series.solve(1 / Decimal(omega).sqrt(_context(60)), d, level)
    energy = Estimate(omega * (dimension / 2 + float(series.energy)), 0.0)
    return TwoElectrons(omega, dimension, angular_momentum, level, energy, series)


@dataclass(frozen=True)
class _Series:
    """`f` as a power series, in units where omega = 1 and the repulsion is `strength / r`."""

    energy: Decimal
    strength: Decimal
    d: int
    reach: Decimal

    @classmethod
    def solve(cls, strength: Decimal, d: int, level: int) -> "_Series":
        """The state with `level` nodes: the energies are where `f(reach)` changes its sign."""
        place = (2 * strength) ** (Decimal(1) / 3)  # of the minimum of r^2/4 + strength/r
        reach = REACH + place + 2 * Decimal(d / 2 + 2 * level).sqrt()
        # No energy lies below the minimum of the potential or below the free one; two never come closer than 1.7.
        below = max(Decimal(d) / 2, Decimal("0.75") * place**2)
        end = functools.partial(_end, strength, d, reach)
        low, high = below, below + Decimal("0.5")
        at_low, at_high = end(low), end(high)
        missing = level + 1
        while True:
            missing -= (at_low > 0) != (at_high > 0)
            if not missing:
                break
            low, high, at_low = high, high + Decimal("0.5"), at_high
            at_high = end(high)
        return cls(_root(end, low, high, at_low, at_high), strength, d, reach)

    @functools.cached_property
    def coefficients(self) -> list[Decimal]:
        with decimal.localcontext(_context(_digits(self.reach))):
            return _coefficients(self.energy, self.strength, self.d, self.reach)

    def factor(self, x: np.ndarray) -> np.ndarray:
        """`f` at each `x`; beyond `reach` the value there, where the state has vanished anyway."""
        values, end = [], float(self.reach)
        with decimal.localcontext(_context(_digits(self.reach))):
            for point in np.ravel(x):
                at = Decimal(min(float(point), end))
                total = Decimal(0)
                for c in reversed(self.coefficients):
                    total = total * at + c
                values.append(float(total))
        return np.reshape(values, np.shape(x))

    @functools.cached_property
    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        return float(self.reach) * (nodes + 1) / 2, float(self.reach) * weights / 2

    @functools.cached_property
    def _norm(self) -> float:
        nodes, weights = self.quadrature
        return float(np.sum(weights * self._unnormalised(nodes)))

    def _unnormalised(self, x: np.ndarray) -> np.ndarray:
        # Half the Gaussian with each factor, so that neither overflows.
        return x ** (self.d - 1) * (self.factor(x) * np.exp(-(x**2) / 4)) ** 2

    def density(self, x: np.ndarray) -> np.ndarray:
        """Of the distance; `r^(2l)` and the volume element together are `r^(d-1)`."""
        return self._unnormalised(x) / self._norm


def _digits(reach: Decimal) -> int:
    # Terms grow to exp(x^2/2) where the sum stays a power: so many digits cancel.
    return DIGITS + int(reach**2 / 4) + int(reach)


def _context(digits: int) -> decimal.Context:
    return decimal.Context(prec=digits, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def _coefficients(energy: Decimal, strength: Decimal, d: int, reach: Decimal) -> list[Decimal]:
    """Coefficients until the terms at `reach` no longer count."""
    gap = Decimal(d) / 2 - energy
    c = [Decimal(1), strength / (d - 1)]
    power, total = reach, 1 + c[1] * reach
    small = Decimal(10) ** (-decimal.getcontext().prec)
    k = 0
    while True:
        c.append((strength * c[k + 1] + (k + gap) * c[k]) / ((k + 2) * (k + d)))
        k += 1
        power *= reach
        term = c[-1] * power
        total += term
        if k > reach**2 and abs(term) + abs(c[-2] * power / reach) < small * max(abs(total), Decimal(1)):
            return c


def _end(strength: Decimal, d: int, reach: Decimal, energy: Decimal) -> Decimal:
    """`f(reach)`."""
    with decimal.localcontext(_context(_digits(reach))):
        total = Decimal(0)
        for c in reversed(_coefficients(energy, strength, d, reach)):
            total = total * reach + c
        return total


def _root(f: Any, low: Decimal, high: Decimal, at_low: Decimal, at_high: Decimal) -> Decimal:
    """A bracketed root by regula falsi with halved weights (Illinois), to 30 digits."""
    with decimal.localcontext(_context(60)):
        side = 0
        for _ in range(200):
            middle = (low * at_high - high * at_low) / (at_high - at_low)
            at = f(middle)
            if at == 0 or high - low < Decimal("1e-30") * abs(high):
                return middle
            kept = 1 if (at > 0) == (at_high > 0) else -1
            if kept == 1:
                step, high, at_high = high - middle, middle, at
                at_low = at_low / 2 if side == 1 else at_low
            else:
                step, low, at_low = middle - low, middle, at
                at_high = at_high / 2 if side == -1 else at_high
            if step < Decimal("1e-30") * abs(middle):
                return middle
            side = kept
        return middle


def _distances(r: Any) -> np.ndarray:
    try:
        array = np.asarray(r, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"r must be distances, numbers >= 0, got {type(r).__name__}") from None
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise ValueError("r must be distances, finite numbers >= 0")
    return array
