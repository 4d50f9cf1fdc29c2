"""SGD on real handwriting: how far an ensemble spreads, and what its noise is made of.

Our own claims, on data that ship with scikit-learn: no post is judged here. Softmax classifiers (650
parameters) learn 1,200 digits by minibatch SGD; 597 digits are held out. Members that share their noise are the
control for members with noise of their own.
"""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "flow"
SECONDS = 12
SOURCE = "thalweg (no published figure)"


def run(
    size: str = "quick", *, members: int = 12, steps: int = 2000, learning_rate: float = 0.5, batch_size: int = 16
) -> Outcome:
    """Two ensembles from the same scattered starts: one with shared, one with independent noise."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import xarray

    import thalweg as tw

    if size == "full":
        members, steps = 4 * members, 10 * steps
    every = max(1, steps // 60)
    train, test = tw.systems.digits().split(2 / 3, seed=1)
    x, y = jnp.asarray(train.images), jnp.asarray(train.one_hot())
    held_x, held_y = jnp.asarray(test.images), jnp.asarray(test.one_hot())
    model = tw.systems.softmax_classifier(64, 10)
    learner = tw.processes.sgd(model.loss, (x, y), learning_rate, batch_size=batch_size, order="shuffle")

    def start(m: int) -> Any:
        centre, scatter = model.init(0), model.init(1000 + m)
        return learner.init(jax.tree.map(lambda a, b: a + 0.1 * b, centre, scatter))

    def look(state: Any, w: Any, after: Any) -> dict[str, Any]:
        losses = jax.vmap(lambda a, b: model.loss(after.params, (a, b)))(held_x, held_y)
        return {
            "loss": jnp.mean(losses),
            "accuracy": model.accuracy(after.params, held_x, held_y),
            "params": jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(after.params)]),
        }

    starts = tw.stack([start(m) for m in range(members)])
    runs = {
        noise: tw.ensemble(learner, starts, steps, key=7, noise=noise, record=look, every=every)
        for noise in ("independent", "shared")
    }
    kinds, when = list(runs), every * np.arange(1, 1 + steps // every)
    spread = {kind: _spread(r.record["params"]) for kind, r in runs.items()}
    data = xarray.Dataset(
        {
            name: (("noise", "member", "step"), np.stack([runs[k].record[name] for k in kinds]), {"units": unit})
            for name, unit in (("loss", "nats"), ("accuracy", "1"))
        }
        | {"spread": (("noise", "step"), np.stack([spread[k] for k in kinds]), {"units": "1"})},
        coords={"noise": kinds, "step": when},
    )
    watched = runs["independent"].record["params"][:4]
    moments = _gradient_moments(model, watched, x, y, when)
    began = _flat(starts.params)[:, None]
    start_spread = float(_spread(began)[0])

    accuracy = _mean_over_members(runs["independent"].record["accuracy"][:, -1])
    loss = _mean_over_members(runs["independent"].record["loss"][:, -1])
    ends = {kind: runs[kind].record["params"][:, -1:] for kind in kinds}
    together = _jackknife(lambda m: _spread(ends["shared"][m])[0] / _spread(began[m])[0], members)
    apart = _jackknife(lambda m: _spread(ends["independent"][m])[0] / _spread(ends["shared"][m])[0], members)
    ratio = (moments.noise / moments.drift**2).values
    growth = _mean_over_members(np.log10(ratio[:, -1] / ratio[:, 0]))
    first, last = ratio.mean(axis=0)[[0, -1]]
    claims = [
        Claim(
            "D1",
            "a linear classifier of the 8 x 8 digits reaches 95% accuracy on held-out images",
            SOURCE,
            accuracy,
            "holds" if accuracy.value > 0.95 else "fails",
            published=0.95,
            note=f"mean over {members} members, error over members; held-out loss {loss} nats",
        ),
        Claim(
            "D2",
            "shared noise draws members together: the spread of their parameters shrinks",
            SOURCE,
            together,
            _beyond(together, 1, below=True),
            published="< 1",
            note=f"spread at the end over spread at the start, {steps} steps, error by jackknife over members; the "
            "loss is convex in these parameters",
        ),
        Claim(
            "D3",
            "independent noise keeps members apart: their spread exceeds that under shared noise",
            SOURCE,
            apart,
            _beyond(apart, 1),
            published="> 1",
            note="ratio of the two spreads at the end, from the same starts, error by jackknife over members",
        ),
        Claim(
            "D4",
            "along training the noise of one gradient gains on its mean (decades of trace over squared mean)",
            SOURCE,
            growth,
            _beyond(growth, 0),
            published="> 0",
            note=f"batch size 1, mean over {len(watched)} members; the ratio goes from {first:.3g} at step "
            f"{when[0]} to {last:.3g} at step {when[-1]}",
        ),
    ]
    return Outcome(
        summary=(
            f"Held-out accuracy {accuracy} after {steps} steps. Members with shared noise end "
            f"{together.value:.2f} times as far apart as they began, members with noise of their own {apart.value:.2f} "
            f"times that. One datum's gradient is noise above all, and more so as training goes on: the trace of its "
            f"covariance grows from {first:.0f} to {last:.0f} times the squared mean."
        ),
        claims=claims,
        figures=_figures(data, moments, when, start_spread),
        data={"ensembles": data, "gradient": moments},
    )


def _flat(params: Any) -> Any:
    import jax
    import numpy as np

    leaves = jax.tree.leaves(params)
    return np.concatenate([np.asarray(leaf).reshape(len(leaf), -1) for leaf in leaves], axis=1)


def _spread(params: Any) -> Any:
    """Root mean square distance of the members from their mean; params: (members, times, numbers)."""
    import numpy as np

    away = params - params.mean(axis=0)
    return np.sqrt((away**2).sum(axis=2).sum(axis=0) / (len(params) - 1))


def _mean_over_members(values: Any) -> Any:
    import numpy as np

    from thalweg import Estimate

    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def _jackknife(f: Any, members: int) -> Any:
    """A statistic of the members with its jackknife error."""
    import numpy as np

    from thalweg import Estimate

    everyone = np.arange(members)
    without = np.array([f(np.delete(everyone, m)) for m in everyone])
    error = np.sqrt((members - 1) / members * ((without - without.mean()) ** 2).sum())
    return Estimate(float(f(everyone)), float(error))


def _beyond(estimate: Any, bound: float, below: bool = False) -> str:
    """The verdict on `estimate > bound` (or `<`): decided where it lies three standard errors away."""
    if abs(estimate.value - bound) < 3 * estimate.error:
        return "not decidable here"
    return "holds" if (estimate.value < bound) == below else "fails"


def _gradient_moments(model: Any, params: Any, x: Any, y: Any, when: Any) -> Any:
    """Size of the mean gradient, and trace of the covariance of one datum's, along the training of some members."""
    import jax
    import jax.numpy as jnp
    import xarray
    from jax.flatten_util import ravel_pytree

    unravel = ravel_pytree(model.init(0))[1]

    def moments(flat):
        gradient = lambda a, b: ravel_pytree(jax.grad(model.loss)(unravel(flat), (a, b)))[0]  # noqa: E731
        each = jax.vmap(gradient)(x, y)
        return jnp.linalg.norm(each.mean(axis=0)), jnp.sum(each.var(axis=0))

    rows = jnp.asarray(params).reshape(-1, params.shape[-1])
    drift, noise = (v.reshape(params.shape[:2]) for v in jax.jit(lambda rows: jax.lax.map(moments, rows))(rows))
    dims = ("member", "step")
    return xarray.Dataset({"drift": (dims, drift), "noise": (dims, noise)}, coords={"step": when})


