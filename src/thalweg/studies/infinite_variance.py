"""Two electrons, one wavefunction, three answers: a meaningless error bar, no noise at all, and a cusp.

The square root of a Boltzmann machine does not vanish where two electrons meet, so that its local energy grows as 1/r
there. In two dimensions the mean exists and the variance does not: a run looks fine and its error bar means nothing.
"""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "energy"
SECONDS = 18
NOTES = "lecture notes FYS4411/9411, University of Oslo (2023): variational Monte Carlo with a Boltzmann machine"
NORDHAGEN = "E. M. Nordhagen, master's thesis, University of Oslo (2019)"
BLOCK, FIRST = 50_000, 10_000


def run(size: str = "quick", *, draws: int = 400_000, hidden: int = 2) -> Outcome:
    """The same machine judged by independent samples, then without noise; then with a Jastrow factor."""
    import thalweg as tw

    draws = 10 * draws if size == "full" else draws
    trap = tw.energy.HarmonicTrap(2)
    plain = tw.energy.noise_free_ground_state(trap, hidden)
    series = _local_energies(plain, trap, draws)
    judged = tw.energy.evaluate(plain.state, trap, plain.draw(FIRST, key=0))
    first, whole = tw.Estimate(judged.energy.value, judged.energy.error), tw.stats.analyse(series)
    growth, covered = _growth(series), _covered(series, plain.energy.value)
    cusp = tw.energy.ground_state(trap, hidden, jastrow=True, tol=5e-5, key=1)
    exact = tw.energy.two_electrons().energy.value
    published = {row.method: row for row in tw.energy.known_energies(trap)}
    claims = [
        Claim(
            "E31",
            "the local energies of a plain Boltzmann machine give its energy with an error bar",
            NOTES,
            first,
            "fails" if whole.heavy_tails else "not decidable here",
            note=f"from {FIRST} independent draws. The verdict: {judged.message}. The variance of "
            f"{growth.draws.values[0]} draws is {growth.variance.values[0]:.2f}, of {draws} draws "
            f"{growth.variance.values[-1]:.2f}, their largest energy {growth.largest.values[0]:.0f} and "
            f"{growth.largest.values[-1]:.0f}; the 68% interval of 1,000 draws holds the energy in {covered} of runs",
            details={"tail shape": float(whole.tails.shape.value), "tail shape error": float(whole.tails.shape.error)},
        ),
        Claim(
            "E31.closed",
            "the energy of a plain machine can be had without noise",
            "this library",
            plain.energy,
            "holds" if plain.energy.ok else "fails",
            note=f"a sum over a mixture of Gaussians; virial ratio {plain.virial_ratio.value:.6f}; the best of "
            f"{len(plain.starts)} starts",
        ),
        Claim(
            "E29",
            "the best energy of a plain machine is 3.0803(2)",
            NORDHAGEN,
            plain.energy,
            "fails" if plain.energy.value < published["RBM"].value - 4 * published["RBM"].error else "holds",
            published="3.0803(2)",
            note=f"the wavefunction itself reaches {plain.energy.value:.5f} with {hidden} hidden units",
        ),
        Claim(
            "E32",
            "a Jastrow factor cures it",
            "derived: the cusp 1 + r cancels 1/r",
            cusp.energy,
            "holds" if cusp.ok and abs(cusp.energy.value - exact) < 4 * cusp.energy.error + 1e-4 else "fails",
            published=exact,
            note=f"variance of the local energy {cusp.measurement.variance:.1e}, tails "
            f"{cusp.measurement.analysis.tails.verdict}; the exact energy is {exact:g}",
        ),
        Claim(
            "E30",
            "VMC gives 2.99936(1), and a machine with Jastrow factor 2.999587(5)",
            NORDHAGEN,
            exact,
            "fails",
            published="2.99936(1), 2.999587(5)",
            error=0.0,
            note="variational energies may not lie below the exact one: these do by "
            + " and ".join(
                f"{(exact - published[m].value) / published[m].error:.0f}" for m in ("VMC", "RBM and Jastrow")
            )
            + " of their errors",
        ),
    ]
    data = growth.assign(running=("draws", _running(series, growth.draws.values), {"units": "hartree"}))
    return Outcome(
        summary=(
            f"Sampled, the plain machine says {first} after {FIRST} draws, as if all were well. The verdict: "
            f"{judged.message}. Without noise the same machine has {plain.energy.value:.4f}. With a cusp it has "
            f"{cusp.energy.value:.5f}; exact is {exact:g}."
        ),
        claims=claims,
        figures={"energy": _draw(data, plain.energy.value, cusp.energy, exact)},
        data={"variance": data},
    )


def _local_energies(plain: Any, trap: Any, draws: int) -> Any:
    """Local energies of independent draws, block by block."""
    import equinox as eqx
    import numpy as np

    import thalweg as tw

    local = eqx.filter_jit(lambda psi, x: tw.energy.local_energy(psi, trap, x).total)
    return np.concatenate([np.asarray(local(plain.state, plain.draw(BLOCK, key))) for key in range(draws // BLOCK)])


def _growth(series: Any) -> Any:
    """The variance and the largest of n local energies, as n grows: the medians over blocks of n."""
    import numpy as np
    import xarray

    n = np.array([len(series) // 2**k for k in range(9, -1, -1)])
    blocks = [series[: len(series) // k * k].reshape(-1, k) for k in n]
    return xarray.Dataset(
        {
            "variance": ("draws", [np.median(b.var(axis=1)) for b in blocks], {"units": "hartree^2"}),
            "largest": ("draws", [np.median(b.max(axis=1)) for b in blocks], {"units": "hartree"}),
            "error": ("draws", [series[:k].std() / np.sqrt(k) for k in n], {"units": "hartree"}),
        },
        {"draws": n},
    )


def _covered(series: Any, energy: float) -> Any:
    """How often the 68% interval of 1,000 draws holds the energy."""
    import numpy as np

    import thalweg as tw

    runs = series[: len(series) // 1000 * 1000].reshape(-1, 1000)
    inside = np.abs(runs.mean(axis=1) - energy) < runs.std(axis=1, ddof=1) / np.sqrt(1000)
    share = inside.mean()
    return tw.Estimate(share, np.sqrt(share * (1 - share) / len(runs)))


def _running(series: Any, n: Any) -> Any:
    return [series[:k].mean() for k in n]


def _draw(data: Any, plain: float, cusp: Any, exact: float) -> Picture:
    import matplotlib.pyplot as plt

    import thalweg as tw

    with tw.plot.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
        tw.plot.curve(data.running, data.error, left, label="samples, with the usual error bar")
        left.axhline(plain, color=tw.plot.COLOURS[1], linestyle="--", label="the same state without noise")
        left.axhline(cusp.value, color=tw.plot.COLOURS[2], linestyle="-.", label="with a cusp")
        left.axhline(exact, color="black", linestyle=":", label="exact")
        left.set(xscale="log", xlabel="independent draws", ylabel="energy [hartree]")
        left.legend(loc="center", bbox_to_anchor=(0.62, 0.4), fontsize=9)
        tw.plot.curve(data.variance, None, right)
        right.set(xscale="log", xlabel="independent draws", ylabel="variance of the local energy [hartree²]", ylim=0)
    return Picture(
        figure,
        "Left: the energy of the plain machine from the first n samples with its usual error bar, the value that the "
        "closed form gives for the same state, and the energy with a cusp. Right: the variance of n local energies, "
        "the median over many sets; it does not settle, it grows with every pair that comes closer than any before.",
    )
