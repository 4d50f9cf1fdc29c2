"""Where the particles are, and how far apart: densities from samples of positions, with error bars."""

from typing import Any

import numpy as np

from thalweg._edge import check_number, is_whole, shown
from thalweg.energy.ground_states._coordinates import pairs


def radial_densities(samples: Any, particles: int, *, bins: int = 40, reach: float | None = None) -> Any:
    """The one-body density and the distribution of distances of pairs, from samples of a wavefunction.

    ```
    density(r)        particles a unit of volume at distance r from the centre: its integral is the number of particles
    pair_density(r)   of the distance of a pair, averaged over pairs: its integral over r is 1
    ```

    **Arguments**

    - `samples`: positions of shape (walkers, particles * dimension), or (walkers, records, particles * dimension):
      walkers are independent of each other, the records of one walker need not be.
    - `particles`: how many. - `bins`: cells of both histograms, default 40.
    - `reach`: their upper end, in bohr; by default the largest distances seen.

    **Returns** an `xarray.Dataset` with `density` over `r`, `pair_density` over `distance` and the error of each,
    from the spread of the walkers.

    **Raises** `ValueError` or `TypeError` for samples of a wrong shape or not finite, and fewer than 2 walkers.

    >>> import numpy as np, thalweg as tw
    >>> x = np.random.default_rng(0).normal(size=(4000, 4)) * np.sqrt(0.5)      # two free electrons at omega = 1
    >>> found = tw.energy.radial_densities(x, particles=2, reach=4.0)
    >>> exact = 2 * np.exp(-found.r**2) / np.pi
    >>> bool((abs(found.density - exact)[:20] < 4.5 * found.density_error[:20]).all())
    True
    """
    import xarray

    x = _positions(samples, particles)
    if not is_whole(bins) or not 1 <= bins <= 100_000:
        raise ValueError(f"bins must be a whole number from 1 to 100000, got {shown(bins)}")
    if reach is not None and np.ndim(reach):
        raise ValueError(f"reach must be one number > 0, got {shown(reach)}")
    end = None if reach is None else float(check_number(reach, "reach", above=0))
    dimension = x.shape[-1]
    radii = np.linalg.norm(x, axis=-1)
    one, other = pairs(particles)
    apart = np.linalg.norm(x[..., one, :] - x[..., other, :], axis=-1)
    edges = np.linspace(0, end or float(radii.max()) * 1.001 or 1.0, bins + 1)
    volume = np.diff({1: 2 * edges, 2: np.pi * edges**2, 3: 4 / 3 * np.pi * edges**3}[dimension])
    density, error = _histogram(radii, edges, particles / volume)
    unit = {1: "1/bohr", 2: "1/bohr^2", 3: "1/bohr^3"}[dimension]
    found = {
        "density": ("r", density, {"long_name": "one-body density", "units": unit}),
        "density_error": ("r", error, {"long_name": "error of the one-body density", "units": unit}),
    }
    places = {"r": ("r", (edges[1:] + edges[:-1]) / 2, {"long_name": "distance from the centre", "units": "bohr"})}
    if particles > 1:
        edges = np.linspace(0, end or float(apart.max()) * 1.001 or 1.0, bins + 1)
        density, error = _histogram(apart, edges, 1 / np.diff(edges))
        found["pair_density"] = ("distance", density, {"long_name": "density of the distance", "units": "1/bohr"})
        found["pair_density_error"] = ("distance", error, {"long_name": "error of that density", "units": "1/bohr"})
        middle = (edges[1:] + edges[:-1]) / 2
        places["distance"] = ("distance", middle, {"long_name": "distance of two particles", "units": "bohr"})
    return xarray.Dataset(found, places)


def _positions(samples: Any, particles: int) -> np.ndarray:
    """Samples as (walkers, records, particles, dimension)."""
    if not is_whole(particles) or not 1 <= particles <= 10_000:
        raise ValueError(f"particles must be a whole number from 1 to 10000, got {shown(particles)}")
    try:
        x = np.asarray(samples, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"samples must be an array of positions, got {type(samples).__name__}") from None
    x = x[:, None] if x.ndim == 2 else x
    if x.ndim != 3 or len(x) < 2 or not x.shape[1] or x.shape[2] not in (particles, 2 * particles, 3 * particles):
        raise ValueError(
            f"samples must have shape (walkers, {particles} * dimension), or (walkers, records, that), "
            f"at least 2 walkers, got {np.shape(samples)}"
        )
    if not np.all(np.isfinite(x)):
        raise ValueError("samples must be finite, got NaN or infinity in them")
    return x.reshape(*x.shape[:2], particles, -1)


def _histogram(values: np.ndarray, edges: np.ndarray, scale: Any) -> tuple[np.ndarray, np.ndarray]:
    """The share of values in each cell times `scale`, and its error from the spread of the walkers."""
    flat = values.reshape(len(values), -1)
    cell = np.searchsorted(edges, flat, side="right") - 1
    inside = (cell >= 0) & (cell < len(edges) - 1)
    place = np.arange(len(flat))[:, None] * (len(edges) - 1) + cell
    counts = np.bincount(place[inside], minlength=len(flat) * (len(edges) - 1)).reshape(len(flat), -1)
    shares = counts / flat.shape[1]
    return scale * shares.mean(axis=0), scale * shares.std(axis=0, ddof=1) / np.sqrt(len(flat))
