"""Local energies beside NetKet's, where it is installed (pip install netket): it is no dependency."""

import sys
from pathlib import Path

import numpy as np
import pytest

import thalweg as tw

pytest.importorskip("netket")


def test_local_energies_equal_netkets_to_ten_digits(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "benchmarks"), *sys.path])
    from ground_states import in_netket

    for trap in (tw.energy.HarmonicTrap(2, 2, 0.7), tw.energy.HarmonicTrap(3, 3, 1.2, statistics="bosons")):
        state = tw.energy.RBMState.start(trap, 3, key=5, spread=0.8)
        model, _, hamiltonian = in_netket(state, trap, seed=1)
        x = np.asarray(model.samples).reshape(-1, trap.coordinates)
        theirs = np.asarray(model.local_estimators(hamiltonian).data).reshape(-1)
        ours = np.asarray(tw.energy.local_energy(state, trap, x).total)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
