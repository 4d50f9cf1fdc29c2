"""Two wells: does SGD prefer wide minima, and quiet ones?

Four data in the plane whose mean loss has two equally deep wells. In one landscape the left well is wider in every
datum, in another its gradients differ less between data; the control is symmetric.
"""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "flow"
SECONDS = 12
CURRENT = "J. Bostock, SGD Understood through Probability Current"


def run(size: str = "quick", *, side: int = 160, members: int = 300, steps: int = 2000) -> Outcome:
    """Where SGD stays in the long run: the operator on a grid of the plane, and Monte Carlo from both sides."""
    if size == "full":
        side, members, steps = 2 * side, 10 * members, 4 * steps
    found = _occupations(side)
    control = _by_simulation(members, steps)
    current = _circulation(side)
    claims = [_preference(found, control), _energy(current)]
    wide = float(found.left.sel(kind="wide", learning_rate=0.5))
    quiet = float(found.left.sel(kind="noise", learning_rate=0.5))
    return Outcome(
        summary=(
            f"At learning rate 0.5 the wide well holds {wide:.4f} of the probability and the quiet one {quiet:.3f}; "
            "alike wells "
            "hold half each. There is no clean one-factor test: shifting data smears wells, so that the quiet well is "
            "the sharper one of the mean loss."
        ),
        claims=claims,
        figures={
            "wells": Picture(
                _draw(found),
                caption="Long-run density of SGD at learning rate 0.7 (colour, logarithmic) over the level lines of "
                "the mean loss: "
                "a wider well, a quieter well, and the control.",
            )
        },
        data={"wells": found},
    )


def _grid(side: int) -> Any:
    import thalweg as tw

    return tw.flow.Grid([-2.6, -1.9], [2.6, 1.9], [side, side])


