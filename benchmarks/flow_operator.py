"""Where probability goes: operators and diffusions against peers that can answer at all, and against Monte Carlo.

fplanck and py-pde solve Fokker-Planck equations; deeptime estimates Markov models from trajectories. None takes a
learner's update map.
"""

import resource
import sys

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from _timing import alternate, peer, show, target

POINTS = tw.systems.pit_points()
EXACT = 0.497201  # P(escape within 100 steps) at learning rate 0.02; MFPT 141.633(4)


def escaped(W):
    return W >= POINTS.lip_of_l1  # noqa: SIM300


def ornstein_uhlenbeck():
    """dX = -X dt + sqrt(0.5) dB from N(1, 0.04), t = 1, on [-3, 3]: L1 distance from the closed form.

    fplanck and py-pde on 200 cells; thalweg on 240, where its error is no larger than theirs.
    """

    def normal(x, mean, variance):
        return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    decay = np.exp(-1.0)

    def begin(x):
        density = normal(x, 1.0, 0.04)
        return density / (density.sum() * (x[1] - x[0]))

    grid = tw.flow.Grid(-3.0, 3.0, 240)
    diffusion = tw.flow.fokker_planck((lambda x: -x, lambda x: 0.5), grid)
    ours = begin(grid.centers[0])
    ways = {"thalweg (with error bar)": lambda: diffusion.push(ours, 1).value}
    theirs = tw.flow.Grid(-3.0, 3.0, 200)
    x, width = theirs.centers[0], theirs.cell_volume

    if peer("fplanck"):
        if not hasattr(np, "product"):  # what fplanck still calls by its old name
            setattr(np, "product", np.prod)  # noqa: B010
        from fplanck import boundary, fokker_planck
        from scipy.constants import k

        made = fokker_planck(
            temperature=0.25 / k,
            drag=1.0,
            extent=6.0,
            resolution=0.03,
            boundary=boundary.reflecting,
            force=lambda x: -x,
        )
        ways["fplanck"] = lambda: made.propagate(lambda x: np.exp(-((x - 1.0) ** 2) / 0.08), 1.0) / width

    if pde := peer("pde"):
        space = pde.CartesianGrid([[-3, 3]], 200)
        equation = pde.PDE({"c": "d_dx(x * c) + 0.25 * laplace(c)"}, bc={"value": 0})
        field = pde.ScalarField(space, begin(x))
        ways["py-pde"] = lambda: equation.solve(field, 1.0, solver="scipy", backend="numpy", tracker=None).data

    def error(density):
        cells = tw.flow.Grid(-3.0, 3.0, len(density))
        end = normal(cells.centers[0], decay, 0.04 * decay**2 + 0.25 * (1 - decay**2))
        return float(np.abs(density - end).sum() * cells.cell_volume)

    errors = {name: error(np.asarray(way())) for name, way in ways.items()}
    times = alternate(ways, turns=9)
    show("Ornstein and Uhlenbeck, density at t = 1", times)
    for name, error in errors.items():
        print(f"  L1 error of {name}: {error:.2g}")
    rivals = [name for name in ways if not name.startswith("thalweg")]
    if rivals:
        fastest = min(rivals, key=times.median)
        target(f"{fastest} / thalweg", times.ratio(fastest, "thalweg (with error bar)"), least=10)
        target(
            "L1 error, thalweg / best peer", errors["thalweg (with error bar)"] / min(errors[r] for r in rivals), most=1
        )


def multiplicative_noise():
    """dX = -(X - 2) dt + sqrt(T) s X dB (linear noise at T = 0.1): mean and variance at rest, in the Ito reading."""
    grid = tw.flow.Grid(1.2, 2.8, 400)
    rate, s = 0.1, 0.2
    process = tw.systems.linear_noise(rate, s)

    def ours():
        return tw.flow.fokker_planck(process, grid, compare=False).stationary_density().value

    ways = {"thalweg": ours}
    if pde := peer("pde"):
        space = pde.CartesianGrid([[1.2, 2.8]], 100)
        noise = rate**2 * s**2 / 2
        equation = pde.PDE({"c": f"d_dx({rate} * (x - 2) * c) + {noise} * laplace(x**2 * c)"}, bc={"value": 0})
        field = pde.ScalarField.from_expression(space, "exp(-(x - 2)**2 / 0.02)")
        ways["py-pde"] = lambda: equation.solve(field, 200.0, solver="scipy", backend="numpy", tracker=None).data
    for name, way in ways.items():
        density = np.asarray(way())
        points = np.linspace(1.2, 2.8, len(density) + 1)
        centers = (points[1:] + points[:-1]) / 2
        mass = density / density.sum()
        mean = mass @ centers
        print(f"  {name}: mean {mean:.6f} (2), variance {mass @ (centers - mean) ** 2:.6f} (0.0080160)")
    show("Linear noise, density at rest", alternate(ways, turns=3))


