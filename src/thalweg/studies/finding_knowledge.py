"""Finding knowledge: what final parameters owe to the start and to the data, and whether update sizes say where.

The first knowledge post states: parameters end up depending on the data and little on the start; structured changes of
the data change few parameters (H1); a datum changes most in the end what it updated most (H2); and update sizes match
parameters of two networks that hold the same knowledge (H3). All on scikit-learn's digits, 8 x 8.
"""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "knowledge"
SECONDS = 20
SOURCE = "J. Bostock, first post on finding knowledge in networks"


def run(size: str = "quick", *, seeds: int = 5) -> Outcome:
    """Two-way tables of starts and data, forks on changed data, exact leave-one-out, names carried from net to net."""
    full = size == "full"
    seeds = max(12, seeds) if full else seeds
    claims, figures, data = [], {}, {}
    claims.append(_start_or_data(4, 76_800 if full else 4800))
    claims.append(_changed_data(2 * seeds if full else 4))
    leave, figure, table = _leave_one_out(("softplus", "tanh") if full else ("softplus",), 150 if full else 40)
    claims.append(leave)
    named, names = _naming(seeds)
    claims += [named, _conservation()]
    figures["leave_one_out"], figures["names"] = figure, _figure_names(names)
    data["leave_one_out"], data["names"] = table, names
    return Outcome(
        summary=_summary(*claims),
        claims=claims,
        figures=figures,
        data=data,
    )


def _summary(start: Claim, changed: Claim, leave: Claim, named: Claim, conserved: Claim) -> str:
    """What was found, in a sentence for each claim."""
    spread, softplus = changed.details["participation"], leave.details["softplus"]
    names = [sum(column) / 2 for column in zip(named.details["softplus"], named.details["tanh"], strict=True)]
    return (
        f"After {start.details['steps']} steps the start carries {start.details['parameters'][0]:.3f} of the variance "
        f"of the parameters, but the data carry {start.details['outputs'][1]:.2f} of that of the outputs. A patch on "
        f"one class changes {spread['patch']:.2f} of the units, another order of the same data {spread['order']:.2f}. "
        f"How far a datum moved a parameter goes with what leaving it out changes, r {softplus['tally'][0]:.2f} of "
        f"logs, but {softplus['tally'][1]:.2f} when the means of data and of parameters are taken off (influence "
        f"{softplus['influence'][1]:.2f}). Matched by their updates, units of one network get their right name from "
        f"another in {names[0]:.2f} of cases, by activations in {names[1]:.2f} (chance {names[3]:.2f}, ceiling "
        f"{names[4]:.2f}). The groups' parts sum to the change of the parameters to {conserved.measured:.0e}."
    )


def _mean(values: Any) -> Any:
    import numpy as np

    import thalweg as tw

    values = np.asarray(values, float)
    return tw.Estimate(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5))


def _pairs_of_classes(data: Any) -> Any:
    """Images and targets of the post's two groups: 1 and 7 against 6 and 8."""
    import jax.numpy as jnp
    import numpy as np

    first = np.isin(data.labels, (1, 7))
    return jnp.asarray(data.images), jnp.asarray(np.stack([first, ~first], axis=1), float)


def _flat(params: Any) -> Any:
    import numpy as np

    return np.concatenate([np.ravel(np.asarray(params[name])) for name in sorted(params)])


