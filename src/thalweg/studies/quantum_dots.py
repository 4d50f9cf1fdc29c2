"""Electrons in a trap with and without repulsion, with and without a Jastrow factor, against the literature."""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "energy"
SECONDS = 20
HOGBERGET = "J. Hogberget, master's thesis, University of Oslo (2013)"
NOTES = "lecture notes FYS4411/9411, University of Oslo (2023)"


def run(size: str = "quick", *, electrons: int = 6, omega: float = 1.0, tol: float = 0.002) -> Outcome:
    """Free electrons, determinants alone, with a Jastrow factor (full size: with backflow too); published values."""
    import thalweg as tw

    trap = tw.energy.HarmonicTrap(electrons, 2, omega)
    free = tw.energy.HarmonicTrap(electrons, 2, omega, interaction=False)
    walkers = 512 if size == "quick" else 4096
    tol = tol if size == "quick" else tol / 4
    settings = {"hidden": 0, "walkers": walkers, "backflow": False}
    found = {
        "free": tw.energy.ground_state(free, tol=tol, key=1, steps=0, **settings),
        "determinants": tw.energy.ground_state(trap, jastrow=False, tol=20 * tol, key=2, **settings),
        "with Jastrow": tw.energy.ground_state(trap, tol=tol, key=3, **settings | {"backflow": size == "full"}),
    }
    best, bare = found["with Jastrow"], found["determinants"]
    exact_free = free.free_energy
    known = tw.energy.known_energies(trap)
    half = tw.energy.known_energies(tw.energy.HarmonicTrap(6, 2, 0.5))
    apart = abs(half[0].value - half[1].value) / (half[0].error ** 2 + half[1].error ** 2) ** 0.5
    claims = [
        Claim(
            "E.free",
            "without repulsion the determinants of oscillator orbitals are exact",
            NOTES,
            found["free"].energy,
            "holds" if abs(found["free"].energy.value - exact_free) < 1e-8 * exact_free else "fails",
            published=exact_free,
            note=f"variance of the local energy {found['free'].measurement.variance:.1e}",
        ),
        Claim(
            "E.jastrow",
            "a Jastrow factor lowers the energy of repelling electrons, and its variance",
            NOTES,
            tw.Estimate(bare.energy.value - best.energy.value, (bare.energy.error**2 + best.energy.error**2) ** 0.5),
            _lower(bare.energy, best.energy),
            note=f"by so much; variances {bare.measurement.variance:.2g} without and "
            f"{best.measurement.variance:.2g} with it. Without: {bare.message}",
        ),
        *_published(best, known),
        Claim(
            "E35",
            "6 electrons at omega = 0.5 have 11.78484(6), by diffusion Monte Carlo",
            HOGBERGET,
            half[1].value,
            "not decidable here",
            published=str(half[0]),
            error=half[1].error,
            note=f"{half[1].source} has {half[1]}: {apart:.0f} errors apart. Neither is a bound that could decide",
        ),
    ]
    data = best.to_xarray()
    return Outcome(
        summary=(
            f"{electrons} electrons at omega = {omega:g} have {exact_free:g} without repulsion, {bare.energy} with "
            f"determinants alone and {best.energy} with a Jastrow factor: {best.message}."
        ),
        claims=claims,
        figures={
            "descent": Picture(
                tw.plot.energy_history(data),
                "The energy over the steps of stochastic reconfiguration with one standard error, and the "
                "energy of the frozen state from fresh samples.",
            ),
            "density": Picture(
                _draw(found, electrons),
                "Left: the density of the electrons; repulsion pushes them outwards. Right: the density of the "
                "distance of two electrons.",
            ),
        },
        data={"ground_state": data},
    )


def _lower(bare: Any, best: Any) -> str:
    """Whether the second energy is the lower one; an error bar that means nothing decides in kind only."""
    if bare.value - best.value < 4 * (bare.error + best.error):
        return "not decidable here"
    return "holds" if bare.ok else "holds in kind"


def _published(best: Any, known: list[Any]) -> list[Claim]:
    """What others found for the same trap: beaten, or not."""
    claims = []
    for row in known:
        if row.method == "VMC":
            sigma = (best.energy.error**2 + row.error**2) ** 0.5
            lower = (row.value - best.energy.value) / sigma
            claims.append(
                Claim(
                    "E34",
                    f"{row} is what determinants with a Jastrow factor can reach",
                    row.source,
                    best.energy,
                    "fails" if lower > 3 else "holds" if lower > -3 else "not decidable here",
                    published=str(row),
                    note=f"a lower variational energy is a better one: by {lower:.1f} errors here; "
                    f"training chose its own steps; virial ratio {best.virial_ratio}",
                )
            )
    for row in known[:1]:
        if row.method == "DMC":
            claims.append(
                Claim(
                    "E36",
                    "no variational energy lies below that of diffusion Monte Carlo with fixed nodes",
                    row.source,
                    best.energy,
                    "not decidable here",
                    published=str(row),
                    note="fixed-node DMC is itself an upper bound, and states with other nodes can come below it; "
                    f"this one lies {1000 * (best.energy.value - row.value):.0f} mhartree above",
                )
            )
    return claims


def _draw(found: dict[str, Any], electrons: int) -> Any:
    import matplotlib.pyplot as plt

    import thalweg as tw

    with tw.plot.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
        for k, name in enumerate(("free", "with Jastrow")):
            densities = tw.energy.radial_densities(found[name].measurement.samples, electrons, bins=24)
            looks = {"color": tw.plot.COLOURS[k], "fmt": "os"[k], "label": {"free": "free"}.get(name, "repelling")}
            tw.plot.radial_density(densities, left, **looks)
            tw.plot.pair_correlation(densities, right, **looks)
    return figure
