"""How the walkers move: Metropolis, importance sampling and block Gibbs on one wavefunction of two electrons."""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "energy"
SECONDS = 15
NOTES = "lecture notes FYS4411/9411, University of Oslo (2023)"
METHODS = ("metropolis", "importance", "gibbs")


def run(size: str = "quick", *, hidden: int = 2, walkers: int = 512) -> Outcome:
    """One trained machine with a Jastrow factor, sampled in three ways; one move between records."""
    import numpy as np
    import xarray

    import thalweg as tw

    trap = tw.energy.HarmonicTrap(2)
    exact = tw.energy.two_electrons()
    walkers = walkers if size == "quick" else 8 * walkers
    state = tw.energy.ground_state(trap, hidden, jastrow=True, key=0, tol=1e-3).state
    measured = {m: tw.energy.measure(state, trap, key=5, walkers=walkers, moves=1, method=m, tol=2e-5) for m in METHODS}
    taus = {method: _memory(state, trap, method, walkers, exact) for method in METHODS}
    data = xarray.Dataset(
        {
            "tau": (("observable", "method"), [[taus[m][o].value for m in METHODS] for o in ("distance", "size")]),
            "tau_error": (
                ("observable", "method"),
                [[taus[m][o].error for m in METHODS] for o in ("distance", "size")],
            ),
            "acceptance": ("method", [measured[m].acceptance for m in METHODS], {"units": "1"}),
            "energy": ("method", [measured[m].energy.value for m in METHODS], {"units": "hartree"}),
            "energy_error": ("method", [measured[m].energy.error for m in METHODS], {"units": "hartree"}),
        },
        {"method": list(METHODS), "observable": ["distance", "size"]},
    )
    data.tau.attrs.update(long_name="autocorrelation time", units="moves")
    gibbs, metropolis = taus["gibbs"]["distance"], taus["metropolis"]["distance"]
    ratio = metropolis.value / gibbs.value
    error = ratio * np.hypot(metropolis.error / metropolis.value, gibbs.error / gibbs.value)
    off = max(abs(m.energy.value - exact.energy.value) / m.energy.error for m in measured.values())
    claims = [
        Claim(
            "E33",
            "Gibbs sampling mixes better than Metropolis sampling",
            NOTES,
            tw.Estimate(ratio, error),
            "holds" if ratio - 2 * error > 1 else "fails" if ratio + 2 * error < 1 else "not decidable here",
            note="autocorrelation time of the distance, Metropolis over Gibbs, in moves; acceptance "
            + ", ".join(f"{m} {measured[m].acceptance:.2f}" for m in METHODS)
            + "; with a Jastrow factor a Gibbs move is accepted by its change",
            details={f"tau {m} {o}": taus[m][o].value for m in METHODS for o in ("distance", "size")},
        ),
        Claim(
            "E33.energy",
            "all three sample the same law",
            NOTES,
            off,
            "holds" if off < 4 else "fails",
            error=1.0,
            note="the largest distance of an energy from the exact one, in its errors: "
            + ", ".join(f"{m} {measured[m].energy}" for m in METHODS),
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
                "Autocorrelation times in moves, of the distance of the electrons and of the size of the cloud: Gibbs "
                "moves forget soonest.",
            )
        },
        data={"samplers": data},
    )


def _memory(state: Any, trap: Any, method: str, walkers: int, exact: Any) -> dict[str, Any]:
    """Autocorrelation times of the distance and of the size of the cloud, at the width that sampling chose."""
    import equinox as eqx
    import jax.numpy as jnp

    import thalweg as tw
    from thalweg.energy.ground_states._measure import walk
    from thalweg.energy.ground_states._monte_carlo import spread_walkers

    process = walk(state, method, walkers=walkers, moves=1)

    def look(s: Any, w: Any, n: Any) -> dict[str, Any]:
        r = n.x.reshape(walkers, 2, trap.dimension)
        return {"distance": jnp.linalg.norm(r[:, 0] - r[:, 1], axis=1), "size": jnp.sum(n.x**2, axis=1)}

    started = tw.simulate(process, process.init(spread_walkers(trap, walkers, 3)), 300, key=3, record=look).state
    held = eqx.tree_at(lambda p: p.step.gain, process, jnp.zeros(()))  # the width stays what it has become
    record = tw.simulate(held, started, 300, key=4, record=look).record
    return {name: tw.stats.autocorrelation_time(values.T) for name, values in record.items()}


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
