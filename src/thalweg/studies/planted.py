"""Planted knowledge: where what a group of data taught is known to sit, which method finds it, and at what cost?

Our own benchmark. Three learners store what group 0 teaches in a region that is known (`tw.systems.planted`): by
gradient routing, by a sub-network that computes the group's data alone, and in one head of a small transformer; half of
group 0 is treated so, the other half moves the whole network. Methods give each unit a score, judged by AUROC: the odds
that a unit of the region scores above another, 1/2 by chance. The tally saw the training; all other methods see the
trained network only.
"""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "knowledge"
SECONDS = 20
HEADLINE = True
SOURCE = "thalweg (no published figure); planting as in Cloud et al., Gradient Routing (arXiv:2410.04332)"
METHODS = {
    "tally": "tally of |updates|",
    "signed_tally": "tally, signed",
    "gradient": "last gradient",
    "fisher": "Fisher",
    "ablation": "ablation",
    "influence": "influence function",
}
_OUTCOMES = {"loses": "fails", "is level within the error": "not decidable here", "wins": "holds"}
SYSTEMS = {"routing": "gradient routing", "subnetwork": "masked sub-network", "head": "one head of a transformer"}


def run(size: str = "quick", *, seeds: int = 5, routed: float = 0.5) -> Outcome:
    """Train each system from several starts, score its units by each method, and time the second call of each."""
    import numpy as np
    import xarray

    shares = (1.0, routed, routed / 2) if size == "full" else (routed,)
    seeds = 5 * seeds if size == "full" else seeds
    found = {
        (kind, share): [_contest(kind, share, seed, timed=seed == seeds - 1) for seed in range(seeds)]
        for kind in SYSTEMS
        for share in shares
    }
    values = np.array([[[one[0] for one in found[kind, share]] for share in shares] for kind in SYSTEMS])
    seconds = np.array([[found[kind, share][-1][1] for share in shares] for kind in SYSTEMS])
    learned = np.array([[[one[2] for one in found[kind, share]] for share in shares] for kind in SYSTEMS])
    dims = ("system", "routed", "seed", "score")
    data = xarray.Dataset(
        {
            "auroc": (dims, values, {"long_name": "AUROC"}),
            "seconds": (("system", "routed", "score"), seconds, {"units": "s"}),
            "loss": (("system", "routed", "seed", "group"), learned, {"units": "nats"}),
        },
        coords={"system": list(SYSTEMS), "routed": list(shares), "score": list(METHODS), "group": [0, 1]},
    )
    main = data.sel(routed=routed)
    claims = [_claim(f"P{n}", kind, main.sel(system=kind)) for n, kind in enumerate(SYSTEMS, 1)]
    return Outcome(
        summary=_headline(main, claims),
        claims=claims,
        figures={"auroc": _figure(main)},
        data={"contest": data},
    )


def _contest(kind: str, share: float, seed: int, timed: bool) -> tuple[list[float], list[float], list[float]]:
    """AUROC and seconds of each method on one trained system, and its loss on both groups."""
    import time

    import jax
    import numpy as np

    import thalweg as tw

    system = tw.systems.planted(kind, share, seed)

    def train(folds: Any) -> Any:
        start = system.process.init(system.init(seed))
        run = tw.simulate(system.process, start, system.steps, key=1000 + seed, folds=folds)
        return jax.block_until_ready(run.folds), run

    tally = {"tally": tw.knowledge.Tally(system.groups, system.process)}
    folds, run = train(tally)
    params = run.state.params

    def score(method: str) -> Any:
        return tw.knowledge.unit_scores(
            method,
            system.owner,
            system.groups,
            loss=system.loss,
            data=system.data,
            params=params,
            tally=folds["tally"],
        )

    def clock(act: Any) -> float:
        begin = time.perf_counter()
        act()
        return time.perf_counter() - begin

    aurocs = [tw.knowledge.auroc(score(method), system.truth) for method in METHODS]
    seconds = [float("nan")] * len(METHODS)
    if timed:  # everything is compiled by now; a tally costs what training takes longer with it
        train(None)
        extra = max(0.0, clock(lambda: train(tally)) - clock(lambda: train(None)))
        seconds = [extra if "tally" in method else clock(lambda m=method: score(m)) for method in METHODS]
    losses = np.asarray(jax.vmap(lambda datum: system.loss(params, datum))(system.data))
    return aurocs, seconds, [float(losses[system.groups == g].mean()) for g in (0, 1)]


