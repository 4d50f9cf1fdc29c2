"""A network in training: what steers its predictions? Layers, an optimizer's memory, and single data.

The step that the posts on optimization end with and leave open: Op of training itself. A network (64-16-10, tanh)
learns the digits by SGD; its first layer is perturbed at the start, in random directions; what comes of that in the
predictions is compared with the updates free and with them held at the values of the unperturbed run. Controls: no
agent and no learning must give Op = 0 exactly; error bars are over seeds, as one direction decides nothing.
"""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "steering"
SECONDS = 20
HEADLINE = True
PART = "J. Bostock, Defining Optimization in a Deeper Way, Part 4"
OURS = "thalweg (no published figure)"
LAYERS = {"first layer": ("update.W1", "update.b1"), "second layer": ("update.W2", "update.b2")}


def run(
    size: str = "quick",
    *,
    seeds: int = 4,
    directions: int = 3,
    steps: int = 1000,
    learning_rate: float = 0.2,
    batch_size: int = 32,
) -> Outcome:
    """Op over training with all updates held, one layer's held, or the momentum held; and of each datum."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import xarray

    import thalweg as tw

    if size == "full":
        seeds, directions = 4 * seeds, 3 * directions
    train, test = tw.systems.digits().split(0.8, seed=0)
    model = tw.systems.perceptron((64, 16, 10), activation="tanh", loss="xent", bias="zero")
    x, y = jnp.asarray(train.images), jnp.asarray(train.one_hot())
    shown = jnp.asarray(test.images[:40])
    held_out = jnp.asarray(test.images), jnp.asarray(test.one_hot())

    # Compiling costs more than running here, so that what differs by a number is one program: which reading, and
    # which optimizer (plain SGD is momentum of 0, to the bit).
    class Reading(eqx.Module):
        as_probabilities: Any

        def __call__(self, state):
            z = model.predict(state.params, shown)
            return jnp.where(self.as_probabilities, jax.nn.softmax(z, axis=1), z - z.mean(axis=1, keepdims=True))

    class Momentum(eqx.Module):
        rate: Any
        decay: Any

        def init(self, params):
            return jax.tree.map(jnp.zeros_like, params)

        def update(self, gradient, memory, params):
            memory = jax.tree.map(lambda g, m: g + self.decay * m, gradient, memory)
            return jax.tree.map(lambda m: -self.rate * m, memory), memory

    logits, probabilities = Reading(jnp.asarray(False)), Reading(jnp.asarray(True))

    def learner(rate, decay=0.0):
        optimizer = Momentum(jnp.asarray(rate, float), jnp.asarray(decay, float))
        return tw.processes.sgd(model.loss, (x, y), optimizer, batch_size=batch_size)

    @eqx.filter_jit
    def of_seed(process, agent, target, read, params, vs, key):
        def along(v):
            source = (lambda s: s.params["W1"], v)
            return tw.steering.op(process, process.init(params), steps, agent, source, target, key, read=read).op

        return jax.vmap(along)(vs)

    def steered(process, agent, target, read="end", seeds=seeds):
        """Op, of shape (seed, direction), with a last axis of steps where every one is read."""
        found = []
        for seed in range(seeds):
            vs = jax.random.normal(jax.random.key(1000 + seed), (directions, 64, 16))
            vs = vs / jnp.linalg.norm(vs, axis=(1, 2), keepdims=True)
            found.append(of_seed(process, agent, target, read, model.init(seed), vs, jax.random.key(seed)))
        return np.array(found)

    plain = learner(learning_rate)
    targets = {"logits": logits, "probabilities": probabilities}
    ops = {name: steered(plain, "update", target, "every") for name, target in targets.items()}
    by_layer = {name: steered(plain, agent, probabilities) for name, agent in LAYERS.items()}
    heavy = learner(learning_rate / 10, 0.9)
    memory = {
        "all updates": steered(heavy, "update", probabilities, "every")[:, :, -1],
        "momentum": steered(heavy, lambda s: s.opt_state, probabilities),
    }
    resting = learner(0.0)
    controls = {"no learning": float(np.max(np.abs(steered(resting, "update", probabilities, "every", seeds=1))))}
    if size == "full":
        controls["no agent"] = float(np.max(np.abs(steered(plain, (), probabilities))))
    ends = [tw.simulate(plain, plain.init(model.init(s)), steps, key=jax.random.key(s)).state for s in range(seeds)]
    accuracy = _over_seeds(np.array([float(model.accuracy(e.params, *held_out)) for e in ends])[:, None])

    weighted = tw.processes.sgd(model.loss, (x, y), learning_rate, batch_size, weights=jnp.ones(len(x)))
    data_steps = min(steps, 200)

    def held_out_loss(state):
        return jnp.mean(jax.vmap(lambda a, b: model.loss(state.params, (a, b)))(*held_out))

    datum = tw.steering.op(
        weighted,
        weighted.init(model.init(0)),
        data_steps,
        LAYERS["first layer"],
        lambda p: p.step.weights,
        held_out_loss,
        jax.random.key(0),
        mode="reverse",
    )
    of_data, flips = np.asarray(datum.op), float(np.mean(np.asarray(datum.sign) < 0))

    early, late = min(10, steps) - 1, steps - 1
    at = {(n, when): _over_seeds(ops[n][:, :, k]) for n in ops for when, k in (("early", early), ("late", late))}
    layers = {name: _over_seeds(op) for name, op in by_layer.items()}
    moving = {name: _over_seeds(op) for name, op in memory.items()}
    reached = np.isfinite(of_data)
    median = float(np.median(of_data[reached]))
    most = {name: op.max(axis=(0, 1))[[early, late]] for name, op in ops.items()}
    least = {name: op.min(axis=(0, 1))[[early, late]] for name, op in ops.items()}
    ranges = "; ".join(
        f"{name} {least[name][0]:+.2f}..{most[name][0]:+.2f} at {early + 1} steps, "
        f"{least[name][1]:+.2f}..{most[name][1]:+.2f} at {late + 1}"
        for name in ops
    )
    gap = _over_seeds(ops["probabilities"][:, :, late] - ops["logits"][:, :, late])
    layer_gap = _over_seeds(by_layer["second layer"] - by_layer["first layer"])
    memory_gap = _over_seeds(memory["momentum"] - memory["all updates"])

    claims = [
        Claim(
            "S23",
            "training is an optimizer: its updates undo what is done to the network",
            PART,
            at["probabilities", "late"],
            "not decidable here",
            "not done",
            None,
            f"one network and one set of data. All updates held, {seeds} seeds x {directions} directions of "
            f"W1: {ranges}. "
            f"It steers predictions more than logits (late gap {gap.value:.2f} +- {gap.error:.2f}). Held-out accuracy "
            f"{accuracy.value:.3f}. Largest |Op| of the controls: "
            + ", ".join(f"{name} {value:g}" for name, value in controls.items()),
            {"logits_late": at["logits", "late"].value, "logits_late_error": at["logits", "late"].error},
        ),
        Claim(
            "S25",
            "the layer that was hit and the layer above it steer the predictions alike",
            OURS,
            layer_gap,
            _alike(layer_gap),
            "no difference",
            None,
            "Op of the probabilities after training, "
            + "; ".join(f"{k} held {v.value:.2f} +- {v.error:.2f}" for k, v in layers.items())
            + f"; all held {at['probabilities', 'late'].value:.2f}: parts do not add up",
        ),
        Claim(
            "S26",
            "holding the memory of momentum holds the learning",
            OURS,
            moving["momentum"],
            _alike(memory_gap),
            f"as all updates: {moving['all updates'].value:.2f}",
            None,
            f"gap {memory_gap.value:.2f} +- {memory_gap.error:.2f}: the buffer carries the memory only, and "
            "with it held "
            "the gradients still act",
        ),
        Claim(
            "S27",
            "the first layer's learning carries no more and no less of a datum's effect than the rest",
            OURS,
            median,
            "not decidable here",
            0.0,
            None,
            f"one seed, {data_steps} steps, all {len(x)} data in one reverse pass: median Op on the held-out loss with "
            f"the first layer's updates held {median:+.2f}, middle half {np.quantile(of_data[reached], 0.25):+.2f} to "
            f"{np.quantile(of_data[reached], 0.75):+.2f}; the effect changes sign in {100 * flips:.0f}%; "
            f"{int(np.sum(~reached))} data were never drawn",
        ),
    ]
    data = xarray.Dataset(
        {
            "op": (("target", "seed", "direction", "step"), np.stack(list(ops.values())), {"units": "nat"}),
            "op_by_layer": (("layer", "seed", "direction"), np.stack(list(by_layer.values())), {"units": "nat"}),
            "op_of_datum": (("datum",), of_data, {"units": "nat"}),
        },
        coords={"target": list(ops), "layer": list(LAYERS), "step": np.arange(1, steps + 1)},
    )
    return Outcome(
        summary=(
            f"Training undoes a change to the first layer in what the network predicts: Op of the probabilities is "
            f"{at['probabilities', 'late'].value:.2f} +- {at['probabilities', 'late'].error:.2f} nats after "
            f"{steps} steps, a "
            f"factor of {np.exp(at['probabilities', 'late'].value):.1f}. In the logits it is "
            f"{at['logits', 'late'].value:.2f} +- {at['logits', 'late'].error:.2f}: the network is steered "
            "towards right "
            "answers, not back to where it was. Without learning Op is exactly 0."
        ),
        claims=claims,
        figures={
            "training": Picture(
                _draw_training(ops),
                "Op of all updates over training, for a change to the first layer: "
                "mean over directions and seeds, band of one standard error over seeds; thin lines are "
                "single directions.",
            ),
            "parts": Picture(
                _draw_parts(at["probabilities", "late"], layers, moving),
                "Which part steers: Op of the probabilities at the end with one part held. Error bars over seeds.",
            ),
            "data": Picture(
                _draw_data(of_data),
                "Op of every datum at once: how much the first layer's updates weaken "
                "(right) or strengthen (left) what a datum does to the held-out loss.",
            ),
        },
        data={"network_op": data},
    )


def _over_seeds(values: Any) -> Any:
    """The mean over seeds of the mean over directions, with its error over seeds."""
    import numpy as np

    import thalweg as tw

    each = np.asarray(values).reshape(len(values), -1).mean(axis=1)
    return tw.Estimate(float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))))


def _alike(gap: Any) -> str:
    return "fails" if abs(gap.value) > 3 * gap.error else "not decidable here"


def _draw_training(ops: Any) -> Any:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        figure, axes = plt.subplots()
        for (name, op), colour in zip(ops.items(), tw.plot.COLOURS[1::-1], strict=False):
            step = np.arange(1, op.shape[-1] + 1)
            each = op.mean(axis=1)
            mean, error = each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(len(each))
            axes.plot(step, op.reshape(-1, op.shape[-1])[::3].T, color=colour, linestyle="-", linewidth=0.4, alpha=0.3)
            axes.plot(step, mean, color=colour, linestyle="-" if name == "logits" else "--", label=name)
            axes.fill_between(step, mean - error, mean + error, color=colour, alpha=0.25, linewidth=0)
        axes.axhline(0, color="0.5", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("step of training")
        axes.set_ylabel("Op of all updates (nats)")
        axes.legend()
    return figure


def _draw_parts(whole: Any, layers: Any, moving: Any) -> Any:
    import matplotlib.pyplot as plt

    import thalweg as tw

    rows = {
        "all updates": whole,
        **layers,
        "momentum run: all updates": moving["all updates"],
        "momentum run: the buffer": moving["momentum"],
    }
    with tw.plot.style():
        figure, axes = plt.subplots(figsize=(6.8, 3.2))
        for k, estimate in enumerate(rows.values()):
            axes.errorbar(estimate.value, -k, xerr=estimate.error, fmt="o", capsize=4, color=tw.plot.COLOURS[0])
        axes.axvline(0, color="0.5", linewidth=1)
        axes.set_yticks([-k for k in range(len(rows))], list(rows))
        axes.set_xlabel("Op of the probabilities (nats)")
    return figure


def _draw_data(of_data: Any) -> Any:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        figure, axes = plt.subplots()
        bins = np.linspace(-4, 4, 61).tolist()
        axes.hist(np.clip(of_data[np.isfinite(of_data)], -4, 4), bins=bins, color=tw.plot.COLOURS[0])
        axes.axvline(0, color="0.3", linewidth=1)
        axes.set_xlabel("Op of a datum on the held-out loss (nats)")
        axes.set_ylabel("data")
    return figure