def _start_or_data(count: int, steps: int) -> Claim:
    """K1: a table of starts by data sets; which margin carries the variance of parameters, and of outputs."""
    import numpy as np

    import thalweg as tw

    digits, model = tw.systems.digits(keep=(1, 7, 6, 8)), tw.systems.perceptron((64, 100, 2))
    rng = np.random.default_rng(3)
    order = rng.permutation(len(digits.labels))
    held, rest = order[:160], order[160:]
    each = len(rest) // count
    x, target = _pairs_of_classes(digits)
    parameters, outputs = [], []
    for i in range(count):
        row = []
        for j in range(count):
            own = rest[j * each : (j + 1) * each]
            learner = tw.processes.sgd(model.loss, (x[own], target[own]), 0.01)
            row.append(tw.simulate(learner, learner.init(model.init(i)), steps, key=100 * i + j).state.params)
        parameters.append([_flat(params) for params in row])
        outputs.append([np.ravel(model.predict(params, x[held])) for params in row])
    of_parameters, of_outputs = _margins(np.array(parameters)), _margins(np.array(outputs))
    ratio = of_parameters[1]
    return Claim(
        "K1",
        "final parameters depend on the data, and little on the start",
        SOURCE,
        of_parameters[0],
        "holds" if ratio > 0.5 else "fails",
        error=_jackknife(np.array(parameters)),
        note=f"the start carries {of_parameters[0]:.3f} of the variance of the parameters after {steps} steps, the "
        f"data {of_parameters[1]:.3f}; but of the outputs on held-out digits the start carries {of_outputs[0]:.2f} "
        f"and the data {of_outputs[1]:.2f}: it holds of the function, not of the parameters; {count} starts by {count} "
        "disjoint data sets, another order in each cell",
        details={"parameters": of_parameters, "outputs": of_outputs, "steps": steps, "seeds": count},
    )


def _margins(table: Any) -> tuple[float, float]:
    """Shares of the sum of squares carried by rows (starts) and by columns (data)."""
    centred = table - table.mean(axis=(0, 1))
    total = (centred**2).sum()
    rows = table.shape[1] * (centred.mean(axis=1) ** 2).sum() / total
    columns = table.shape[0] * (centred.mean(axis=0) ** 2).sum() / total
    return float(rows), float(columns)


def _jackknife(table: Any) -> float:
    """The error of the rows' share, over starts left out."""
    import numpy as np

    n = len(table)
    left = np.array([_margins(np.delete(table, i, axis=0))[0] for i in range(n)])
    return float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))


def _changed_data(seeds: int) -> Claim:
    """K2: forks with a patch on all sevens, with scattered pixels, with noise, and with another order of the data."""
    import numpy as np

    import thalweg as tw

    digits, model = tw.systems.digits(keep=(1, 7, 6, 8)), tw.systems.perceptron((64, 100, 2))
    x, target = _pairs_of_classes(digits)
    sevens = digits.labels == 7
    patch = np.zeros((8, 8), bool)
    patch[1:3, 1:3] = True
    learner = tw.processes.sgd(model.loss, (x, target), 0.01)
    spread: dict[str, list[float]] = {name: [] for name in ("patch", "scattered", "noise", "order")}
    inside = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        run = tw.simulate(learner, learner.init(model.init(seed)), 4800, key=seed)
        scattered = np.isin(np.arange(64), rng.permutation(64)[:4])
        changes = {"patch": patch.ravel(), "scattered": scattered}
        seen = {name: np.where(sevens[:, None] & where, 1.0, digits.images) for name, where in changes.items()}
        noise = 0.1 * sevens[:, None] * rng.normal(size=digits.images.shape)
        seen["noise"] = np.clip(digits.images + noise, 1 / 256, 1)
        ends = {name: tw.knowledge.fork_data(run, replace=(images, target)) for name, images in seen.items()}
        ends["order"] = tw.simulate(learner, learner.init(model.init(seed)), 4800, key=1000 + seed)
        for name, twin in ends.items():
            moved = np.abs(np.asarray(twin.state.params["W1"] - run.state.params["W1"]))
            units = (moved**2).sum(axis=0)
            spread[name].append(units.sum() ** 2 / (len(units) * (units**2).sum()))
            if name == "patch":
                inside.append(moved[patch.ravel()].sum() / moved.sum())
    found, touched = {name: _mean(values) for name, values in spread.items()}, _mean(inside)
    fewer = found["order"].value - found["patch"].value
    error = float(np.hypot(found["order"].error, found["patch"].error))
    return Claim(
        "K2",
        "a structured, localized change of the data changes few parameters (H1)",
        SOURCE,
        found["patch"],
        "holds" if fewer > 3 * error and found["patch"].value < 0.5 * found["order"].value else "fails",
        note=f"share of units that carry the change (participation ratio): patch on all sevens {found['patch']}, "
        f"scattered pixels {found['scattered']}, noise {found['noise']}, but another order of the same data "
        f"{found['order']}; only the touched pixels tell: weights from the patch, 1/16 of all, take {touched} of the "
        "change",
        details={"participation": {n: e.value for n, e in found.items()}, "in_patch": touched.value, "seeds": seeds},
    )