def first_passage():
    """The pit at 0.02: P(escape within 100 steps) and MFPT, at equal error."""
    process, grid = tw.systems.pit(0.02), tw.flow.Grid(0.5, 1.5, 65_536)
    small = tw.flow.Grid(0.8, 1.4, 2048)
    members = 100_000

    def operator():
        return tw.flow.transfer_operator(process, grid).escape_probability(POINTS.bottom, escaped, 100).value

    def operator_small():
        return tw.flow.transfer_operator(process, small).escape_probability(POINTS.bottom, escaped, 100).value

    def by_numpy():
        random = np.random.default_rng(0)
        W, arrived = np.full(members, POINTS.bottom), np.zeros(members, bool)
        for _ in range(100):
            wide = 2 * (W - 2) * np.exp(-((W - 2) ** 2))
            narrow = 200 * (W - 1) * np.exp(-100 * (W - 1) ** 2)
            W = np.where(arrived, W, W - 0.02 * (wide + random.integers(0, 2, members) * narrow))
            arrived |= W >= POINTS.lip_of_l1  # noqa: SIM300
        return arrived.mean()

    times = alternate({"operator": operator, "operator, 2048 cells": operator_small, "NumPy Monte Carlo": by_numpy}, 3)
    show("P(escape within 100 steps), pit at 0.02", times)
    fine, coarse = operator(), operator_small()
    sampling = np.sqrt(EXACT * (1 - EXACT) / members)
    print(f"  operator {fine:.7f}, with 2048 cells {coarse:.6f}, Monte Carlo {by_numpy():.4f} +- {sampling:.4f}")
    target("seconds for a relative error of 1e-5, warm", times.median("operator"), most=1.0)
    members_at_equal = (sampling / max(abs(coarse - EXACT), 2e-6)) ** 2
    print(
        f"  2048 cells are off by {abs(coarse - EXACT):.2g}: Monte Carlo needs {members_at_equal:.0f} times the members"
    )
    ratio = times.ratio("NumPy Monte Carlo", "operator, 2048 cells") * members_at_equal
    target("Monte Carlo / operator at equal error", ratio, least=10)

    if peer("deeptime"):
        from deeptime.markov import TransitionCountEstimator
        from deeptime.markov.msm import MaximumLikelihoodMSM

        cells = 200
        edges = np.linspace(0.85, POINTS.lip_of_l1, cells)

        def by_deeptime(seed=0):
            random, W, seen = np.random.default_rng(seed), np.full(500, POINTS.bottom), []
            for _ in range(1000):
                wide = 2 * (W - 2) * np.exp(-((W - 2) ** 2))
                narrow = 200 * (W - 1) * np.exp(-100 * (W - 1) ** 2)
                seen.append(np.digitize(W, edges))
                back = seen[-1] == cells
                W = np.where(back, POINTS.bottom, W - 0.02 * (wide + random.integers(0, 2, len(W)) * narrow))
            paths = list(np.array(seen).T)
            counts = TransitionCountEstimator(lagtime=1, count_mode="sliding").fit_fetch(paths).submodel_largest()
            model = MaximumLikelihoodMSM(reversible=False).fit_fetch(counts)
            symbols = list(model.count_model.state_symbols)
            return model.mfpt(symbols.index(int(np.digitize(POINTS.bottom, edges))), symbols.index(cells))

        def ours():
            return tw.flow.transfer_operator(process, small).mean_first_passage_time(POINTS.bottom, escaped).value

        found = [by_deeptime(seed) for seed in range(5)]
        print(
            f"  MFPT (141.633): operator {ours():.3f}, deeptime from 500,000 steps {np.mean(found):.1f}, each +- ",
            end="",
        )
        print(f"{np.std(found, ddof=1):.1f}")
        times = alternate({"operator": ours, "deeptime": by_deeptime}, turns=3)
        show("MFPT of the pit at 0.02", times)
        longer = (np.std(found, ddof=1) / abs(ours() - 141.633)) ** 2
        target("deeptime / operator at equal error", times.ratio("deeptime", "operator") * longer, least=10)


def in_the_plane():
    """A 257 x 257 operator of the two wells, built and asked; Monte Carlo beside it."""
    process, grid = tw.systems.two_wells("wide", 0.7), tw.flow.Grid([-2.6, -1.9], [2.6, 1.9], [257, 257])

    def build():
        return tw.flow.transfer_operator(process, grid).matrix

    def ask():
        return tw.flow.transfer_operator(process, grid).stationary_density()

    times = alternate({"build": build, "build and ask for the density at rest": ask}, turns=3)
    show("Two wells on 257 x 257 cells", times)
    target("seconds to build, compiling included", times.first["build"], most=10)


def in_space():
    """64^3 cells and eight outcomes: memory."""
    process = tw.Process(lambda x, w: 0.8 * x + 0.2 * (2.0 * w - 1.0), tw.noise.Choice(2, shape=(3,)))
    grid = tw.flow.Grid([-1.2] * 3, [1.2] * 3, [64] * 3)
    operator = tw.flow.transfer_operator(process, grid)
    pushed = operator.push(np.full(grid.shape, 1 / (grid.size * grid.cell_volume)), 10)
    assert abs(pushed.value.sum() * grid.cell_volume - 1) < 1e-12
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    print("\n64^3 cells, eight outcomes, ten steps")
    target("largest memory of the process, GiB", peak, most=2.0)


if __name__ == "__main__":
    jnp.zeros(1)
    in_space()  # first, since its memory is what is looked at
    ornstein_uhlenbeck()
    multiplicative_noise()
    first_passage()
    in_the_plane()
