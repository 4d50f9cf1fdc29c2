"""The diffusion: what the Fokker-Planck equation gets right about SGD, and what not.

The source puts a diffusion in the place of the learner. Here each of its densities, means and escape times is held
against the exact operator of the update map.
"""

import functools
from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "flow"
SECONDS = 20
POST = "J. Bostock, Modelling and Understanding SGD"
CURRENT = "J. Bostock, SGD Understood through Probability Current"


def run(size: str = "quick", *, cells: int = 4096, members: int = 4000) -> Outcome:
    """Means, variances, escape times and densities: the operator, the diffusion, and Monte Carlo."""
    if size == "full":
        cells, members = 4 * cells, 10 * members
    times = _times(cells)
    densities = _densities(members)
    transport = _transport(members)
    claims = [
        _stable(times),
        *_linear_noise(),
        _printed_equation(),
        transport[0],
        _heat(),
        _falls_apart(times),
        _sub_steps(cells),
        _stretched(),
    ]
    return Outcome(
        summary=(
            "The diffusion keeps the mean of linear noise and loses a quarter of its variance at learning rate 0.5. "
            "On the pit "
            f"it is stable in the right scheme and wrong as a model: it escapes {times.ratio.values[0]:.3g} times too "
            "soon at learning rate 0.006 and several times too late at 0.03."
        ),
        claims=claims,
        figures={
            "times": Picture(
                _draw_times(times),
                caption="Mean number of steps to escape the pit: the operator (exact) and its diffusion. The two cross "
                "between 0.012 and 0.02, where they agree by accident.",
            ),
            "densities": Picture(
                _draw_densities(densities),
                caption="Densities over time. Grey bars: Monte Carlo. Line: the operator. Dashed: the diffusion. It "
                "has the mean of linear noise; in the pit it piles up at W = 1, which it never passes leftwards.",
            ),
        },
        data={
            "times": times,
            "densities_linear_noise": densities["linear noise, T = 0.1"],
            "densities_pit": densities["pit, T = 0.006"],
            "transport": transport[1],
        },
    )


def _escaped(W: Any) -> Any:
    return _points().lip_of_l1 <= W


@functools.cache
def _points() -> Any:
    import thalweg as tw

    return tw.systems.pit_points()


# Escape times -------------------------------------------------------------------------------------


