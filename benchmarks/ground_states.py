"""Ground states beside NetKet: time an iteration, time to a given energy, and the targets for quantum dots.

Both programs train the same Boltzmann machine by stochastic reconfiguration with the same number of walkers, moves and
samples, taking turns in one process, block by block. NetKet's parameters are judged by the closed form too, so that
no noise blurs the comparison. `python benchmarks/ground_states.py long` adds ten seeds and the large dots.
"""

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from _timing import alternate, peer, show, target

LONG = "long" in sys.argv[1:]
WALKERS, MOVES, BLOCK = 1024, 20, 20
GAP = 1e-3
PAIRS = [(2, 1.0), (2, 1 / 6), (2, 0.28), (2, 0.1), (3, 0.5), (3, 0.1), (3, 0.25)]
NETKET = peer("netket") is not None


def in_netket(
    state: tw.energy.RBMState, trap: tw.energy.HarmonicTrap, seed: int, width: float = 0.5, step: float = 0.1
):
    """The same machine in NetKet: (Monte Carlo state, driver, Hamiltonian)."""
    import flax.linen as nn
    import netket as nk
    import netket.experimental as nkx
    import optax

    machine = state.machine

    class Machine(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.param("weights", lambda _: machine.weights)
            a = self.param("visible_bias", lambda _: machine.visible_bias)
            b = self.param("hidden_bias", lambda _: machine.hidden_bias)
            variance = jnp.exp(self.param("log_variance", lambda _: jnp.asarray(machine.log_variance)))
            theta = b + x @ w / variance
            return -jnp.sum((x - a) ** 2, axis=-1) / (4 * variance) + jnp.sum(jax.nn.softplus(theta), axis=-1) / 2

    hilbert = nkx.hilbert.Particle(trap.particles, geometry=nkx.geometry.FreeSpace(trap.dimension))
    potential = nk.operator.PotentialEnergy(hilbert, lambda x: trap.potential_energy(x))
    hamiltonian = nk.operator.KineticEnergy(hilbert, mass=1.0) + potential
    sampler = nk.sampler.MetropolisGaussian(hilbert, sigma=width, n_chains=WALKERS, sweep_size=MOVES)
    model = nk.vqs.MCState(sampler, Machine(), n_samples=WALKERS, n_discard_per_chain=0, seed=seed, sampler_seed=seed)
    driver = nk.driver.VMC_SR(hamiltonian, optax.sgd(step), diag_shift=1e-3, variational_state=model)
    return model, driver, hamiltonian


def machine_of(parameters) -> tw.energy.GaussianRBM:
    names = ("weights", "visible_bias", "hidden_bias", "log_variance")
    return tw.energy.GaussianRBM(*(np.asarray(parameters[name]) for name in names))


def local_energies():
    """The same local energies at the same places."""
    trap = tw.energy.HarmonicTrap(2)
    state = tw.energy.RBMState.start(trap, 4, key=3)
    model, _, hamiltonian = in_netket(state, trap, 0)
    x = np.asarray(model.samples).reshape(-1, trap.coordinates)
    theirs = np.asarray(model.local_estimators(hamiltonian).data).reshape(-1)
    ours = np.asarray(tw.energy.local_energy(state, trap, x).total)
    worst = float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(ours), 1)))
    target("local energies, largest difference from NetKet's", worst, most=1e-10)