def _figures(data: Any, moments: Any, when: Any, start_spread: float) -> dict[str, Picture]:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        learning, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
        for kind in data.noise.values:
            for axes, name in ((left, "loss"), (right, "accuracy")):
                values = data[name].sel(noise=kind)
                mean, error = values.mean("member"), values.std("member", ddof=1) / np.sqrt(values.sizes["member"])
                (line,) = axes.plot(when, mean, label=f"{kind} noise")
                axes.fill_between(when, mean - 2 * error, mean + 2 * error, alpha=0.25, color=line.get_color())
        left.set(xlabel="step", ylabel="held-out loss [nats]", yscale="log")
        right.set(xlabel="step", ylabel="held-out accuracy")
        left.legend()

        spreading, axes = plt.subplots()
        for kind in data.noise.values:
            axes.plot(np.append(0, when), np.append(start_spread, data.spread.sel(noise=kind)), label=f"{kind} noise")
        axes.set(xlabel="step", ylabel="spread of the parameters")
        axes.legend()

        noise, axes = plt.subplots()
        axes.plot(when, moments.drift.mean("member"), label="size of the mean gradient")
        axes.plot(when, np.sqrt(moments.noise.mean("member")), label="noise of one gradient (root of the trace)")
        axes.set(xlabel="step", ylabel="gradient", xscale="log", yscale="log")
        axes.legend()
    captions = {
        "learning": "Held-out loss and accuracy, mean over members with a band of two standard errors.",
        "spread": "How far the members' parameters lie apart, with noise of their own and with shared noise.",
        "gradient": "Along training the mean gradient fades faster than the noise of one datum's.",
    }
    drawn = {"learning": learning, "spread": spreading, "gradient": noise}
    return {name: Picture(figure, captions[name]) for name, figure in drawn.items()}