def _times(cells: int) -> Any:
    import numpy as np
    import xarray

    import thalweg as tw

    rates = np.array([0.006, 0.008, 0.01, 0.0115, 0.0135, 0.016, 0.02, 0.025, 0.03])
    start = _points().bottom
    exact, ito = [], []
    for rate in rates:
        process = tw.systems.pit(float(rate))
        low, high = (0.8, 1.4) if rate < 0.025 else (0.0, 2.5)
        operator = tw.flow.transfer_operator(process, tw.flow.Grid(low, high, cells))
        exact.append(operator.mean_first_passage_time(start, _escaped))
        diffusion = tw.flow.fokker_planck(process, tw.flow.Grid(0.8, 1.4, cells // 4), compare=False)
        ito.append(diffusion.mean_first_passage_time(start, _escaped))
    about = {"long_name": "mean escape time", "units": "steps"}
    over = "learning_rate"
    values = [np.array([e.value for e in found]) for found in (exact, ito)]
    return xarray.Dataset(
        {
            "operator": (over, values[0], about),
            "operator_error": (over, [e.error for e in exact], about),
            "diffusion": (over, values[1], about),
            "diffusion_error": (over, [e.error for e in ito], about),
            "ratio": (over, values[0] / values[1], {"long_name": "operator over diffusion"}),
        },
        coords={over: (over, rates, {"long_name": "learning rate T"})},
    )


def _stable(times: Any) -> Claim:
    stays = {rate: float(times.operator.sel(learning_rate=rate)) for rate in (0.01, 0.006)}
    return Claim(
        "F11",
        "only W = 2 is stable under SGD",
        CURRENT,
        list(stays.values()),
        "holds in kind",
        error=[float(times.operator_error.sel(learning_rate=rate)) for rate in (0.01, 0.006)],
        note="mean steps in the pit at learning rates 0.01 and 0.006. Only at 2 do all gradients vanish, so the "
        "stationary law "
        "is a point there; but the pit lasts",
    )


def _falls_apart(times: Any) -> Claim:
    import numpy as np

    rates = (0.006, 0.01, 0.02, 0.03)
    pairs = [
        f"{float(times.operator.sel(learning_rate=rate)):.3g}/{float(times.diffusion.sel(learning_rate=rate)):.3g}"
        for rate in rates
    ]
    mass, least = _central(0.01, cross=1.0)
    return Claim(
        "F18",
        "the computation falls apart on the pit because S^2 is too rough",
        CURRENT,
        pairs,
        "fails",
        note="mean escape times, exact over diffusion, at 0.006, 0.01, 0.02 and 0.03: a fitted scheme is stable for "
        "all of them, "
        f"and the model is what is wrong. Central differences with the right equation keep mass {mass:.3f} and reach "
        f"densities of {least:.2g} of their maximum" + (", below zero" if np.sign(least) < 0 else ""),
    )


def _printed_equation() -> Claim:
    rates = (0.002, 0.005, 0.01)
    masses = [_central(rate, cross=0.5)[0] for rate in rates]
    right = [_central(rate, cross=1.0)[0] for rate in rates]
    return Claim(
        "F13",
        "the printed master equation moves probability",
        CURRENT,
        [float(f"{mass:.3g}") for mass in masses],
        "fails" if max(abs(mass - 1) for mass in masses) > 0.1 else "holds",
        published=1,
        error=0.0,
        note="mass after 100 steps at 0.002, 0.005 and 0.01, from a normal law at the bottom of the pit (deviation "
        "0.02), "
        f"implicit steps: the cross term (S^2)' P' stands with 1/2 where Ito needs 1. With 1 the mass is "
        f"{right[0]:.6f}",
    )


def _central(rate: float, cross: float) -> tuple[float, float]:
    """Central differences of the equation with a cross term of its own, 100 steps: (mass, least density over most)."""
    import jax
    import numpy as np
    import scipy.sparse
    from scipy.sparse.linalg import splu

    import thalweg as tw

    n = 1200
    W = np.linspace(0.7, 1.5, n)
    h = W[1] - W[0]
    slopes = [np.asarray(jax.vmap(jax.grad(loss))(W)) for loss in tw.systems.pit_losses()]
    G, S2 = (slopes[0] + slopes[1]) / 2, (slopes[0] - slopes[1]) ** 2 / 4
    first = scipy.sparse.diags([-1.0, 1.0], [-1, 1], shape=(n, n)) / (2 * h)
    second = scipy.sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(n, n)) / h**2
    # The right equation in conservative form, and what a wrong factor of the cross term takes from it.
    matrix = rate * first @ scipy.sparse.diags(G) + rate**2 / 2 * second @ scipy.sparse.diags(S2)
    matrix = matrix + (cross - 1) * rate**2 * scipy.sparse.diags(np.gradient(S2, h)) @ first
    density = np.exp(-((W - _points().bottom) ** 2) / (2 * 0.02**2))
    density /= density.sum()
    steps = 400
    solve = splu((scipy.sparse.identity(n) - 100 / steps * matrix).tocsc()).solve
    least = 0.0
    for _ in range(steps):
        density = solve(density)
        least = min(least, float(density.min() / density.max()))
    return float(density.sum()), least


# Closed forms -------------------------------------------------------------------------------------


def _linear_noise() -> list[Claim]:
    import numpy as np

    import thalweg as tw

    rate, s = 0.5, 0.2
    process = tw.systems.linear_noise(rate, s)

    def moments(density: Any) -> tuple[float, float, float, float]:
        x = density.details["space"].centers[0]
        mass = density.value / density.value.sum()
        mean = float(mass @ x)
        return mean, float(mass @ (x - mean) ** 2), 0.0, 0.0

    grid = tw.flow.Grid(-1.0, 5.0, 4000)
    found = {
        name: moments(tw.flow.fokker_planck(process, grid, name, compare=False).stationary_density())
        for name in ("ito", "stratonovich")
    }
    operator = tw.flow.transfer_operator(process, tw.flow.Grid(0.5, 3.5, 4000))
    exact = moments(operator.stationary_density())
    closed = 4 * rate * s**2 / (2 - rate - rate * s**2)
    return [
        Claim(
            "F12",
            "the current derived from the heat-capacity argument is that of SGD",
            CURRENT,
            [round(found["stratonovich"][0], 4), round(found["ito"][0], 4), round(exact[0], 4)],
            "fails" if abs(found["stratonovich"][0] - exact[0]) > 0.01 else "holds",
            published=2,
            error=1e-4,
            note="mean of linear noise at learning rate 0.5: the derived current (Stratonovich), Ito, and the operator",
        ),
        Claim(
            "F17",
            "linear noise validates the model",
            CURRENT,
            [round(found["ito"][1], 5), round(exact[1], 5)],
            "holds in kind",
            error=float(np.abs(exact[1] - closed)),
            note=f"variance of the diffusion and of the operator at learning rate 0.5 (closed form {closed:.6f}): the "
            "mean is "
            f"right, the variance {found['ito'][1] / closed - 1:+.0%}",
        ),
    ]


def _heat() -> Claim:
    import numpy as np

    import thalweg as tw

    grid, rate, steps = tw.flow.Grid(-2.0, 2.0, 4000), 0.01, 100
    operator = tw.flow.transfer_operator(tw.systems.coin(rate), grid)
    start = grid.density(lambda x: np.exp(-(x**2) / (2 * 0.1**2)))
    x = grid.centers[0]
    growth = (operator.push(start, steps).value - start) @ x**2 * grid.cell_volume / (steps * rate**2)
    return Claim(
        "F16",
        "noise alone spreads as the heat equation: the variance grows by T^2 a step",
        CURRENT,
        float(growth),
        "holds" if abs(growth - 1) < 2e-3 else "fails",
        published=1,
        error=1e-3,
        note="growth of the variance over n T^2, 100 steps",
    )


def _transport(members: int) -> tuple[Claim, Any]:
    import jax
    import numpy as np
    import xarray
    from scipy.stats import truncnorm

    import thalweg as tw

    l0, l1 = tw.systems.pit_losses()
    descent = tw.Process(lambda W, w: W - 0.02 * jax.grad(lambda x: (l0(x) + l1(x)) / 2)(W))
    law = truncnorm(-0.5 / 0.175, np.inf, loc=0.5, scale=0.175)
    # Nodes at equal distance in W, weighted by the density: the few beyond the lip weigh 5.8e-5, and decide.
    start = np.linspace(0.0, 1.6, 100_001)
    weight = law.pdf(start) / law.pdf(start).sum()
    cloud = tw.ensemble(
        descent, np.array(law.rvs(1000, random_state=0)), 400, record=lambda W, w, after: after, every=100
    )
    nodes = tw.ensemble(descent, start, 400, record=lambda W, w, after: after, every=100)
    rows = {}
    for name, paths, masses in (
        ("exact", np.asarray(nodes.record), weight),
        ("particles", np.asarray(cloud.record), np.full(1000, 1e-3)),
    ):
        mean = masses @ paths
        rows[name] = (mean, np.sqrt(masses @ (paths - mean) ** 2))
    beyond = float(law.sf(_points().lip))
    when = [100, 200, 300, 400]
    data = xarray.Dataset(
        {
            f"{name}_{moment}": ("step", values[i])
            for name, values in rows.items()
            for i, moment in enumerate(("mean", "deviation"))
        },
        coords={"step": when},
    )
    mean, deviation = rows["exact"][0][-1], rows["exact"][1][-1]
    claim = Claim(
        "F15",
        "transport without noise matches 1000 particles in the mean; the gap in the deviation is truncation",
        CURRENT,
        [float(mean), float(deviation)],
        "holds in kind",
        error=[1e-6, 1e-5],
        note=f"mean and deviation at step 400 (at step 100: {rows['exact'][0][0]:.6f}, {rows['exact'][1][0]:.6f}). "
        "The floor "
        f"of the deviation is real: {beyond:.2g} of the mass starts beyond the lip and ends at 2, which 1000 particles "
        f"miss ({rows['particles'][1][-1]:.2g})",
    )
    return claim, data


def _sub_steps(cells: int) -> Claim:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import thalweg as tw

    class SubSteps(eqx.Module):  # the count is a leaf: all of them are compiled once
        step: Any
        count: Any

        def __call__(self, W: Any, w: Any) -> Any:
            return jax.lax.fori_loop(0, self.count, lambda _, x: self.step(x, w), W)

    rate, start = 0.02, _points().bottom
    found = {}
    for count in (1, 2, 16):
        inner = tw.systems.pit(rate / count)
        step = SubSteps(inner.step, jnp.asarray(count))
        process = inner if count == 1 else tw.Process(step, inner.noise, inner.init)
        held = tw.flow.transfer_operator(process, tw.flow.Grid(0.8, 1.4, cells))
        found[count] = (
            held.escape_probability(start, _escaped, 100),
            held.mean_first_passage_time(start, _escaped),
        )
    return Claim(
        "F19",
        "sub-steps (the drawn datum held for m steps of T/m) would remedy high learning rates",
        CURRENT,
        [round(p.value, 4) for p, _ in found.values()],
        "fails",
        error=[p.error for p, _ in found.values()],
        note="probability to escape within 100 steps at learning rate 0.02 for m = 1, 2, 16: another process, with "
        "mean escape "
        f"times {', '.join(f'{m.value:.0f}' for _, m in found.values())} (the diffusion of the first says 558)",
    )


def _stretched() -> Claim:
    import thalweg as tw

    rate, points = 0.004, _points()
    narrow = tw.systems.pit(rate)
    # W' = W - T d/dW l(W/2): in V = W/2 a step of T/4.
    wide = tw.Process(lambda W, w: 2 * tw.systems.pit(rate / 4).step(W / 2, w), narrow.noise, narrow.init)
    a = tw.flow.quasi_potential(narrow, points.bottom, points.lip)
    b = tw.flow.quasi_potential(wide, 2 * points.bottom, 2 * points.lip)
    coin = float(b.value.value / a.value.value)
    ito = float(b.diffusion.value.value / a.diffusion.value.value)
    return Claim(
        "F20",
        "a minimum stretched by 2 has an exponent 4 times as large, and a density e^4 times as large",
        CURRENT,
        [round(coin, 4), round(ito, 4)],
        "holds in kind" if abs(coin - 4) < 0.01 and abs(ito - 4) < 0.01 else "fails",
        published=4,
        error=1e-4,
        note="ratio of the quasi-potentials, of the coin and of its diffusion. The ratio of the densities is then "
        "e^(3 A), "
        "A being the exponent of the narrow one",
    )


# Densities over time ------------------------------------------------------------------------------


def _densities(members: int) -> Any:
    """Densities over time of linear noise at 0.1 and of the pit at 0.006, three ways."""
    import numpy as np
    import xarray

    import thalweg as tw

    cases = {
        "linear noise, T = 0.1": (tw.systems.linear_noise(0.1), tw.flow.Grid(1.2, 2.8, 400), 1.7, 0.03, [3, 10, 40]),
        "pit, T = 0.006": (tw.systems.pit(0.006), tw.flow.Grid(0.96, 1.06, 400), 1.02, 0.003, [1, 3, 20]),
    }
    found = {}
    for name, (process, grid, centre, width, when) in cases.items():
        start = grid.density(lambda W, centre=centre, width=width: np.exp(-((W - centre) ** 2) / (2 * width**2)))
        ways = {
            "operator": tw.flow.transfer_operator(process, grid),
            "diffusion": tw.flow.fokker_planck(process, grid, compare=False),
            "monte_carlo": tw.flow.monte_carlo(process, members, key=4, space=grid),
        }
        values = np.stack([[way.push(start, n).value for n in when] for way in ways.values()])
        found[name] = xarray.Dataset(
            {"density": (("way", "step", "W"), values)},
            coords={"way": list(ways), "step": when, "W": grid.centers[0]},
            attrs={"members": members},
        )
    return found


# Pictures -----------------------------------------------------------------------------------------


def _draw_times(times: Any) -> Any:
    import thalweg as tw

    axes = tw.plot.escape_curve(times.operator, times.operator_error, label="operator (exact)")
    tw.plot.escape_curve(times.diffusion, axes=axes, label="diffusion (Ito)")
    return axes


def _draw_densities(densities: Any) -> Any:
    import matplotlib.pyplot as plt

    import thalweg as tw

    with tw.plot.style():
        figure, rows = plt.subplots(2, 3, figsize=(11, 6.4), sharex="row")
        for panels, (name, case) in zip(rows, densities.items(), strict=True):
            for axes, step in zip(panels, case.step.values, strict=True):
                one = case.density.sel(step=step)
                counted = one.sel(way="monte_carlo").coarsen(W=8).mean()
                axes.bar(
                    counted.W, counted, width=float(counted.W[1] - counted.W[0]), color="0.82", label="Monte Carlo"
                )
                axes.plot(one.W, one.sel(way="operator"), linestyle="-", label="operator")
                axes.plot(one.W, one.sel(way="diffusion"), linestyle="--", label="diffusion")
                axes.set(title=f"{name}, step {step}", xlabel="W", ylim=(0, 1.5 * float(counted.max())))
            panels[0].set_ylabel("density")
        rows[0, 0].legend(frameon=False)
    return figure
