"""Ground states that are stopped and gone on with, that diverge, whose walkers are spread over devices."""

import os
import pathlib
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg import Status
from thalweg.energy.ground_states._measure import in_words

E = tw.energy
TRAP = E.HarmonicTrap(2, 2, 1.0)


def ask(folder=None, *, resume=False, stop=None, **changed):
    """A small run. `stop`: sends SIGTERM where it says so of (step, scalars)."""

    def look(step, scalars):
        if stop is not None and stop(step, scalars):
            signal.raise_signal(signal.SIGTERM)

    options = tw.Options(checkpoint=folder, checkpoint_every=1000)
    settings = {"hidden": 0, "jastrow": True, "tol": 4e-6, "key": 5, "walkers": 32, "moves": 1, "steps": 60} | changed
    return E.ground_state(TRAP, **settings, options=options, resume=resume, on_stride=look)


def same(one, other):
    assert float(one.energy) == float(other.energy) and float(one.energy.error) == float(other.energy.error)
    assert np.array_equal(one.state.parameters, other.state.parameters)
    assert np.array_equal(one.measurement.energies, other.measurement.energies)
    assert np.array_equal(one.measurement.samples, other.measurement.samples)
    for name, values in one.history.items():
        assert np.array_equal(values, other.history[name]), name


@pytest.fixture(scope="module")
def whole():
    return ask()


@pytest.mark.parametrize(
    ("stop", "step"),
    [
        (lambda step, scalars: step == 40, 40),
        (lambda step, scalars: "r_hat" in scalars and step == 64, 64),
    ],
    ids=["in training", "in measuring"],
)
def test_a_stopped_ground_state_is_usable_and_goes_on_to_equal_numbers(tmp_path, whole, stop, step):
    part = ask(tmp_path / "run", stop=stop)
    assert part.energy.status == Status.INTERRUPTED
    assert part.message == f"interrupted at step {step}; the result holds what was done until then"
    assert abs(float(part.energy) - 3) < 6 * float(part.energy.error) + 1e-4 < 0.3
    assert np.isfinite(float(part.virial_ratio)) and len(part.history["energy"]) == min(step, 60)
    assert "density" in part.to_xarray()
    with pytest.raises(ValueError, match="pass resume=True to go on from it"):
        ask(tmp_path / "run")
    same(ask(tmp_path / "run", resume=True), whole)
    with pytest.raises(ValueError, match="another start"):
        ask(tmp_path / "run", resume=True, key=6)


def test_a_ground_state_that_diverges_keeps_the_last_finite_state():
    """A potential that is not a number far out, where a walker comes in the end."""
    trap = E.HarmonicTrap(1, 1, 1.0, potential=lambda r: jnp.where(r[0] > 2.1, jnp.nan, r[0] ** 2 / 2))
    inside = E.variational_monte_carlo(trap, E.GaussianState.of(trap), walkers=8, moves=1)
    found = E.ground_state(trap, state=inside.init(0).psi, walkers=8, moves=1, key=1, steps=400)
    assert found.energy.status == Status.NOT_FINITE
    assert "state.energy is not finite (NaN or infinity) after step" in found.message
    assert np.all(np.isfinite(found.state.parameters)) and float(found.energy) == pytest.approx(0.5, abs=0.3)


def test_the_live_line():
    training = {"energy": 20.3, "error": 0.02, "variance": 0.34, "acceptance": 0.5, "rate": 0.1}
    assert in_words(training) == "E = 20.300 ± 0.020 [variance 0.34, acceptance 0.50]"
    measuring = {"energy": 20.1781, "error": 0.0021, "variance": 0.3, "r_hat": 1.0012}
    assert in_words(measuring) == "E = 20.1781 ± 0.0021 [variance 0.3, R-hat 1.001]"


def test_refusals(tmp_path, as_installed):
    with pytest.raises(ValueError, match="resume=True needs a folder to go on from"):
        E.measure(E.GaussianState.of(TRAP), TRAP, resume=True)
    with pytest.raises(TypeError, match="checkpoint must be a folder here, got a function"):
        E.ground_state(TRAP, jastrow=True, options=tw.Options(checkpoint=lambda checkpoint: None))
    with pytest.raises(TypeError, match="options must be"):
        E.ground_state(TRAP, options="fast")


SPREAD = """
import jax, numpy as np, thalweg as tw
trap = tw.energy.HarmonicTrap(6, 2, 1.0)
found = tw.energy.ground_state(trap, 0, backflow=False, walkers=66, moves=1, steps=12, tol=0.5,
                               options=tw.Options(shard=SHARD))
print(len(found.training.walkers.sharding.device_set), float(found.history["energy"][11]).hex(),
      float(found.energy), float(found.energy.error))
"""


@pytest.mark.slow
def test_walkers_spread_over_the_devices_of_a_process():
    """Two forced devices: the walkers lie on both, and the energies are those of one device to rounding."""

    def run(shard):
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
        source = str(pathlib.Path(tw.__file__).parents[1])
        environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": source}
        command = [sys.executable, "-c", SPREAD.replace("SHARD", str(shard))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        devices, last, energy, error = done.stdout.split()
        return int(devices), float.fromhex(last), float(energy), float(error)

    one, two = run(False), run(True)
    assert (one[0], two[0]) == (1, 2)
    assert two[1] == pytest.approx(one[1], rel=1e-6)
    assert abs(two[2] - one[2]) < 4 * np.hypot(one[3], two[3])
