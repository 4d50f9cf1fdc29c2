"""When does SGD leave a minimum? The trace rule tr H <= 2 / eta against exact mean-square stability."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg.studies._study import Claim, Outcome, Picture

ROOM = "flow"
SECONDS = 20
HEADLINE = False
SOURCE = "the rule of thumb that SGD at batch 1 is stable where tr H <= 2 / learning rate"


def run(size: str = "quick") -> Outcome:
    """eta* tr H for orthogonal, Gaussian and full-rank data, a simulation on both sides, and a network on digits."""
    stable = tw.flow.largest_stable_learning_rate
    orthogonal = stable(factors=np.eye(5))
    three = stable(factors=np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    rng = np.random.default_rng(0)
    gaussian = np.array(
        [_product(stable(factors=rng.normal(size=(12, 4)))) for _ in range(20 if size == "quick" else 200)]
    )
    whole = stable(hessians=np.stack([np.eye(4)] * 3))
    sides = _simulated(float(three))
    network = _digits(100 if size == "quick" else 500, 300 if size == "quick" else 2000)
    batches = [b for b in (1, 2, 4, 8, 16, 64) if b <= network["count"]]
    curves = {
        order: [float(stable(factors=network["factors"], batch_size=b, order=order, tol=1e-6)) for b in batches]
        for order in ("replacement", "subset")
    }
    at_one = stable(factors=network["factors"], tol=1e-6)
    momentum = float(stable(factors=network["factors"][:24], momentum=0.9, tol=1e-6)) / float(
        stable(factors=network["factors"][:24], tol=1e-6)
    )

    claims = [
        Claim(
            "F23",
            "tr H <= 2 / eta decides whether SGD at batch 1 is stable",
            SOURCE,
            float(np.mean(gaussian)),
            "fails",
            published=2,
            error=float(np.std(gaussian, ddof=1) / np.sqrt(len(gaussian))),
            note=f"eta* tr H: {_product(orthogonal):.4f} for orthogonal data, {_product(three):.4f} for three data in "
            f"the plane, {np.mean(gaussian):.2f} on average for 12 Gaussian data in R^4, {_product(whole):.1f} for "
            "H_i = I in R^4. For one number a datum the rule is necessary, not sufficient; for several it is neither",
        ),
        Claim(
            "F23.simulated",
            "the variance grows just above eta* and shrinks just below",
            "this library",
            f"a step {tw.Estimate(*sides[0.9][:2]).short()} at 0.9 eta*, {tw.Estimate(*sides[1.1][:2]).short()} at "
            f"1.1 eta*; predicted {sides[0.9][2]:.4f} and {sides[1.1][2]:.4f}",
            "holds" if all(abs(m - p) < 4 * e for m, e, p in sides.values()) else "fails",
            note="three data in the plane, batch 1, growth of E |w|^2",
        ),
        Claim(
            "F23.digits",
            "tr H = 2 / eta is where a network on digits loses stability",
            SOURCE,
            _product(at_one),
            "fails",
            published=2,
            error=float(at_one.error) * at_one.details["trace"],
            note=f"Gauss-Newton, {network['count']} digits, {network['parameters']} parameters, "
            f"rank {at_one.details['rank']}: eta* = {float(at_one):.4g}; full batch would "
            f"allow {at_one.details['bounds']['largest_eigenvalue']:.4g}; momentum 0.9 "
            f"multiplies eta* by {momentum:.3f} (24 digits)",
        ),
    ]
    return Outcome(
        f"SGD at batch 1 loses mean-square stability at eta* tr H = 2 for orthogonal data, but at "
        f"{np.mean(gaussian):.2f} for Gaussian data, at {_product(at_one):.2f} for a network on digits, and at "
        f"{_product(whole):.0f} for data of full rank in four dimensions: the trace decides nothing by itself. "
        "The exact threshold is the top of one eigenproblem in the span of the data.",
        claims,
        {"products": _products(gaussian, orthogonal, three, at_one), "batches": _batches(batches, curves, at_one)},
        {"batches": _data(batches, curves)},
    )


def _product(rate) -> float:
    return float(rate) * rate.details["trace"]


def _square(w, x):
    return 0.5 * (x @ w) ** 2


def _simulated(threshold: float) -> dict[float, tuple[float, float, float]]:
    """Growth of E |w|^2 a step, its error, and the predicted radius, at 0.9 and 1.1 of the threshold."""
    x = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    found = {}
    for side in (0.9, 1.1):
        process = tw.processes.sgd(_square, x, side * threshold)
        radius = tw.flow.mean_square_stability(process, jnp.zeros(2))
        start = np.random.default_rng(1).multivariate_normal(np.zeros(2), radius.details["mode"], 20_000)
        end = tw.ensemble(process, process.init(jnp.asarray(start)), 5, key=2).state.params
        squares, before = np.sum(np.asarray(end) ** 2, axis=1), np.mean(np.sum(start**2, axis=1))
        growth = (np.mean(squares) / before) ** (1 / 5)
        error = growth / 5 * np.std(squares) / np.mean(squares) / np.sqrt(len(squares))
        found[side] = (float(growth), float(error), float(radius))
    return found


def _digits(count: int, steps: int) -> dict:
    """A small network that tells 0 from 1, trained; Gauss-Newton factors of its squared loss."""
    data = tw.systems.digits(keep=(0, 1))
    x, y = jnp.asarray(data.images[:count]), jnp.asarray(2.0 * data.labels[:count] - 1)
    model = tw.systems.perceptron((64, 20, 1), "tanh")
    params = model.init(0)

    def output(p, z):
        return model.hidden(p, z[0]) @ p["W2"][:, 0] + p["b2"][0]

    def loss(p, z):
        return 0.5 * (output(p, z) - z[1]) ** 2

    trainer = tw.processes.sgd(loss, (x, y), 0.01, batch_size=8)
    params = tw.simulate(trainer, trainer.init(params), steps, key=0).state.params
    # For the squared loss of one output, the Gauss-Newton factor of a datum is the gradient of its output.
    slopes = jax.vmap(lambda x: ravel_pytree(jax.grad(output)(params, (x,)))[0])(x)
    return {"factors": np.asarray(slopes), "count": len(x), "parameters": sum(p.size for p in jax.tree.leaves(params))}


def _data(batches, curves):
    import xarray

    return xarray.Dataset(
        {
            order: ("batch", values, {"long_name": f"largest stable learning rate, {order}"})
            for order, values in curves.items()
        },
        {"batch": batches},
    )


def _products(gaussian, orthogonal, three, network):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    axes.hist(gaussian, bins=12, color="#9fb8d0", label="12 Gaussian data in R^4")
    marks = (
        (orthogonal, "five orthogonal data", "-"),
        (three, "three data in the plane", "--"),
        (network, "digits", ":"),
    )
    for rate, label, style in marks:
        axes.axvline(_product(rate), color="#1b3a5c", ls=style, label=label)
    axes.axvline(2, color="#c8553d", lw=3, alpha=0.4, label="the rule: 2")
    axes.set(xlabel=r"$\eta^*\,\mathrm{tr}\,H$ where stability is lost", ylabel="random data sets", xlim=(0, 2.3))
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return Picture(figure, "Where SGD at batch 1 loses mean-square stability. The trace rule says 2 for all of them.")


def _batches(batches, curves, at_one):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    axes.loglog(batches, curves["replacement"], "o-", color="#1b3a5c", label="with replacement")
    axes.loglog(batches, curves["subset"], "s--", color="#3c8d5a", label="without replacement")
    axes.axhline(at_one.details["bounds"]["largest_eigenvalue"], color="black", lw=0.8, label="full batch")
    axes.axhline(at_one.details["bounds"]["trace"], color="#c8553d", ls=":", label="2 / tr H")
    axes.set(xlabel="batch size", ylabel="largest stable learning rate")
    axes.legend(frameon=False)
    return Picture(
        figure,
        "A network on digits: the exact threshold against the batch size, between the batch-1 value and that of full-"
        "batch descent.",
    )
