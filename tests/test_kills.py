"""Real runs of each room, killed at random moments: they end with the numbers of an undisturbed run, bit for bit."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

import thalweg as tw

KILLS = int(os.environ.get("KILLS", "50"))

BEGIN = """
import sys, jax, jax.numpy as jnp, numpy as np, thalweg as tw
options = tw.Options(checkpoint=sys.argv[1], checkpoint_every=0.02, chunk=CHUNK)
how = {"options": options, "resume": True}
"""
END = """
is_key = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
leaves = [np.asarray(jax.random.key_data(x) if is_key(x) else x).tobytes() for x in jax.tree.leaves(answer)]
print(len(leaves), hash(b"".join(leaves)))
"""

RUNS = {
    "an ensemble with folds and a record": """
fold = {"sum": tw.Fold(init=lambda s: 0.0, update=lambda c, s, w, n: c + n)}
run = tw.ensemble(tw.systems.pit(0.02), jnp.full(64, 1.0075), 60_000, key=3, record=lambda s, w, n: n, every=200,
                  folds=fold, **how)
answer = (run.state, run.record, run.folds)
""",
    "flow: splitting": """
walk = tw.Process(lambda x, w: x + 0.3 * w - 0.02, tw.noise.Normal())
found = tw.flow.splitting(walk, 0.0, lambda x: x, 6.0, 60, key=0, paths=300, kill=30, repeats=200, **how)
answer = (found.value, found.error, found.details["repeats"])
""",
    "knowledge: a tally": """
digits = tw.systems.digits(keep=(1, 7, 6, 8))
net = tw.systems.perceptron((64, 50, 2), activation="softplus", loss="mse")
data = (digits.images, np.eye(2)[np.isin(digits.labels, (6, 8)).astype(int)])
learner = tw.processes.sgd(net.loss, data, 0.01)
groups = np.searchsorted([1, 6, 7, 8], digits.labels)
tally = tw.knowledge.Tally(groups, process=learner)
run = tw.simulate(learner, learner.init(net.init(jax.random.key(0))), 6000, key=1, folds={"tally": tally}, **how)
answer = (run.state, run.folds["tally"].absolute, run.folds["tally"].signed)
""",
    "steering: a map of Lorenz with a part held still": """
lorenz = tw.systems.lorenz(28.0)
states = jax.vmap(lambda a: lorenz.init(a=a, b=1.0, c=1.0))(jnp.linspace(0.5, 1.5, 500))
run = tw.ensemble(tw.clamp(lorenz, "a"), states, 20_000, record=lambda s, w, n: n, every=1000, **how)
answer = (run.state, run.record)
""",
    "energy: a Boltzmann machine in training": """
data = (tw.systems.digits().images > 0.5).astype(float)
machine = tw.energy.training(tw.energy.RBM.start(data, 16), data, "pcd", steps=3000)
answer = tw.simulate(machine, machine.init(0), 3000, key=0, **how).state
""",
    "energy: electrons in a trap": """
trap = tw.energy.HarmonicTrap(2, 2, 1.0)
psi = tw.energy.RBMState.start(trap, 2, "trained", jax.random.key(0))
vmc = tw.energy.variational_monte_carlo(trap, psi, walkers=256, moves=5)
answer = tw.simulate(vmc, vmc.init(0), 6000, key=1, **how).state
""",
    "energy: a ground state, trained and measured": """
trap = tw.energy.HarmonicTrap(2, 2, 1.0)
found = tw.energy.ground_state(trap, jastrow=True, tol=1e-5, key=1, walkers=512, steps=400, **how)
answer = (found.state.parameters, found.history, found.measurement.energies, found.measurement.samples)
""",
}
CHUNKS = {"flow: splitting": 1, "energy: electrons in a trap": 20, "energy: a ground state, trained and measured": 10}


def _script(name: str) -> str:
    return BEGIN.replace("CHUNK)", f"{CHUNKS.get(name, 200)})") + RUNS[name] + END


def _command(name: str, folder: pathlib.Path) -> tuple[list[str], dict[str, str]]:
    source = str(pathlib.Path(tw.__file__).parents[1])
    return [sys.executable, "-c", _script(name), str(folder)], {
        **os.environ,
        "PYTHONPATH": source,
        "PYTHONHASHSEED": "0",
    }


def _killed(name: str, folder: pathlib.Path, longest: float, chance: random.Random, most: int) -> int:
    """Start the run and kill it, until it is done or was killed `most` times; how many kills fell into it."""
    command, environment = _command(name, folder)
    for kills in range(most):
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(timeout=chance.uniform(0.0, longest))
            return kills
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
    return most


def _finished(name: str, folder: pathlib.Path) -> str:
    command, environment = _command(name, folder)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_at_random_moments_ends_where_an_undisturbed_one_does(name, tmp_path):
    undisturbed = _finished(name, tmp_path / "undisturbed")
    began = time.monotonic()  # compilers may have kept what the first run made them do
    assert _finished(name, tmp_path / "again") == undisturbed
    took, chance = time.monotonic() - began, random.Random(0)
    kills = tries = 0
    while kills < KILLS:  # a run that was finished between two kills is begun anew
        tries += 1
        assert tries <= 2 * KILLS, f"{kills} of {KILLS} kills fell into the run: it is too short for this test"
        folder = tmp_path / f"killed-{tries}"
        kills += _killed(name, folder, took, chance, KILLS - kills)
        assert _finished(name, folder) == undisturbed
    assert int(undisturbed.split()[0]) > 0
