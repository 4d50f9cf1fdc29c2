"""Judging samples made elsewhere: local energies of anybody's wavefunction, with an error bar and a status."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._edge import shown
from thalweg.energy.ground_states._ansatz import Ansatz
from thalweg.energy.ground_states._checks import real_numbers
from thalweg.energy.ground_states._contact import variance_diverges
from thalweg.energy.ground_states._judge import Measurement, judge
from thalweg.energy.ground_states._local_energy import energy_at
from thalweg.energy.ground_states._monte_carlo import check_wavefunction
from thalweg.energy.ground_states._trap import HarmonicTrap, check_trap
from thalweg.energy.ground_states._wavefunction import Wavefunction

FEWEST = 8  # samples that statistics can say something about


def evaluate(
    log_psi: Any, hamiltonian: HarmonicTrap, samples: Any, params: Any = None, *, weights: Any = None
) -> Measurement:
    """The energy of somebody's wavefunction on somebody's samples, and whether its error bar can be believed.

    The Laplacian is carried forward, without a Hessian; for the wavefunctions of this package it is in closed form.

    **Arguments**

    - `log_psi`: `log_psi(params, x)` as Flax and NetKet have it, `log_psi(x)`, or a `Wavefunction`: `ln psi`, real or
      complex, of one sample (M,) or of a batch (samples, M). - `params`: a pytree of arrays; None for `log_psi(x)`.
    - `hamiltonian`: a `HarmonicTrap`.
    - `samples`: drawn from |psi|^2, shape (n, M) for one chain or (chains, n, M), or (..., particles, dimension).
    - `weights`: importance weights of the samples, shape (n,) or (chains, n); default None.

    **Returns** a `Measurement`: `energy` with error and status, its parts, `energies` of every sample.

    **Raises** `ValueError` or `TypeError` for samples of a wrong shape or not finite, fewer than 8 of them, and a
    log_psi that is not finite on them.

    **When not to trust it.** The samples must be drawn from |psi|^2: this cannot be seen from local energies.

    >>> import jax.numpy as jnp, numpy as np, thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(2, 2, 1.0)
    >>> x = np.random.default_rng(0).normal(size=(10_000, 4)) / np.sqrt(2)      # drawn from exp(-x^2), without a cusp
    >>> found = tw.energy.evaluate(lambda params, x: -params * jnp.sum(x**2) / 2, trap, x, 1.0)
    >>> found.energy.status.name, 3.1 < float(found.energy) < 3.4     # exactly 2 + sqrt(pi/2)
    ('NO_CUSP', True)
    """
    check_trap(hamiltonian, "hamiltonian")
    if isinstance(log_psi, Wavefunction):
        check_wavefunction(log_psi, hamiltonian, "log_psi")
        psi, known = log_psi, not isinstance(log_psi, Ansatz)
    else:
        psi, known = Ansatz(log_psi, params, hamiltonian.particles, hamiltonian.dimension), False
    chains = _chains(samples, hamiltonian)
    energy, log = _energies(psi, hamiltonian, chains.reshape(-1, chains.shape[-1]))
    if not np.all(np.isfinite(log)):
        bad = int(np.count_nonzero(~np.isfinite(log)))
        raise ValueError(f"log_psi must be finite on the samples, got NaN or infinity at {bad} of {log.size}")
    kinetic, trapped, pairs = (np.asarray(part).reshape(chains.shape[:2]) for part in energy)
    if weights is not None:
        weights = np.asarray(real_numbers(weights, "weights", "numbers >= 0, one a sample"))
        if weights.shape not in (chains.shape[:2], chains.shape[1:2]):
            raise ValueError(f"weights must have shape {chains.shape[:2]}, one a sample, got {weights.shape}")
        weights = np.broadcast_to(weights, chains.shape[:2])
    diverges = variance_diverges(psi, hamiltonian, chains.reshape(-1, chains.shape[-1]))
    return judge(kinetic, trapped, pairs, chains, hamiltonian, diverges, weights, known=known)


@eqx.filter_jit
def _energies(psi: Wavefunction, trap: HarmonicTrap, samples: Any) -> Any:
    x = jnp.asarray(samples).T
    local = psi.local_at(x)
    energy = energy_at(local, trap, x)
    return (jnp.real(energy.kinetic), energy.trap, energy.interaction), local.log


def _chains(samples: Any, trap: HarmonicTrap) -> np.ndarray:
    """Samples of shape (chains, n, M)."""
    wanted = (
        f"samples must be numbers of shape (n, {trap.coordinates}) or (chains, n, {trap.coordinates}), "
        f"at least {FEWEST}, got {shown(np.shape(samples)) if hasattr(samples, 'shape') else shown(samples)}"
    )
    try:
        array = np.asarray(samples)
    except Exception:
        raise TypeError(wanted) from None
    if array.dtype.kind not in "iuf":
        raise TypeError(wanted)
    array = array.astype(float)
    flat = array.ndim >= 1 and array.shape[-1] == trap.coordinates and array.ndim in (2, 3)
    if array.ndim >= 3 and array.shape[-2:] == (trap.particles, trap.dimension) and not (flat and trap.particles == 1):
        array = array.reshape(*array.shape[:-2], trap.coordinates)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] != trap.coordinates or array.shape[0] * array.shape[1] < FEWEST:
        raise ValueError(wanted)
    if array.shape[1] < FEWEST:  # many chains of a few samples each: together they are one series
        array = array.reshape(1, -1, trap.coordinates)
    if not np.all(np.isfinite(array)):
        raise ValueError("samples must be finite, got NaN or infinity in them")
    return array
