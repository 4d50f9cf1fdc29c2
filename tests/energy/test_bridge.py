"""The bridge between two rooms: the diffusion that ln psi drives relaxes with the excitation energies."""

import jax.numpy as jnp
import numpy as np

import thalweg as tw


def test_the_harmonic_ladder_from_a_wavefunction():
    """dX = grad ln psi dt + dB has the stationary law psi^2 and the rates 0, omega, 2 omega."""
    omega = 1.3
    psi = tw.energy.GaussianState.of(tw.energy.HarmonicTrap(1, 1, omega))
    diffusion = tw.flow.fokker_planck((lambda x: psi.gradient(x[None])[0], lambda x: 1.0), tw.flow.Grid(-7.0, 7.0, 600))
    operator = tw.flow.symmetrise(diffusion)
    found = operator.energies(4)
    assert np.all(np.abs(found.value - omega * np.arange(4)) < 2 * found.error + 1e-9)
    assert np.all(found.error < 6e-3)
    # Its ground state is psi itself, up to the norm.
    middles = np.linspace(-7, 7, 601)[:-1] + 7 / 600
    ground = np.abs(operator.states(1)[0])
    wanted = np.exp(np.asarray(psi.log_psi(middles[:, None])))
    np.testing.assert_allclose(ground / np.linalg.norm(ground), wanted / np.linalg.norm(wanted), atol=1e-4)


def test_two_electrons_on_a_line_relax_with_their_exact_excitation_energies():
    """Relative motion at omega = 1/2: chi = r (1 + r/2) exp(-r^2/8), H = -d^2 + r^2/16 + 1/r."""

    def drift(r):
        return 2 * (1 / r + 0.5 / (1 + r / 2) - r / 4)

    grid = tw.flow.Grid(0.01, 18.0, 900)  # the drift is infinite at 0, where nobody is
    diffusion = tw.flow.fokker_planck((drift, lambda r: 2.0 + 0 * r), grid)
    found = tw.flow.symmetrise(diffusion).energies(3)
    levels = [tw.energy.two_electrons(0.5, 1, level=level).energy.value for level in range(3)]
    assert np.all(np.abs(found.value - (np.array(levels) - levels[0])) < 2 * found.error + 1e-9)
    assert np.all(found.error < 5e-3)


def test_the_generator_is_the_hamiltonian_seen_from_its_ground_state():
    """psi L psi^-1 = -(H - E0), entry by entry, for a diffusion matrix built from psi on a chain of sites."""
    n, h = 200, 0.06
    x = h * (np.arange(n) - n / 2)
    kinetic = (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) / (2 * h**2)
    hamiltonian = kinetic + np.diag(x**2 / 2 + x**4 / 10)
    energies, states = np.linalg.eigh(hamiltonian)
    psi = np.abs(states[:, 0])
    rates = -(hamiltonian - energies[0] * np.eye(n)) * psi[None, :] / psi[:, None]  # row i: from state i
    rates -= np.diag(rates.sum(axis=1))  # rounding only: rows sum to 0 since psi is an eigenvector
    found = tw.flow.symmetrise(jnp.asarray(rates)).energies(4)
    np.testing.assert_allclose(found.value, energies[:4] - energies[0], atol=1e-8)