def _leave_one_out(activations: tuple[str, ...], removed: int) -> tuple[Claim, Picture, Any]:
    """K3: exact leave-one-out by forks, beside tally, last gradient and influence."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import xarray

    import thalweg as tw

    digits = tw.systems.digits().split(0.0836, seed=5)[0]
    data = jnp.asarray(digits.images), jnp.asarray(digits.labels % 2)
    n = len(digits.labels)
    rows: dict[str, Any] = {}
    accuracy: dict[str, float] = {}
    for activation in activations:
        model = tw.systems.perceptron((64, 12, 2), activation, "xent")
        learner = tw.processes.sgd(model.loss, data, 0.05, order="shuffle")
        tally = tw.knowledge.Tally(np.arange(n), kinds=("absolute",))
        run = tw.simulate(learner, learner.init(model.init(2)), 30 * n, key=2, folds={"tally": tally})
        whole, params = _flat(run.state.params), run.state.params
        absolute = run.folds["tally"].absolute
        tallies = {name: np.asarray(leaf) for name, leaf in absolute.items()}
        moved = np.stack([_flat({name: leaf[d] for name, leaf in tallies.items()}) for d in range(removed)])
        weights = 1.0 - np.eye(n)
        forks = [tw.knowledge.fork_data(run, reweight=weights[d]).state.params for d in range(removed)]
        exact = np.stack([np.abs(_flat(end) - whole) for end in forks])
        gradient = jax.jit(jax.grad(model.loss))
        last = np.stack([np.abs(_flat(gradient(params, (data[0][d], data[1][d])))) for d in range(removed)])
        solved = [
            tw.knowledge.influence(model.loss, data, params, -np.eye(n)[d], 0.05, curvature="fisher", tolerance=1e-4)
            for d in range(removed)
        ]
        influence = np.stack([np.abs(_flat(one.value)) for one in solved])
        shuffled = moved[np.random.default_rng(0).permutation(removed)]
        scores = {"tally": moved, "shuffled data": shuffled, "last gradient": last, "influence": influence}
        rows[activation] = {name: _of_logs(score, exact) for name, score in scores.items()}
        accuracy[activation] = float(model.accuracy(params, *data))
    names = list(next(iter(rows.values())))
    values = np.array([[rows[a][name] for name in names] for a in activations])
    correlations = xarray.DataArray(
        values,
        dims=("activation", "score", "centred"),
        coords={"activation": list(activations), "score": names, "centred": ["no", "both ways"]},
        name="r of logs",
    )
    first = activations[0]
    tally, rival = rows[first]["tally"], rows[first]["influence"]
    errors = _bootstrap(moved, exact, removed)
    told = ", ".join(f"{name} {rows[first][name][0]:.2f} ({rows[first][name][1]:.2f})" for name in names)
    better = tally[1] > max(rival[1], rows[first]["last gradient"][1]) + 2 * errors[1]
    holds = tally[0] > rows[first]["shuffled data"][0] + 2 * errors[0] and tally[1] > 2 * errors[1]
    claim = Claim(
        "K3",
        "a datum's updates of a parameter in training go with what leaving it out changes in the end (H2)",
        SOURCE,
        tally[0],
        "holds" if holds and better else "holds in kind" if holds else "fails",
        error=errors[0],
        note=f"r of logs over data and parameters, exact leave-one-out of {removed} of {n} data, 64-12-2, {first} (in "
        f"brackets: after taking off the means of data and of parameters): {told}; better than influence and last "
        f"gradient: {'yes' if better else 'no'}",
        details={
            "accuracy": accuracy[first],
            "trained": int(accuracy[first] >= 0.75),
            "seeds": 1,
            "R2": tally[0] ** 2,
            **{activation: {name: list(pair) for name, pair in one.items()} for activation, one in rows.items()},
        },
    )
    return claim, _figure_leave(moved, exact, first), correlations


def _of_logs(score: Any, exact: Any) -> tuple[float, float]:
    """r of logs: plain, and with the means of data and of parameters taken off."""
    import numpy as np

    a, b = np.log(np.maximum(score, 1e-300)), np.log(np.maximum(exact, 1e-300))
    good = (score > 0).all(axis=0) & (exact > 0).all(axis=0)
    a, b = a[:, good], b[:, good]
    centred = [v - v.mean(0) - v.mean(1)[:, None] + v.mean() for v in (a, b)]
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), float(np.corrcoef(*[v.ravel() for v in centred])[0, 1])


def _bootstrap(score: Any, exact: Any, n: int) -> tuple[float, float]:
    """Errors of both over resampled data: parameters of one network are no replicates."""
    import numpy as np

    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, n, n) for _ in range(60)]
    return tuple(np.std([_of_logs(score[at], exact[at]) for at in drawn], axis=0, ddof=1).tolist())  # type: ignore


def _naming(seeds: int) -> tuple[Claim, Any]:
    """K4: 64 units named by 32, ten classes, a fresh split and fresh starts for each seed."""
    import jax.numpy as jnp
    import numpy as np
    import xarray

    import thalweg as tw

    kinds, activations = ("update", "activation", "activation_gradient"), ("softplus", "tanh")
    everything = tw.systems.digits()
    top1 = np.zeros((len(activations), seeds, len(kinds) + 2))
    for a, activation in enumerate(activations):
        models = [tw.systems.perceptron((64, units, 10), activation, "xent") for units in (32, 64)]
        for seed in range(seeds):
            train, held = everything.split(0.5, seed=500 + seed)  # splits that nothing was tuned on
            data, unseen = ((jnp.asarray(part.images), jnp.asarray(part.labels)) for part in (train, held))
            n = len(train.labels)
            runs = []
            for m, model in enumerate(models):
                learner = tw.processes.sgd(model.loss, data, 0.02, order="shuffle")
                fold = tw.knowledge.Tally(np.arange(n), kinds=("absolute",), where=_first_biases)
                start = learner.init(model.init(900 + 2 * seed + m))
                runs.append(tw.simulate(learner, start, 5 * n, key=10 * seed + m, folds={"by datum": fold}))
            rises = [
                tw.knowledge.profiles(model, run, "ablation", data=unseen)
                for model, run in zip(models, runs, strict=True)
            ]
            updates = [np.asarray(run.folds["by datum"].absolute)[:n] for run in runs]  # counted in training
            for k, kind in enumerate(kinds):
                columns = (
                    updates
                    if kind == "update"
                    else [tw.knowledge.profiles(model, run, kind) for model, run in zip(models, runs, strict=True)]
                )
                match = tw.knowledge.match_units(*columns, permutations=0)
                naming = tw.knowledge.name_units(match, *rises, held.labels)
                top1[a, seed, k] = naming.top1
            top1[a, seed, -2:] = naming.chance, naming.ceiling
    names = xarray.DataArray(
        top1,
        dims=("activation", "seed", "profile"),
        coords={"activation": list(activations), "profile": [*kinds, "chance", "ceiling"]},
        name="top1",
    )
    gains = {a: _mean(top1[i, :, 0] - top1[i, :, 1]) for i, a in enumerate(activations)}
    told = "; ".join(
        f"{a}: "
        + ", ".join(f"{p} {float(names.sel(activation=a, profile=p).mean()):.3f}" for p in names.profile.values)
        for a in activations
    )
    above = _mean(top1[:, :, 0].mean(axis=0) - top1[:, :, -2].mean(axis=0))
    wins = {a: gain.value > 2 * gain.error for a, gain in gains.items()}
    claim = Claim(
        "K4",
        "matching units by their updates finds the same knowledge in two networks (H3)",
        SOURCE,
        _mean(top1[:, :, 0].mean(axis=0)),
        "fails" if above.value < 2 * above.error else "holds" if all(wins.values()) else "holds in kind",
        note=f"share of 64 units given their right name by 32, mean over {seeds} fresh splits ({told}); updates less "
        f"activations: {', '.join(f'{a} {gain}' for a, gain in gains.items())}; a tie with activation x gradient, "
        "which needs no history, is no gain from history",
        details={"seeds": seeds, **{a: names.sel(activation=a).mean("seed").values.tolist() for a in activations}},
    )
    return claim, names


def _first_biases(params: Any) -> Any:
    return params["b1"]


def _conservation() -> Claim:
    """K14: groups sum to the change, through Adam."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import thalweg as tw

    digits = tw.systems.digits()
    model = tw.systems.perceptron((64, 10), loss="xent")  # one layer: deeper ones compile for long
    data = jnp.asarray(digits.images), jnp.asarray(digits.labels)
    learner = tw.processes.sgd(model.loss, data, optax.adam(1e-3), batch_size=32)
    tally = tw.knowledge.Tally(digits.labels, learner)
    run = tw.simulate(learner, learner.init(model.init(0)), 200, key=0, folds={"tally": tally})
    found = run.folds["tally"]
    # From the ends of the run, whatever the tally says of itself: signed rows against the change of the parameters.
    gaps = jax.tree.map(
        lambda signed, size, after, before: np.max(np.abs(signed.sum(0) - (after - before)) / (size.sum(0) + 1e-300)),
        found.signed,
        found.absolute,
        run.state.params,
        run.initial.params,
    )
    worst = max(float(gap) for gap in jax.tree.leaves(gaps))
    return Claim(
        "K14",
        "the tallies of all groups sum to the change of the parameters, through Adam",
        "thalweg (our own)",
        worst,
        "holds" if worst <= 1e-12 else "fails",
        published="<= 1e-12",
        error=0.0,
        note=f"largest |sum over groups - change| over the sum of sizes, ten groups, batches of 32; cancellation: "
        f"groups move parameters up to {float(found.cancellation):.3g} times as far as they end up moving",
    )