def iterations():
    """Seconds an iteration, in blocks that take turns."""
    trap = tw.energy.HarmonicTrap(2)
    state = tw.energy.noise_free_ground_state(trap, 2).state  # trained: what a sampler remembers depends on it
    contenders = {}
    for name, method, moves in (
        ("thalweg, Metropolis", "metropolis", MOVES),
        ("thalweg, Gibbs", "gibbs", MOVES),
        ("thalweg, 1 Gibbs move", "gibbs", 1),
    ):
        process = tw.energy.variational_monte_carlo(trap, state, walkers=WALKERS, moves=moves, method=method)
        begun = process.init(0)
        contenders[name] = lambda process=process, begun=begun: tw.simulate(process, begun, BLOCK, key=1).state.energy
    _, driver, _ = in_netket(state, trap, 0)
    contenders["NetKet"] = lambda: driver.run(BLOCK, show_progress=False)
    times = alternate(contenders, turns=9)
    show(f"{BLOCK} iterations of {WALKERS} walkers", times, unit="iterations/s", work=BLOCK)
    for name, least in (("thalweg, Metropolis", 2.4), ("thalweg, 1 Gibbs move", 8.0)):
        target(f"NetKet / {name}", times.ratio("NetKet", name), least=least)
    # Equal or better effective samples: what a step of each sampler remembers of the distance.
    taus = {}
    for method, moves in (("metropolis", MOVES), ("gibbs", 1)):
        process = tw.energy.wavefunction_sampler(state, method, walkers=256, moves=moves)
        s = process.init(jax.random.normal(jax.random.key(0), (256, trap.coordinates)))
        distance = lambda s, w, n: jnp.linalg.norm(n.x[:, :2] - n.x[:, 2:], axis=1)  # noqa: E731
        series = tw.simulate(process, s, 300, key=1, record=distance).record[50:].T
        taus[method] = tw.stats.autocorrelation_time(np.asarray(series)).value
    words = f"{taus['metropolis']:.2f} of {MOVES} Metropolis moves, {taus['gibbs']:.2f} of 1 Gibbs move"
    print(f"  autocorrelation time in steps: {words}")
    target("autocorrelation time, 1 Gibbs / 20 Metropolis moves", taus["gibbs"] / taus["metropolis"], most=1.0)


def time_to_energy(hidden: int, seeds: int):
    """Seconds, compilation apart, until the closed form of the parameters is within GAP of the best plain machine."""
    trap = tw.energy.HarmonicTrap(2)
    best = tw.energy.noise_free_ground_state(trap, hidden, starts=12)
    ours, theirs = [], []
    for seed in range(seeds):
        ours.append(_our_seconds(trap, hidden, seed, best.energy.value + GAP))
        if NETKET:
            theirs.append(_netket_seconds(trap, hidden, seed, best.energy.value + GAP))
    print(f"\nSeconds to within {GAP} of {best.energy.value:.5f} with {hidden} hidden units, {seeds} seeds")
    print(f"  thalweg  median {np.median(ours):.2f}, all {np.round(ours, 2)}")
    if NETKET:
        print(f"  NetKet   median {np.median(theirs):.2f}, all {np.round(theirs, 2)} (inf: not in {_MOST} iterations)")
        target("NetKet / thalweg, median seconds", np.median(theirs) / np.median(ours), least=10.0)


_MOST = 600


def _our_seconds(trap, hidden: int, seed: int, goal: float) -> float:
    """One start after another, until one ends low enough."""
    began = time.perf_counter()
    for start in range(100):
        found = tw.energy.noise_free_ground_state(trap, hidden, starts=1, key=1000 * seed + start)
        if found.energy.value < goal:
            return time.perf_counter() - began
    return np.inf