def _occupations(side: int) -> Any:
    import numpy as np
    import xarray

    import thalweg as tw

    grid, kinds, rates = _grid(side), ["wide", "noise", "control"], [0.5, 0.7]
    share, error, densities = np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2, side, side))
    for i, kind in enumerate(kinds):
        for j, rate in enumerate(rates):
            process = tw.systems.two_wells(kind, rate)
            values = []
            for cells in (side, side // 2):
                coarse = _grid(cells)
                density = tw.flow.transfer_operator(process, coarse).stationary_density()
                mass = density.value.reshape(-1) * coarse.cell_volume
                values.append(float(mass[coarse.points[:, 0] < 0].sum()))
                if cells == side:
                    densities[i, j] = density.value
            share[i, j], error[i, j] = values[0], abs(values[0] - values[1])
    x, y = grid.centers
    losses = np.stack([_mean_loss(kind, grid) for kind in kinds])
    return xarray.Dataset(
        {
            "left": (("kind", "learning_rate"), share, {"long_name": "P(x < 0)"}),
            "left_error": (("kind", "learning_rate"), error),
            "density": (("kind", "learning_rate", "x", "y"), densities, {"long_name": "density"}),
            "loss": (("kind", "x", "y"), losses, {"long_name": "mean loss"}),
        },
        coords={"kind": kinds, "learning_rate": rates, "x": x, "y": y},
    )


def _mean_loss(kind: str, grid: Any) -> Any:
    import jax
    import numpy as np

    import thalweg as tw

    values = [np.asarray(jax.vmap(loss)(grid.points)) for loss in tw.systems.two_wells_losses(kind)]
    return np.mean(values, axis=0).reshape(grid.shape)


def _by_simulation(members: int, steps: int) -> dict[str, tuple[float, float]]:
    """P(x < 0) at learning rate 0.7, half the members from either well: (mean, error over members)."""
    import numpy as np

    import thalweg as tw

    starts = np.tile([[-1.0, 0.0], [1.0, 0.0]], (members // 2, 1))
    visits = tw.Fold(init=lambda x: 0, update=lambda n, x, w, y: n + (y[0] < 0))
    found = {}
    for kind in ("wide", "noise"):
        process = tw.systems.two_wells(kind, 0.7)
        warm = tw.ensemble(process, starts, steps, key=5).state
        run = tw.ensemble(process, warm, steps, key=6, folds={"left": visits})
        share = np.asarray(run.folds["left"]) / steps
        found[kind] = (float(share.mean()), float(share.std() / np.sqrt(members)))
    return found


def _preference(found: Any, control: dict[str, tuple[float, float]]) -> Claim:
    values = {kind: float(found.left.sel(kind=kind, learning_rate=0.5)) for kind in found.kind.values}
    sampled = ", ".join(f"{kind} {mean:.4f} +- {error:.4f}" for kind, (mean, error) in control.items())
    exact = ", ".join(f"{kind} {float(found.left.sel(kind=kind, learning_rate=0.7)):.4f}" for kind in control)
    preferred = values["wide"] > 0.6 and values["noise"] > 0.6 and abs(values["control"] - 0.5) < 1e-3
    return Claim(
        "F21",
        "SGD prefers wide minima and minima of low gradient variance",
        CURRENT,
        [round(value, 4) for value in values.values()],
        "holds in kind" if preferred else "fails",
        error=[float(found.left_error.sel(kind=kind, learning_rate=0.5)) for kind in found.kind.values],
        note="P(x < 0) at learning rate 0.5: the wide well, the quiet well, the control. At 0.7 the operator says "
        f"{exact}, Monte Carlo from both wells {sampled}. The quiet well has curvature 1.71 against 0.89: SGD takes "
        "the "
        "sharper, quieter one",
    )


def _circulation(side: int) -> tuple[float, float]:
    """The current at rest: its largest size, in the middle of the density, for the wide wells and a reversible "
    "control."""
    import numpy as np

    import thalweg as tw

    sizes = []
    for process in (tw.systems.two_wells("noise", 0.7), _symmetric_walk()):
        grid = _grid(side // 2)
        operator = tw.flow.transfer_operator(process, grid)
        density = operator.stationary_density().value
        current = operator.current(density).value
        swirl = np.gradient(current[1], grid.widths[0], axis=0) - np.gradient(current[0], grid.widths[1], axis=1)
        sizes.append(float(np.abs(swirl).max() / density.max()))
    return sizes[0], sizes[1]


def _symmetric_walk() -> Any:
    """x' = 0.8 x plus the same coin on either axis, independent: nothing circulates."""
    import thalweg as tw

    return tw.Process(lambda x, w: 0.8 * x + 0.2 * (2.0 * w - 1.0), tw.noise.Choice(2, shape=(2,)))


def _energy(current: tuple[float, float]) -> Claim:
    return Claim(
        "F22",
        "in more than one dimension there is an energy that gives the density in the long run",
        CURRENT,
        current[0],
        "fails" if current[0] > 10 * current[1] else "not decidable here",
        published="exists",
        error=current[1],
        note="largest curl of the stationary current over the largest density (quiet wells, learning rate 0.7); a "
        "walk without "
        f"circulation has {current[1]:.2g}. With a current, -log P exists and is not the potential of the drift",
    )


def _draw(found: Any) -> Any:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
        for axes, kind in zip(panels, found.kind.values, strict=True):
            density = found.density.sel(kind=kind, learning_rate=0.7)
            shown = np.log10(np.maximum(density.values.T, 1e-6))
            mesh = axes.pcolormesh(found.x, found.y, shown, shading="nearest", cmap="cividis", vmin=-5, vmax=1)
            axes.contour(found.x, found.y, found.loss.sel(kind=kind).values.T, 12, colors="white", linewidths=0.6)
            left = float(found.left.sel(kind=kind, learning_rate=0.7))
            axes.set(title=f"{kind}: P(x < 0) = {left:.3f}", xlabel="x")
            axes.grid(False)
        panels[0].set_ylabel("y")
        figure.colorbar(mesh, ax=panels, label="log10 density")
    return figure