def _figure_leave(moved: Any, exact: Any, activation: str) -> Picture:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        figure, axes = plt.subplots(figsize=(5.4, 3.8))
        good = (moved > 0) & (exact > 0)
        drawn = axes.hexbin(moved[good], exact[good], xscale="log", yscale="log", gridsize=45, bins="log", mincnt=1)
        axes.grid(False)
        axes.set(xlabel="sum of |updates| by the datum", ylabel="|change of the parameter without it|")
        figure.colorbar(drawn, ax=axes, label="pairs of datum and parameter")
        assert np.all(exact >= 0)
    return Picture(
        figure, f"Every pair of a removed datum and a parameter ({activation}): update sizes and exact changes."
    )


def _figure_names(names: Any) -> Picture:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    labels = [str(one).replace("_", " x\n") for one in names.profile.values]
    with tw.plot.style():
        figure, axes = plt.subplots(figsize=(6.4, 3.8))
        for n, activation in enumerate(names.activation.values):
            part = names.sel(activation=activation)
            error = part.std("seed", ddof=1) / np.sqrt(part.sizes["seed"])
            at = np.arange(len(labels)) + 0.12 * (2 * n - 1)
            axes.errorbar(
                at, part.mean("seed"), yerr=error, marker="os"[n], linestyle="none", capsize=3, label=activation
            )
        axes.set_xticks(np.arange(len(labels)), labels)
        axes.set(ylabel="share of units named right", ylim=(0, 1))
        axes.legend()
    return Picture(
        figure, "Units of a network of 64 named by their matches in one of 32: mean over splits, one standard error."
    )
