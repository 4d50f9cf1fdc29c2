"""A ground state as labelled data: for figures, for files, for whoever goes on with it."""

from typing import Any

import numpy as np

from thalweg.energy.ground_states._densities import radial_densities
from thalweg.energy.ground_states._known import known_energies
from thalweg.energy.ground_states._noise_free import ClosedForm
from thalweg.energy.ground_states._two_electrons import LARGEST, SMALLEST, two_electrons

DRAWS = 100_000  # positions for the densities where the state is drawn from exactly

_HISTORY = {
    "energy": ("energy_by_step", "energy", "hartree"),
    "error": ("energy_by_step_error", "error of the energy", "hartree"),
    "variance": ("variance_by_step", "variance of the local energy", "hartree^2"),
    "acceptance": ("acceptance_by_step", "accepted moves", "1"),
}


def labelled(result: Any) -> Any:
    """A `GroundState` as an `xarray.Dataset`."""
    import xarray

    measured, trap = result.measurement, result.trap
    found: dict[str, Any] = {}
    for name in ("energy", "kinetic", "trap_energy", "interaction_energy", "virial_ratio"):
        estimate, unit = getattr(result, name), "1" if name == "virial_ratio" else "hartree"
        words = name.replace("_", " ")
        found[name] = ((), float(estimate.value), {"long_name": words, "units": unit})
        found[f"{name}_error"] = ((), float(estimate.error), {"long_name": f"error of the {words}", "units": unit})
    for name, (label, words, unit) in _HISTORY.items():
        if name in result.history:
            found[label] = ("step", np.asarray(result.history[name], float), {"long_name": words, "units": unit})
    attributes = {
        "status": int(result.energy.status),
        "message": result.message,
        "particles": trap.particles,
        "dimension": trap.dimension,
        "omega": np.asarray(trap.frequencies),
        "interaction": str(trap.interaction),
        "statistics": trap.statistics,
    }
    if isinstance(measured, ClosedForm):
        attributes["advice"] = measured.advice
        blocks, samples = xarray.Dataset(), measured.draw(DRAWS)
    else:
        blocks, samples = measured.analysis.to_xarray(), measured.samples
        attributes |= {
            f"energy_{name}": value for name, value in blocks.attrs.items() if name not in ("status", "message")
        }
        if blocks.attrs.get("block_size"):
            attributes["block_size"] = blocks.attrs["block_size"]
        found["variance"] = ((), measured.variance, {"long_name": "variance of the local energy", "units": "hartree^2"})
        found["acceptance"] = ((), measured.acceptance, {"long_name": "accepted moves", "units": "1"})
    exact = [row.value for row in known_energies(trap) if row.method == "exact"]
    if exact:
        found["exact_energy"] = ((), exact[0], {"long_name": "exact energy", "units": "hartree"})
    steps = {"step": ("step", np.arange(1, 1 + len(next(iter(result.history.values())))))} if result.history else {}
    whole = xarray.merge(
        [xarray.Dataset(found, steps), blocks, _with_exact(radial_densities(samples, trap.particles), trap)],
        combine_attrs="override",
    )
    whole.attrs = attributes
    return whole


def _with_exact(densities: Any, trap: Any) -> Any:
    """The densities, with the exact ones beside them for two particles of opposite spin in an isotropic trap."""
    omega = np.unique(np.asarray(trap.frequencies))
    alike = trap.statistics == "fermions" and max(trap.spins) > 1
    known = trap.interaction is True and trap.potential is None and not alike and len(omega) == 1
    if trap.particles != 2 or not known or not SMALLEST <= omega[0] <= LARGEST:
        return densities
    exact = two_electrons(float(omega[0]), trap.dimension)
    return densities.assign(
        exact_density=(
            "r",
            exact.density(densities.r.values),
            {**densities.density.attrs, "long_name": "exact density"},
        ),
        exact_pair_density=(
            "distance",
            exact.distance_density(densities.distance.values),
            {**densities.pair_density.attrs, "long_name": "exact density of the distance"},
        ),
    )
