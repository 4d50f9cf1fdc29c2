"""How the walkers move: Metropolis, importance sampling and block Gibbs on one wavefunction of two electrons."""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "energy"
SECONDS = 15
NOTES = "lecture notes FYS4411/9411, University of Oslo (2023)"
METHODS = ("metropolis", "importance", "gibbs")
OBSERVABLES = ("distance", "size")


def run(size: str = "quick", *, hidden: int = 2, walkers: int = 512) -> Outcome:
    """One trained machine with a Jastrow factor, sampled in three ways; one move between records."""
    import numpy as np
    import xarray

    import thalweg as tw

    trap = tw.energy.HarmonicTrap(2)
    exact = tw.energy.two_electrons()
    walkers = walkers if size == "quick" else 8 * walkers
    state = tw.energy.ground_state(trap, hidden, jastrow=True, key=0, tol=1e-3).state
    seen = {method: _sampled(state, trap, method, walkers) for method in METHODS}
    taus = {m: {name: tw.stats.autocorrelation_time(seen[m][name].T) for name in OBSERVABLES} for m in METHODS}
    energies = {m: tw.stats.mean(seen[m]["energy"].T) for m in METHODS}
    accepted = {m: float(seen[m]["acceptance"].mean()) for m in METHODS}
    data = xarray.Dataset(
        {
            "tau": (("observable", "method"), [[taus[m][o].value for m in METHODS] for o in OBSERVABLES]),
            "tau_error": (
                ("observable", "method"),
                [[taus[m][o].error for m in METHODS] for o in OBSERVABLES],
            ),
            "acceptance": ("method", list(accepted.values()), {"units": "1"}),
            "energy": ("method", [e.value for e in energies.values()], {"units": "hartree"}),
            "energy_error": ("method", [e.error for e in energies.values()], {"units": "hartree"}),
        },
        {"method": list(METHODS), "observable": list(OBSERVABLES)},
    )
    data.tau.attrs.update(long_name="autocorrelation time", units="moves")
    gibbs, metropolis = taus["gibbs"]["distance"], taus["metropolis"]["distance"]
    ratio = metropolis.value / gibbs.value
    error = ratio * np.hypot(metropolis.error / metropolis.value, gibbs.error / gibbs.value)
    off = max(abs(e.value - exact.energy.value) / e.error for e in energies.values())
    claims = [
        Claim(
            "E33",
            "Gibbs sampling mixes better than Metropolis sampling",
            NOTES,
            tw.Estimate(ratio, error),
            "holds" if ratio - 2 * error > 1 else "fails" if ratio + 2 * error < 1 else "not decidable here",
            note="autocorrelation time of the distance, Metropolis over Gibbs, in moves; acceptance "
            + ", ".join(f"{m} {accepted[m]:.2f}" for m in METHODS)
            + "; with a Jastrow factor a Gibbs move is accepted by its change",
            details={f"tau {m} {o}": taus[m][o].value for m in METHODS for o in OBSERVABLES},
        ),
        Claim(
            "E33.energy",
            "all three sample the same law",
            NOTES,
            off,
            "holds" if off < 4 else "fails",
            error=1.0,
            note="the largest distance of an energy from the exact one, in its errors: "
            + ", ".join(f"{m} {energies[m]}" for m in METHODS),
        ),
    ]
    return Outcome(
        summary=(
            "Autocorrelation times of the distance: "
            + ", ".join(f"{m} {taus[m]['distance'].value:.1f}" for m in METHODS)
            + f" moves. All energies lie within {off:.1f} errors of the exact one."
        ),
        claims=claims,
        figures={
            "memory": Picture(
                _draw(data),
                "How many moves it takes until a walker has forgotten the distance of its electrons, and the size "
                "of its cloud. A Gibbs move costs no drift force.",
            )
        },
        data={"samplers": data},
    )


def _sampled(state: Any, trap: Any, method: str, walkers: int) -> dict[str, Any]:
    """What 300 moves of all walkers see, at the width of a move that 300 moves before have chosen."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    import thalweg as tw

    process = tw.energy.wavefunction_sampler(state, method, walkers=walkers)

    def look(s: Any, w: Any, n: Any) -> dict[str, Any]:
        r = n.x.reshape(walkers, 2, trap.dimension)
        return {
            "distance": jnp.linalg.norm(r[:, 0] - r[:, 1], axis=1),
            "size": jnp.sum(n.x**2, axis=1),
            "energy": tw.energy.local_energy(state, trap, n.x).total,
            "acceptance": n.acceptance,
        }

    begun = process.init(np.random.default_rng(3).normal(size=(walkers, trap.coordinates)))
    started = tw.simulate(process, begun, 300, key=3, record=look).state
    held = eqx.tree_at(lambda p: p.step.gain, process, jnp.zeros(()))  # the width stays what it has become
    return jax.tree.map(np.asarray, tw.simulate(held, started, 300, key=4, record=look).record)


def _draw(data: Any) -> Any:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        figure, axes = plt.subplots(figsize=(6.4, 3.6))
        for k, observable in enumerate(data.observable.values):
            places = np.arange(data.sizes["method"]) + 0.36 * k - 0.18
            tau, error = data.tau.sel(observable=observable), data.tau_error.sel(observable=observable)
            axes.bar(places, tau, 0.34, yerr=error, color=tw.plot.COLOURS[(0, 5)[k]], label=str(observable), capsize=3)
        names = [f"{m}\nacceptance {a:.2f}" for m, a in zip(data.method.values, data.acceptance.values, strict=True)]
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("autocorrelation time [moves]")
        axes.legend()
    return figure