def _netket_seconds(trap, hidden: int, seed: int, goal: float) -> float:
    state = tw.energy.RBMState.start(trap, hidden, key=seed)
    model, driver, _ = in_netket(state, trap, seed)
    driver.run(1, show_progress=False)  # compiles
    spent = 0.0
    for _ in range(_MOST // BLOCK):
        began = time.perf_counter()
        driver.run(BLOCK, show_progress=False)
        spent += time.perf_counter() - began
        if tw.energy.closed_form_energy(machine_of(model.parameters), trap).energy.value < goal:
            return spent
    return np.inf


def pairs():
    """All cases of two electrons whose exact energy is known, to 1e-5 in 10 seconds, warm."""
    print("\nTwo electrons with a Jastrow factor")
    for dimension, omega in PAIRS:
        trap = tw.energy.HarmonicTrap(2, dimension, omega)
        exact = tw.energy.two_electrons(omega, dimension).energy.value
        tw.energy.ground_state(trap, jastrow=True, tol=1e-5 * exact, key=0)
        began = time.perf_counter()
        found = tw.energy.ground_state(trap, jastrow=True, tol=3e-6, key=1)
        seconds = time.perf_counter() - began
        off = found.energy.value - exact
        print(
            f"  {dimension}-D, omega {omega:.4f}: {found.energy}, off by {off:+.1e}, {seconds:.1f} s; {found.message}"
        )
        target("  distance from the exact energy", abs(off), most=1e-5)
        target("  seconds", seconds, most=10)


def noise_free():
    """Plain machines of 1 to 8 hidden units, warm."""
    trap = tw.energy.HarmonicTrap(2)
    for k in range(1, 9):
        tw.energy.noise_free_ground_state(trap, k, starts=1)
    began = time.perf_counter()
    energies = [tw.energy.noise_free_ground_state(trap, k).energy.value for k in range(1, 9)]
    seconds = time.perf_counter() - began
    print("\nPlain machines of 1 to 8 hidden units:", " ".join(f"{energy:.5f}" for energy in energies))
    target("seconds for all eight", seconds, most=10)


def dots():
    """Closed shells at omega = 1: energy and seconds, compilation included."""
    for electrons, energy, seconds, tol in ((6, 20.175, 60, 2e-3), (12, 65.77, 240, 8e-3), (20, 156.0, 600, 3e-2)):
        if electrons > 6 and not LONG:
            continue
        began = time.perf_counter()
        found = tw.energy.ground_state(tw.energy.HarmonicTrap(electrons), hidden=0, tol=tol, key=0)
        spent = time.perf_counter() - began
        print(f"\n{electrons} electrons: {found} in {spent:.0f} s")
        target("energy", float(found.energy), most=energy)
        target("seconds", spent, most=seconds)


_FIRST = {
    "thalweg": "import thalweg as tw; t = tw.energy.HarmonicTrap(2);"
    "p = tw.energy.variational_monte_carlo(t, tw.energy.RBMState.start(t, 2), walkers=1024, moves=20);"
    "print(float(tw.simulate(p, p.init(0), 1, key=0).state.energy))",
    "NetKet": "import sys; sys.path.insert(0, 'benchmarks'); import thalweg as tw; from ground_states import in_netket;"
    "t = tw.energy.HarmonicTrap(2); m, d, h = in_netket(tw.energy.RBMState.start(t, 2), t, 0);"
    "d.run(1, show_progress=False); print(d._loss_stats)",
}

_MEMORY = """
import resource, thalweg as tw
trap = tw.energy.HarmonicTrap(40)
psi = tw.energy.ground_state(trap, hidden=0, steps=0, walkers=64).state
process = tw.energy.variational_monte_carlo(trap, psi, walkers=4096, moves=5)
tw.simulate(process, process.init(0), 2, key=0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def cold_start():
    """A fresh interpreter to the first energy of a run."""
    runs = {name: code for name, code in _FIRST.items() if name == "thalweg" or NETKET}
    times = alternate(
        {n: lambda c=c: subprocess.run([sys.executable, "-c", c], check=True) for n, c in runs.items()}, 3
    )
    show("From a fresh interpreter to the first energy", times)
    if NETKET:
        target("NetKet / thalweg", times.ratio("NetKet", "thalweg"), least=2.0)


def memory():
    """40 electrons, 4,096 walkers: the whole process."""
    done = subprocess.run([sys.executable, "-c", _MEMORY], check=True, capture_output=True, text=True)
    most = float(done.stdout)
    print(f"\n40 electrons with 4,096 walkers: {most:.2f} GiB, {most * 2**20 / 4096:.0f} KiB a walker")
    target("GiB", most, most=4.0)


if __name__ == "__main__":
    if NETKET:
        local_energies()
        iterations()
    else:
        print("NetKet is not installed (pip install netket): no comparison with it")
    for units in (4, 8):
        time_to_energy(units, seeds=10 if LONG else 3)
    noise_free()
    pairs()
    dots()
    cold_start()
    if LONG:
        memory()
