"""`localize`: do the parameters that a group of data moved most change most when that group changes?"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_function, check_number, check_steps, check_truth, is_whole, shown
from thalweg._items import each_of
from thalweg._loop import Options
from thalweg._noise import as_key
from thalweg._process import simulate, what_it_is
from thalweg._results import Status
from thalweg._select import Selection, select
from thalweg.knowledge._ablation import ablated, mean_activation
from thalweg.knowledge._by_datum import Layer, Shares, Visits, first_layer, ratio, tally_shares
from thalweg.knowledge._forks import check_labels, check_pairs, drawing, twins
from thalweg.knowledge._levels import LEVELS, PARTS, Parts, correlation, partial_correlation
from thalweg.knowledge._localization import LEARNED, Localization
from thalweg.knowledge._permutation import Network, shuffle_labels
from thalweg.knowledge._pools import Pools
from thalweg.processes import sgd
from thalweg.stats._series import as_count, as_numbers, generator

TESTED = ("biases", "unit", "live")
MOST_NUMBERS = 2 * 10**7  # of data x live weights; where there are more, p is that of a sample of the weights
MOST_ABLATED = 256  # data on which units are ablated


def localize(
    model: Any,
    data: Any,
    pairs: Any = ((1, 7), (6, 8)),
    optimizer: float = 0.01,
    phase1: int = 4800,
    window: tuple[float, float] = (0.5, 1.0),
    forks: int = 9600,
    phase1_fraction: float = 0.3,
    matched: bool = True,
    seeds: int = 8,
    permutations: int = 999,
    controls: bool = True,
    *,
    key: Any = 0,
    layer: Any = first_layer,
    options: Options | None = None,
    resume: bool = False,
) -> Localization:
    """Does the tally of a group's updates say where changing that group changes the network? With every control.

    *Phase 1*: a fresh network learns to tell the first pair of classes (group A) from the second (B), one datum a
    step, on part of the data. *Tally*: the share A/(A + B) of |change of a parameter| in the window. *Forks*: four
    twins of the snapshot learn from the rest of the data without one class each (`tw.knowledge.forks`); the fork share
    is c/(c + d). *Analysis*: the correlation of the two shares at every level, beside what chance and cheap baselines
    give. All of it is repeated for `seeds` networks with starts, splits of the data and orders of their own.

    **Arguments**

    - `model`: `tw.systems.perceptron((pixels, units, 2), ...)`, or your own: `init(key)`, `loss(params, (x, target))`
      with targets [1, 0] for A and [0, 1] for B, `predict(params, x)`, and perhaps `hidden(params, x)` for ablation.
    - `data`: `tw.systems.digits(...)`, anything with `images` (n, inputs) and `labels` (n,), or a tuple of these two.
    - `pairs`: the classes of A and of B. - `optimizer`: the learning rate of SGD.
    - `phase1`, `forks`: steps. - `window`: the part of phase 1 that is tallied. - `phase1_fraction`: of each class.
    - `matched`: whether the twins share their noise.
    - `seeds`: how many networks. - `permutations`: shuffles of labels over data. - `controls`: run those that cost time
      (shuffles, ablation).
    - `key`: a random key or seed.
    - `layer`: for your own model, `layer(params)`, a `Layer` or a tuple (weights, biases, outgoing weights, next
      biases): a dense layer on the input.
    - `options`: `tw.Options`: `progress`, `checkpoint` (a folder, from which `resume=True` goes on after the last
      network that was done), `shard` (networks over the processes of `tw.connect`).

    **Returns** a `Localization`: labelled fields (xarray), `.estimate(level)` and a verdict in words.

    **Raises** `ValueError` for what cannot be used: a layer that is not a dense layer on the input, classes that do not
    occur, an optimizer with memory (its steps are not one datum's).

    **When not to trust it.** The network is the unit of replication, not the weight. Networks below an accuracy of
    0.75 are left out of means and told. A high r in a network that did not learn, or with 0/0 set to 0, means nothing.

    **Source.** J. Bostock's posts on where knowledge is stored in a network's parameters.

    >>> import thalweg as tw
    >>> digits, model = tw.systems.digits(keep=(1, 7, 6, 8)), tw.systems.perceptron((64, 10, 2))
    >>> found = tw.knowledge.localize(model, digits, phase1=400, forks=400, seeds=2, permutations=99)
    >>> found.r.dims, found.p_joint.dims
    (('seed', 'level'), ('level',))
    """
    x, labels, shape, source = _as_data(data, pairs)
    pairs = check_pairs(pairs, labels)
    rate, plan = _check_plan(optimizer, phase1, window, forks, phase1_fraction, matched, seeds, permutations, controls)
    for name in ("init", "loss", "predict"):
        check_function(getattr(model, name, None), f"model.{name}", "key" if name == "init" else "params, datum")
    check_function(layer, "layer", "params")
    _check_phases(labels, plan.fraction)
    key, group = _one_key(key), np.isin(labels, pairs[0])
    targets = jnp.asarray(np.stack([group, ~group], axis=1), float)
    learner = sgd(model.loss, (jnp.asarray(x), targets), rate)
    like = model.init(jax.random.fold_in(key, 0))
    selected = _check_layer(model, like, layer, x, targets)
    setting = _Setting(model, learner, x, labels, group, pairs, plan, selected, layer)
    like_key = jax.random.fold_in(key, 1)
    what = what_it_is(learner, learner.init(like), like_key) | {
        "plan": repr(plan._replace(seeds=0)),
        "pairs": repr(pairs),
    }
    answers, status = each_of(
        plan.seeds,
        lambda seed: _packed(_train(setting, jax.random.fold_in(key, seed))),
        "networks",
        options,
        identity=what,
        resume=resume,
    )
    if status != Status.OK:
        raise KeyboardInterrupt(f"localize was stopped after {len(answers)} of {plan.seeds} networks")
    networks = [_unpacked(answer) for answer in answers]
    seen = [_examine(setting, network) for network in networks]
    rng = generator(jax.random.fold_in(key, plan.seeds))
    return Localization(_labelled(setting, networks, seen, rng, shape, source))


class _Plan(NamedTuple):
    phase1: int
    window: tuple[int, int]
    forks: int
    fraction: float
    matched: bool
    seeds: int
    permutations: int
    controls: bool


class _Setting(NamedTuple):
    model: Any
    learner: Any
    x: np.ndarray
    labels: np.ndarray
    group: np.ndarray  # whether a datum is of group A
    pairs: Any
    plan: _Plan
    selected: Selection  # the layer, in the parameters
    layer: Any


class _Trained(NamedTuple):
    """One network: its data of phase 1, what moved its units, its snapshot and its twins."""

    first: np.ndarray  # the numbers of the data of phase 1
    rest: np.ndarray
    inside: np.ndarray  # (n of phase 1, units), in the window
    whole: np.ndarray
    gradient: np.ndarray  # at the snapshot
    outgoing: np.ndarray
    fork: Shares
    lost: Any  # how far ablating a unit moves the losses of A and of B, (2, units), or None
    accuracy: float
    loss: float
    finite: bool


def _packed(network: _Trained) -> dict[str, Any]:
    """A network as arrays by name, for a checkpoint."""
    named = network._asdict() | {"weights": network.fork.weights, "biases": network.fork.biases}
    return {name: value for name, value in named.items() if name != "fork" and value is not None}


def _unpacked(arrays: dict[str, Any]) -> _Trained:
    named = dict(arrays)
    fork = Shares(named.pop("weights"), named.pop("biases"))
    numbers = {name: named.pop(name).item() for name in ("accuracy", "loss", "finite")}
    return _Trained(fork=fork, lost=named.pop("lost", None), **named, **numbers)


def _train(setting: _Setting, key: Any) -> _Trained:
    """Phase 1, the snapshot, and the four twins of one network."""
    model, learner, x, labels, group, pairs, plan, selected, layer = setting
    first = _split(labels, plan.fraction, generator(jax.random.fold_in(key, 3)))
    rest = np.flatnonzero(~np.isin(np.arange(len(x)), first))
    fold = Visits(_Biases(layer), len(x), jnp.asarray(plan.window[0]), jnp.asarray(plan.window[1]))
    pools = [first[group[first]], first[~group[first]]]
    start = learner.init(model.init(jax.random.fold_in(key, 0)))
    most = int(max(np.sum(np.isin(labels, pair)) for pair in pairs))
    # Phase 1 and the twins are one compiled program: they differ in the pools that they draw from.
    run = simulate(
        drawing(learner, Pools(pools, most)),
        start,
        plan.phase1,
        key=jax.random.fold_in(key, 1),
        folds={"visits": fold},
    )
    unseen = np.where(np.isin(np.arange(len(x)), first), labels.min() - 1, labels)
    ends, status = twins(
        learner,
        run.state,
        unseen,
        pairs,
        plan.forks,
        jax.random.fold_in(key, 2),
        plan.matched,
        folds={"visits": fold},
    )
    kept = {name: Layer(*map(np.asarray, selected.get(end))) for name, end in ends.items()}
    (a, b), (c, d) = pairs

    def between(one: int, other: int, what: str) -> np.ndarray:
        return np.abs(getattr(kept[one], what) - getattr(kept[other], what))

    fork = Shares(*(ratio(between(a, b, part), between(c, d, part)) for part in ("weights", "biases")))
    params, data = run.state.params, learner.step.data
    held = jax.tree.map(lambda leaf: leaf[rest], data)
    loss, accuracy = _score(model, params, held)
    gradient = _bias_gradients(model, params, selected, jax.tree.map(lambda leaf: leaf[first], data))
    lost = None
    if plan.controls:
        some = rest[np.linspace(0, len(rest) - 1, min(len(rest), MOST_ABLATED)).astype(int)]
        mean = mean_activation(model, params, data[0][first], gradient.shape[1])
        moved = np.abs(ablated(model.loss, params, selected, mean, jax.tree.map(lambda leaf: leaf[some], data)))
        lost = np.stack([moved[group[some]].mean(0), moved[~group[some]].mean(0)])
    visits = np.asarray(run.folds["visits"])[:, first]
    return _Trained(
        first,
        rest,
        visits[1],
        visits.sum(0),
        np.abs(gradient),
        np.asarray(Layer(*selected.get(params)).outgoing),
        fork,
        lost,
        float(accuracy),
        float(loss),
        run.ok and status == Status.OK,
    )


class _Seen(NamedTuple):
    """One network, taken apart."""

    tally: Parts
    fork: Parts
    others: dict[str, Parts]  # further shares by name
    defined: np.ndarray
    live: np.ndarray
    total: np.ndarray  # the tally of the weights, both groups


def _examine(setting: _Setting, network: _Trained) -> _Seen:
    x, group = setting.x[network.first], setting.group[network.first]
    labels, ((a, b), (c, d)) = setting.labels[network.first], setting.pairs
    live = x.std(axis=0) > 1e-3
    tally, total = tally_shares(x, network.inside, group)
    fork = network.fork
    defined = np.isfinite(tally.biases) & np.isfinite(fork.biases)
    if live.any():
        defined &= np.isfinite(tally.weights[live]).all(0) & np.isfinite(fork.weights[live]).all(0)
    inputs, units = tally.weights.shape
    pixel = ratio(x[group].mean(0), x[~group].mean(0))
    v = np.abs(network.outgoing)
    reads = ratio(v[:, 0], v[:, 1]) if v.shape[1] == 2 else np.full(units, np.nan)
    shares = {
        f"groups_{a}{c}_{b}{d}": tally_shares(x, network.inside, np.isin(labels, (a, c)))[0],
        f"groups_{a}{d}_{c}{b}": tally_shares(x, network.inside, np.isin(labels, (a, d)))[0],
        "snapshot": tally_shares(x, network.gradient, group)[0],
        "data_only": Shares(np.repeat(pixel[:, None], units, 1), np.full(units, np.nan)),
        "outgoing": Shares(np.repeat(reads[None], inputs, 0), reads),
        "whole_phase": tally_shares(x, network.whole, group)[0],
    }
    others = {name: Parts(share, live, defined) for name, share in shares.items()}
    return _Seen(Parts(tally, live, defined), Parts(fork, live, defined), others, defined, live, total)


def _labelled(
    setting: _Setting,
    networks: list[_Trained],
    seen: list[_Seen],
    rng: np.random.Generator,
    shape: tuple[int, ...],
    source: str,
) -> Any:
    """Everything as one xarray Dataset."""
    import xarray

    plan = setting.plan
    count = len(networks)
    trained = np.array([n.finite and n.accuracy >= LEARNED for n in networks])
    r = np.array([[correlation(one.tally[level], one.fork[level]) for level in LEVELS] for one in seen])
    names = [*seen[0].others, "other_network", "undefined_as_zero"]
    control = np.full((count, len(names), len(LEVELS)), np.nan)
    given = ("snapshot", "data_only")
    partial = np.full((count, len(given), len(LEVELS)), np.nan)
    for s, one in enumerate(seen):
        for at, level in enumerate(LEVELS):
            for name, parts in one.others.items():
                control[s, names.index(name), at] = correlation(parts[level], one.fork[level])
            if count > 1:
                other = seen[(s + 1) % count].fork[level]
                control[s, names.index("other_network"), at] = correlation(one.tally[level], other)
            for g, name in enumerate(given):
                partial[s, g, at] = partial_correlation(one.tally[level], one.fork[level], one.others[name][level])
            if level in ("weights", "biases"):
                filled = [np.nan_to_num(side[level], nan=0.0) for side in (one.tally, one.fork)]
                control[s, names.index("undefined_as_zero"), at] = correlation(*filled)
    p, null_sd, joint, why = _chance(setting, networks, seen, trained, rng)
    heat = np.array([_heatmap(one) for one in seen])
    fields = {
        "accuracy": ("seed", [n.accuracy for n in networks]),
        "loss": ("seed", [n.loss for n in networks]),
        "trained": ("seed", trained),
        "undefined": ("seed", [int(np.sum(~one.defined)) for one in seen]),
        "r": (("seed", "level"), r),
        "variance": (("seed", "side", "part"), [[one.tally.variance, one.fork.variance] for one in seen]),
        "null_sd": (("seed", "tested"), null_sd),
        "p": (("seed", "tested"), p),
        "p_joint": ("tested", joint),
        "control": (("seed", "name", "level"), control),
        "partial": (("seed", "given", "level"), partial),
        "ablation": (("seed", "score"), [_ablations(n, one) for n, one in zip(networks, seen, strict=True)]),
        "heatmap": (("seed", "pixel"), heat),
    }
    return xarray.Dataset(
        fields,
        coords={
            "seed": np.arange(count),
            "level": list(LEVELS),
            "tested": list(TESTED),
            "side": ["tally", "fork"],
            "part": list(PARTS),
            "name": names,
            "given": ["snapshot", "data"],
            "score": ["tally", "snapshot", "partial"],
            "pixel": np.arange(heat.shape[1]),
        },
        attrs={
            "pairs": str(setting.pairs),
            "model": _called(setting.model),
            "source": source,
            "image_shape": list(shape),
            "learning_rate": float(setting.learner.step.learning_rate),
            "phase1": plan.phase1,
            "window": list(plan.window),
            "forks": plan.forks,
            "matched": int(plan.matched),
            "permutations": plan.permutations if plan.controls else 0,
            "undefined_p": why,
        },
    )


def _called(model: Any) -> str:
    """The model in words that are the same in the next session: no address of it."""
    plain = type(model).__repr__ is object.__repr__ and type(model).__str__ is object.__str__
    return type(model).__qualname__ if plain else str(model)[:200]


def _chance(
    setting: _Setting, networks: list[_Trained], seen: list[_Seen], trained: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """p and null spread of r for each network and tested level, and p of the mean r over the networks that learned."""
    plan, count = setting.plan, len(networks)
    p, null_sd = np.full((count, len(TESTED)), np.nan), np.full((count, len(TESTED)), np.nan)
    joint, reasons = np.full(len(TESTED), np.nan), []
    if not plan.controls:
        return p, null_sd, joint, "controls were not asked for"
    everyone, where = np.unique(np.concatenate([n.first for n in networks]), return_inverse=True)
    rows = np.split(where, np.cumsum([len(n.first) for n in networks])[:-1])
    g = setting.group[everyone].astype(int)
    for at, level in enumerate(TESTED):
        ready = []
        for s, (network, one) in enumerate(zip(networks, seen, strict=True)):
            ready.append(Network(*_by_datum(setting, network, one, level), plan.permutations, rows[s]))
            alone = Network.__new__(Network)
            alone.__dict__ |= ready[-1].__dict__ | {"rows": np.arange(len(network.first))}
            test = shuffle_labels([alone], g[rows[s]], "correlation", plan.permutations, rng)
            p[s, at], null_sd[s, at] = test.p, test.null_sd
            if not test.ok:
                reasons.append(f"{level}, seed {s}: {test.message}")
        chosen = [one for one, good in zip(ready, trained, strict=True) if good]
        if chosen:
            test = shuffle_labels(chosen, g, "correlation", plan.permutations, rng)
            joint[at] = test.p
    return p, null_sd, joint, "; ".join(reasons)


def _by_datum(setting: _Setting, network: _Trained, one: _Seen, level: str) -> tuple[np.ndarray, np.ndarray]:
    """How far each datum moved each bias, unit or live weight, in the proportions that enter its share; its fork share.

    Of very many weights times data a random sample of weights is taken: its p holds as well.
    """
    moved = np.where(one.defined, network.inside, 0.0)
    if level == "biases":
        return network.inside, one.fork[level]
    x = np.where(one.live, np.abs(setting.x[network.first]), 0.0)
    with np.errstate(divide="ignore"):
        inverse = np.where(one.total > 0, 1 / one.total, 0.0)
    if level == "unit":  # the mean over live weights of shares that each sum to 1
        return moved * (x @ inverse), one.fork[level]
    pixels, units = np.nonzero(np.isfinite(one.fork[level]))
    most = MOST_NUMBERS // len(x)
    if len(units) > most:
        sample = np.sort(np.random.default_rng(0).choice(len(units), most, replace=False))
        pixels, units = pixels[sample], units[sample]
    return x[:, pixels] * moved[:, units], one.fork[level][pixels, units]


def _ablations(network: _Trained, one: _Seen) -> list[float]:
    """r over units of the ablation share: with the tally share, the snapshot share, the tally given the snapshot."""
    if network.lost is None:
        return [float("nan")] * 3
    lost = ratio(*np.abs(network.lost))
    tally, snapshot = one.tally["unit"], one.others["snapshot"]["unit"]
    return [correlation(tally, lost), correlation(snapshot, lost), partial_correlation(tally, lost, snapshot)]


def _heatmap(one: _Seen) -> np.ndarray:
    """Per input, the correlation over its outgoing weights."""
    both = zip(one.tally["weights"], one.fork["weights"], strict=True)
    return np.array([correlation(tally, fork) for tally, fork in both])


# --------------------------------------------------------------------------------------------------


class _Biases(eqx.Module):
    """The biases that a layer names."""

    layer: Any = eqx.field(static=True)

    def __call__(self, params: Any) -> Any:
        return Layer(*self.layer(params)).biases


@eqx.filter_jit
def _score(model: Any, params: Any, data: Any) -> tuple[Any, Any]:
    losses = jax.vmap(lambda datum: model.loss(params, datum))(data)
    outputs = jax.vmap(lambda one: model.predict(params, one))(data[0])
    return jnp.mean(losses), jnp.mean(jnp.argmax(outputs, axis=1) == jnp.argmax(data[1], axis=1))


@eqx.filter_jit
def _bias_gradients(model: Any, params: Any, selected: Selection, data: Any) -> Any:
    one = jax.grad(lambda params, datum: model.loss(params, datum))
    return jax.vmap(lambda datum: Layer(*selected.get(one(params, datum))).biases)(data)


def _one_key(key: Any) -> Any:
    key = as_key(key)
    if key.ndim:
        raise ValueError(f"key must be one key, got {key.shape[0]} of them")
    return key


def _split(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """The numbers of the data of phase 1: a fraction of each class, at random."""
    parts = [rng.permutation(np.flatnonzero(labels == one)) for one in np.unique(labels)]
    return np.sort(np.concatenate([part[: round(fraction * len(part))] for part in parts]))


def _check_phases(labels: np.ndarray, fraction: float) -> None:
    """Refuse a split that leaves one of the two phases without a class."""
    for one, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if not 0 < round(fraction * count) < count:
            raise ValueError(
                f"phase1_fraction must leave data of each class to both phases, and {fraction:g} of the {count} of "
                f"class {one} leaves {round(fraction * count)} to the first"
            )


def _as_data(data: Any, pairs: Any) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], str]:
    """Inputs and labels of the four classes, the shape of an image, and where they come from."""
    if isinstance(data, tuple) and len(data) == 2:
        x, labels, shape, source = data[0], data[1], None, "the user's"
    else:
        x, labels = getattr(data, "images", None), getattr(data, "labels", None)
        shape, source = getattr(data, "shape", None), str(getattr(data, "source", "the user's"))
    if x is None or labels is None:
        raise TypeError(
            f"data must have images and labels, as tw.systems.digits(), or be (x, labels), got {shown(data)}"
        )
    x = as_numbers(x, "data")
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"data must hold finite inputs of shape (n, inputs), got shape {x.shape}")
    labels = check_labels(labels, len(x), "labels (of data)")
    flat = [one for pair in check_pairs(pairs, labels) for one in pair]
    kept = np.isin(labels, flat)
    if min(np.sum(labels == one) for one in flat) < 4:
        raise ValueError("data must hold at least 4 of each of the four classes, for both phases")
    shape = shape if isinstance(shape, tuple) and int(np.prod(shape)) == x.shape[1] else (1, x.shape[1])
    return x[kept], labels[kept], shape, source


def _check_plan(
    optimizer: Any,
    phase1: Any,
    window: Any,
    forks: Any,
    fraction: Any,
    matched: Any,
    seeds: Any,
    permutations: Any,
    controls: Any,
) -> tuple[Any, _Plan]:
    if hasattr(optimizer, "update"):
        raise ValueError(
            "optimizer must be a learning rate: with a memory a step is not one datum's; for other optimizers take "
            "tw.knowledge.Tally, forks and datum_permutation_test"
        )
    rate = check_number(optimizer, "optimizer", above=0)
    if rate.ndim:
        raise ValueError(f"optimizer must be one learning rate, got shape {rate.shape}")
    for name, value in (("phase1", phase1), ("forks", forks)):
        if not is_whole(value) or not 1 <= value < 2**31:
            raise ValueError(f"{name} must be a whole number of steps >= 1, got {shown(value)}")
    try:
        low, high = (float(edge) for edge in window)
    except (TypeError, ValueError):
        raise TypeError(f"window must be two fractions of phase 1 such as (0.5, 1.0), got {shown(window)}") from None
    if not 0 <= low < high <= 1:
        raise ValueError(f"window must be two fractions of phase 1, 0 <= first < last <= 1, got {shown(window)}")
    fraction = float(check_number(fraction, "phase1_fraction", above=0))
    if not fraction < 1:
        raise ValueError(f"phase1_fraction must be a number between 0 and 1, got {fraction}")
    check_truth(matched, "matched")
    check_truth(controls, "controls")
    seeds, permutations = as_count(seeds, "seeds", 1), as_count(permutations, "permutations", 1)
    steps = (round(low * phase1), round(high * phase1))
    if steps[0] == steps[1]:
        raise ValueError(f"window must hold at least one step of phase 1, got {shown(window)} of {phase1}")
    return rate, _Plan(check_steps(phase1), steps, check_steps(forks), fraction, matched, seeds, permutations, controls)


def _check_layer(model: Any, params: Any, layer: Any, x: np.ndarray, targets: Any) -> Selection:
    """The layer in the parameters, seen to be a dense layer on the input: its gradient is `x delta^T`."""
    wanted = "layer must pick (weights, biases, outgoing weights, next biases) of a dense layer on the input"
    try:
        selected = select(lambda params: Layer(*layer(params)), params, "layer")
    except (KeyError, TypeError, IndexError, AttributeError):
        raise ValueError(f"{wanted}, got something else from params of type {shown(type(params).__name__)}") from None
    part = Layer(*selected.get(params))
    shapes = [np.shape(one) for one in part]
    units = shapes[1][0] if len(shapes[1]) == 1 else -1
    chained = shapes[0][1:] == shapes[1] and shapes[2][:1] == (units,) and shapes[3] == shapes[2][1:]
    if chained and shapes[0][0] != x.shape[1]:
        raise ValueError(
            f"data must have as many inputs as the model's layer reads, {shapes[0][0]}, got {x.shape[1]}: make the "
            "model for these data, or see that layer picks the layer on the input"
        )
    if not chained:
        raise ValueError(
            f"{wanted}, of shapes ({x.shape[1]}, units), (units,), (units, outputs), (outputs,), got {shapes}"
        )
    for n in (0, len(x) // 2, len(x) - 1):
        gradient = jax.grad(lambda p, n=n: model.loss(p, (jnp.asarray(x[n]), targets[n])))(params)
        found = Layer(*selected.get(gradient))
        outer = x[n][:, None] * np.asarray(found.biases)
        if np.max(np.abs(found.weights - outer)) > 1e-9 * max(1e-300, np.max(np.abs(outer))):
            raise ValueError(f"{wanted}: the gradient of these weights is not input times gradient of the biases")
    return selected
