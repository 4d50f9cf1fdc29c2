"""How a Boltzmann machine begins to learn: modes grow at a quarter of the eigenvalues of the off-diagonal covariance.

Near weights of 0, with visible biases that give the means, `dW/dt = (1/4) offdiag(C) W`: not the principal components
of the data but the eigenvectors of their covariance with its diagonal set to 0. Checked on digits.
"""

from typing import Any

import numpy as np

import thalweg as tw
from thalweg.studies._study import Claim, Outcome, Picture
from thalweg.studies.boltzmann_likelihood import split

ROOM = "energy"
SECONDS = 20
HEADLINE = False
SOURCE = "this library (derived); D. Bachtis, G. Biroli, A. Decelle and B. Seoane, arXiv 2405.14689"


def run(
    size: str = "quick", *, hidden: int = 8, steps: int = 6000, learning_rate: float = 0.1, seed: int = 0
) -> Outcome:
    """Exact gradients on 1,500 digits, from very small weights; then on, until the modes have been learned."""
    import jax

    if size == "full":
        steps = 2 * steps
    (data, _), _ = split()
    off = np.cov(data.T, bias=True)
    np.fill_diagonal(off, 0.0)
    values, vectors = np.linalg.eigh(off)
    values, vectors = values[::-1], vectors[:, ::-1]

    start = tw.energy.RBM.start(data, hidden, seed)
    mean = data.mean(axis=0)
    # Means that are exact, hidden units at 1/2, and weights so small that the first order is all there is.
    inside = np.clip(mean, 1e-6, 1 - 1e-6)
    tiny = tw.energy.RBM(1e-4 * np.asarray(start.weights), np.log(inside / (1 - inside)), np.zeros(hidden))
    short = 100
    process = tw.energy.training(tiny, data, "exact", optimizer=learning_rate, batch_size=len(data))
    early = tw.simulate(process, process.init(), short, key=0, record=lambda s, w, after: after.model.weights, every=5)
    along = np.einsum("im,tij->tmj", vectors[:, :2], np.asarray(early.record))
    sizes = np.linalg.norm(along, axis=2)
    measured = np.log(sizes[-1] / sizes[0]) / (5 * (len(sizes) - 1))
    predicted = np.log1p(learning_rate * values[:2] / 4)
    ratio = measured / predicted
    pca = np.linalg.eigvalsh(np.cov(data.T, bias=True))[::-1][:2]
    as_pca = measured / np.log1p(learning_rate * pca / 4)

    # On from usual small weights: when does each singular value leave the floor, and does the likelihood rise with it?
    learner = tw.energy.training(start, data, "exact", optimizer=learning_rate / 2, batch_size=len(data))

    def singular(state: Any, w: Any, after: Any) -> Any:
        return {
            "singular": jax.numpy.linalg.svd(after.model.weights, compute_uv=False),
            "likelihood": jax.numpy.mean(after.model.log_unnormalized(data)) - _log_z(after.model),
        }

    every = 10
    run = tw.simulate(learner, learner.init(), steps, key=0, record=singular, every=every)
    when = every * np.arange(1, 1 + len(run.record["likelihood"]))
    grown, likelihood = np.asarray(run.record["singular"]), np.asarray(run.record["likelihood"])
    passed = [int(when[np.argmax(grown[:, k] > 2)]) if np.any(grown[:, k] > 2) else None for k in range(hidden)]
    known = [p for p in passed if p is not None]
    one_by_one = len(known) >= 3 and len(set(known)) == len(known) and np.all(np.diff(known) > 0)
    claims = [
        Claim(
            "E12",
            "near W = 0 each mode grows at a quarter of an eigenvalue of the off-diagonal covariance",
            SOURCE,
            float(ratio[0]),
            "holds" if np.all(np.abs(ratio - 1) < 1e-3) else "fails",
            published="measured / predicted = 1",
            error=float(np.abs(ratio - 1).max()),
            note=f"eigenvalues {values[0]:.4f} and {values[1]:.4f}: measured over predicted {ratio[0]:.5f} and "
            f"{ratio[1]:.5f}; with principal components in their place {as_pca[0]:.3f} and {as_pca[1]:.3f}. The error "
            "is the larger distance from 1 (the next order in the weights)",
            details={"eigenvalues": values[:4], "ratios": ratio, "ratios to principal components": as_pca},
        ),
        Claim(
            "E13",
            "the modes are learned one by one, and the likelihood rises with each",
            SOURCE,
            "singular values 1.." + f"{len(known)} pass 2 at steps {', '.join(map(str, known))}",
            "holds in kind" if one_by_one else "fails",
            note=f"{steps} steps of rate {learning_rate / 2:g}, exact gradient; likelihood from {likelihood[0]:.2f} to "
            f"{likelihood[-1]:.2f} nats a digit",
        ),
    ]
    table = _data(when, grown, likelihood)
    return Outcome(
        f"The two leading modes of the digits grow at {ratio[0]:.6f} and {ratio[1]:.6f} of the rate that the "
        "eigenvalues of the off-diagonal covariance predict. Later the singular values of the weights pass 2 at "
        f"steps {', '.join(map(str, known))}.",
        claims,
        {"modes": _figure(table)},
        {"modes": table},
    )


def _log_z(model: Any) -> Any:
    """`log Z` over the hidden states, inside compiled code."""
    import jax

    h = model.hidden_states(jax.numpy.arange(model.hidden_count))
    return jax.nn.logsumexp(model.log_unnormalized_hidden(h))


def _data(when: Any, grown: Any, likelihood: Any) -> Any:
    import xarray

    return xarray.Dataset(
        {
            "singular_value": (("step", "mode"), grown),
            "likelihood": ("step", likelihood, {"units": "nats a digit", "long_name": "training log-likelihood"}),
        },
        {"step": when, "mode": 1 + np.arange(grown.shape[1])},
    )


def _figure(table: Any) -> Picture:
    import matplotlib.pyplot as plt

    with tw.plot.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.8))
        for mode in table.mode.values:
            left.plot(table.step, table.singular_value.sel(mode=mode), label=f"{mode}", color=plt.cm.cividis(mode / 9))
        left.axhline(2, color="#6f7276", linestyle=":")
        left.set(xlabel="step", ylabel="singular value of the weights", yscale="log")
        left.legend(title="mode", fontsize=8, ncols=2)
        right.plot(table.step, table.likelihood)
        right.set(xlabel="step", ylabel="log-likelihood [nats a digit]")
    return Picture(
        figure,
        "Left: the singular values of the weights grow exponentially and pass 2 (dotted) one after the other. Right: "
        "the exact log-likelihood of the training digits meanwhile.",
    )