def _estimate(values: Any) -> Any:
    import thalweg as tw

    return tw.Estimate(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5))


def _claim(name: str, kind: str, part: Any) -> Claim:
    """Does the tally find the planted region better than every method that sees the trained network only?"""
    aurocs = {method: part.auroc.sel(score=method).values for method in METHODS}
    rivals = [method for method in METHODS if "tally" not in method]
    best = max(rivals, key=lambda method: aurocs[method].mean())
    ahead = _estimate(aurocs["tally"] - aurocs[best])
    beyond = abs(ahead.value) > 2 * ahead.error
    verdict = "not decidable here" if not beyond else "holds" if ahead.value > 0 else "fails"
    return Claim(
        name,
        f"{SYSTEMS[kind]}: the tally finds the planted region better than the best method without history",
        SOURCE,
        ahead,
        verdict,
        published="> 0",
        note=f"difference of AUROC from {METHODS[best]}, paired over {len(aurocs['tally'])} starts; loss on the "
        f"planted group {float(part.loss.sel(group=0).mean()):.2g} nats, on the rest "
        f"{float(part.loss.sel(group=1).mean()):.2g}; chance is an AUROC of 1/2",
        details={
            "seeds": len(aurocs["tally"]),
            "auroc": {m: float(v.mean()) for m, v in aurocs.items()},
            "error": {m: _estimate(v).error for m, v in aurocs.items()},
            "seconds": {m: float(part.seconds.sel(score=m)) for m in METHODS},
        },
    )


def _headline(main: Any, claims: list[Claim]) -> str:
    """Who wins, first of all: where the tally loses, or is not ahead, the first sentence says so."""
    means = main.auroc.mean(["system", "seed"])
    order = sorted(METHODS, key=lambda method: -float(means.sel(score=method)))
    rival = next(method for method in order if "tally" not in method)
    counts = {word: sum(c.verdict == verdict for c in claims) for word, verdict in _OUTCOMES.items()}
    told = " and ".join(f"{word} in {count}" for word, count in counts.items() if count)
    each = "; ".join(
        f"{SYSTEMS[kind]} {float(part.sel(score='tally')):.2f} against {float(part.sel(score=rival)):.2f}"
        for kind, part in ((kind, main.auroc.sel(system=kind).mean("seed")) for kind in SYSTEMS)
    )
    first = (
        f"Of three systems with planted knowledge the tally {told}, against the best method that sees the trained "
        f"network only. AUROC (the odds to put a unit of the region before another) of tally and {METHODS[rival]}: "
        f"{each}."
    )
    rest = ", ".join(f"{METHODS[m]} {float(means.sel(score=m)):.2f}" for m in order if m not in (rival, "tally"))
    costs = main.seconds.mean("system")
    cost = ", ".join(f"{METHODS[m]} {1000 * float(costs.sel(score=m)):.0f}" for m in METHODS if m != "signed_tally")
    return f"{first} Means of the others: {rest} (chance 0.5). Cost beyond training, compiled, milliseconds: {cost}."


def _figure(main: Any) -> Picture:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        figure, axes = plt.subplots(figsize=(7.5, 3.8))
        for n, (kind, label) in enumerate(SYSTEMS.items()):
            part = main.auroc.sel(system=kind)
            error = part.std("seed", ddof=1) / np.sqrt(part.sizes["seed"])
            at = np.arange(len(METHODS)) + 0.2 * (n - 1)
            axes.errorbar(at, part.mean("seed"), yerr=error, marker="osD"[n], linestyle="none", capsize=3, label=label)
        axes.axhline(0.5, color="#6f7276", linestyle=":", label="chance")
        axes.set_xticks(np.arange(len(METHODS)), [label.replace(" ", "\n", 1) for label in METHODS.values()])
        axes.set(ylabel="AUROC of the planted region", ylim=(0.2, 1.03))
        axes.legend(loc="lower left", fontsize=9)
    caption = "How well each method tells the units of the planted region from the others: mean over starts, one error."
    return Picture(figure, caption)
