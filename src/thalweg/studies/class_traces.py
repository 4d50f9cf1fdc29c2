"""What a class of data leaves in the weights: a tally of updates by class, against machines that never saw the class.

The positive phase of every update is a sum over the batch, so it can be credited to classes; the negative phase has no
label. A fork without a class keeps every index and all of the noise: the class has weight 0 in its batches.
"""

from typing import Any

import numpy as np

import thalweg as tw
from thalweg.studies._study import Claim, Outcome, Picture
from thalweg.studies.boltzmann_likelihood import split

ROOM = "energy"
SECONDS = 20
HEADLINE = False
SOURCE = "this library (no published figure)"


def run(
    size: str = "quick", *, hidden: int = 16, epochs: int = 60, learning_rate: float = 0.3, seed: int = 0
) -> Outcome:
    """Ten forks of one training run, each without a digit, beside the run's own tally by class."""
    import jax
    import jax.numpy as jnp

    if size == "full":
        epochs = 5 * epochs
    (train, train_labels), (test, test_labels) = split()
    n, batch_size = len(train), 50
    steps = epochs * n // batch_size
    classes = np.arange(10)
    start = tw.energy.RBM.start(train, hidden, seed)
    process = tw.energy.training(
        start, train, optimizer=learning_rate, steps=steps, batch_size=batch_size, weights=np.ones(n)
    )
    label, mean = jnp.asarray(train_labels), jnp.mean(jnp.asarray(train), axis=0)

    def update(carry: Any, state: Any, w: Any, after: Any) -> Any:
        """The learning rate times each class's part of the positive phase, in the centred variables of training."""
        rate = learning_rate * jnp.maximum(0.0, 1 - state.step / steps)
        batch, chosen = jnp.asarray(train)[w["datum"]], label[w["datum"]]
        h = state.model.hidden_mean(batch)
        share = (chosen[:, None] == classes) / batch_size
        return carry + rate * jnp.einsum("bc,bi,bj->cij", share, batch - mean, h - jnp.mean(h, axis=0))

    tally = tw.Fold(lambda state: jnp.zeros((10, *state.model.weights.shape)), update)
    state = process.init(seed)
    whole = tw.simulate(process, state, steps, key=seed, folds={"tally": tally})
    without = jax.vmap(lambda c: (label != c).astype(float))(jnp.asarray(classes))
    forks = tw.ensemble(
        _with_weights(process, without), state, steps, key=seed, noise="shared", over=lambda p: p.step.weights
    )

    # The mark of a class: what its absence takes away. Both sides less their mean over classes, which all share.
    lost = np.asarray(whole.state.model.weights) - np.asarray(forks.state.model.weights)
    credit = np.asarray(whole.folds["tally"])
    correlation = _correlations(credit, lost)
    own, others = np.diag(correlation), correlation[~np.eye(10, dtype=bool)]
    right = int(np.sum(np.argmax(correlation, axis=1) == classes))
    chance = tw.stats.permutation_test(
        np.argmax(correlation, axis=1),
        classes,
        lambda a, b: float(np.mean(a == b)),
        key=0,
        permutations=999,
        paired=True,
        alternative="greater",
    )

    loss = _losses(whole.state.model, forks.state.model, test, test_labels)
    dropped, gained = np.diag(loss), -loss[~np.eye(10, dtype=bool)]
    claims = [
        Claim(
            "E17",
            "a tally of the positive phase by class says what a fork without the class loses",
            SOURCE,
            f"{right} of 10 classes are most like their own fork",
            "holds in kind"
            if right >= 8 and own.min() > others.mean() + 2 * others.std() / np.sqrt(len(others))
            else "fails",
            note=f"correlation of tally and fork over {credit[0].size} weights, own class {own.min():.2f} to "
            f"{own.max():.2f}, other classes {others.mean():.2f} on average; shuffled labels give as many right "
            f"with p = {float(chance):.3f}. One run; the negative phase carries no label and is credited to nobody",
            details={"own": own, "others": float(others.mean()), "correlation": correlation},
        ),
        Claim(
            "E17.loss",
            "a class that was never seen loses likelihood, the others hardly",
            SOURCE,
            f"dropped classes lose {dropped.min():.2f} to {dropped.max():.2f} nats, others gain {gained.mean():.2f} on "
            "average",
            "holds in kind" if dropped.min() > np.abs(gained).max() else "fails",
            error=float(gained.std(ddof=1) / np.sqrt(len(gained))),
            note=f"exact likelihood of test digits by class, {hidden} units, {epochs} epochs, one noise for all forks; "
            "the error is that of the others' mean over pairs of classes",
            details={"loss": loss},
        ),
    ]
    table = _data(correlation, loss)
    return Outcome(
        f"Of ten digits, {right} leave in the weights what the tally of their updates says: the correlation with what "
        f"a fork without the digit lacks is {own.mean():.2f} for its own tally and {others.mean():.2f} for others. A "
        f"digit that was never seen loses {dropped.mean():.1f} nats on average, the others gain {gained.mean():.2f}.",
        claims,
        {"traces": _figure(table)},
        {"traces": table},
    )


def _with_weights(process: Any, weights: Any) -> Any:
    """A process whose data have these weights, a row a fork."""
    import equinox as eqx

    return eqx.tree_at(lambda p: p.step.weights, process, weights)


def _correlations(credit: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Row c: the correlations of the tally of class c with what each fork lacks."""
    flat = [x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(axis=0) for x in (credit, lost)]
    flat = [x - x.mean(axis=1, keepdims=True) for x in flat]
    flat = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in flat]
    return flat[0] @ flat[1].T


def _losses(whole: Any, forks: Any, test: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many nats the digits of class j (columns) lose in the fork without class c (rows), exactly."""
    import jax

    def by_class(model: Any) -> np.ndarray:
        logs = np.asarray(model.log_unnormalized(test)) - float(tw.energy.log_partition(model, "exact"))
        return np.array([logs[labels == c].mean() for c in range(10)])

    full = by_class(whole)
    return np.array([full - by_class(jax.tree.map(lambda leaf, c=c: leaf[c], forks)) for c in range(10)])


def _data(correlation: np.ndarray, loss: np.ndarray) -> Any:
    import xarray

    digits = np.arange(10)
    return xarray.Dataset(
        {
            "correlation": (("tally_of", "fork_without"), correlation),
            "loss": (("fork_without", "test_digit"), loss, {"units": "nats"}),
        },
        {"tally_of": digits, "fork_without": digits, "test_digit": digits},
    )


def _figure(table: Any) -> Picture:
    import matplotlib.pyplot as plt

    with tw.plot.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2))
        most = float(np.abs(table.correlation).max())
        shown = left.imshow(table.correlation, cmap="RdBu_r", vmin=-most, vmax=most)
        figure.colorbar(shown, ax=left, label="correlation")
        left.set(xlabel="fork without digit", ylabel="tally of digit", xticks=range(10), yticks=range(10))
        shown = right.imshow(table.loss, cmap="cividis")
        figure.colorbar(shown, ax=right, label="loss of likelihood [nats]")
        right.set(xlabel="test digit", ylabel="fork without digit", xticks=range(10), yticks=range(10))
        for axes in (left, right):
            axes.grid(False)
    return Picture(
        figure,
        "Left: the tally of each digit's updates against what forks without a digit lack. Right: how much worse each "
        "fork models each digit. Both have their diagonal: the class that was dropped.",
    )
