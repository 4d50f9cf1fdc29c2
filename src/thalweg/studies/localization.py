"""Localization: do the parameters that a class of digits moved most change most when that class is taken away?

The experiment of the second knowledge post, on scikit-learn's digits (or MNIST: `--set path=FOLDER`), with what the
post leaves out: accuracy, chance by shuffling labels over data, wrong groups, the last gradient, and what is left below
pixels and units.
"""

from pathlib import Path
from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "knowledge"
SECONDS = 45
SOURCE = "J. Bostock, second post on finding knowledge in networks (digits experiment)"
TEST = "joint datum permutation test (labels shuffled over data, one shuffle for all networks), p"

# Name: activation, loss, learning rate. All on 8 x 8 digits, beside the framed digits of the main run.
OTHERS = {
    "ReLU, squared": ("relu", "mse", 0.01),
    "sigmoid, squared": ("sigmoid", "mse", 0.1),
    "tanh, squared": ("tanh", "mse", 0.03),
    "softplus, squared": ("softplus", "mse", 0.03),
    "softplus, cross-entropy": ("softplus", "xent", 0.03),
    "sigmoid, cross-entropy": ("sigmoid", "xent", 0.03),
    "GELU, rate .01": ("gelu", "mse", 0.01),
    "GELU, rate .1": ("gelu", "mse", 0.1),
}


def run(size: str = "quick", *, path: str = "", seeds: int = 4, permutations: int = 199) -> Outcome:
    """Phase 1, tallies, four forks and their shares, for several networks; then other activations and losses."""
    import thalweg as tw

    if size == "full":
        seeds, permutations = 2 * seeds, 999
    keep = (1, 7, 6, 8)
    framed = tw.systems.digits(path or None, keep=keep, frame=28)
    small = framed if path else tw.systems.digits(keep=keep)
    main = _localize(framed, "softplus", "mse", 0.01, seeds, permutations)
    fewer = seeds if size == "full" else max(3, seeds - 1)
    others = {name: _localize(small, *how, fewer, permutations) for name, how in OTHERS.items()}
    claims = [
        _weights(main),
        _biases(main),
        _levels(main, others),
        _heat(main),
        _activations(main, others),
        _window(main),
        _history(main, others),
        _broken(others),
        _function(main, others),
    ]
    fields = {"framed": main.to_xarray(), **{_slug(name): found.to_xarray() for name, found in others.items()}}
    return Outcome(
        summary=f"{_images(main)}, softplus, squared error, {seeds} networks. {main.verdict}",
        claims=claims,
        figures={
            "levels": _figure_levels(main),
            "heatmap": _figure_heat(main),
            "settings": _figure_others(main, others),
        },
        data=fields,
    )


def _localize(data: Any, activation: str, loss: str, rate: float, seeds: int, permutations: int) -> Any:
    import thalweg as tw

    model = tw.systems.perceptron((data.images.shape[1], 100, 2), activation, loss)
    return tw.knowledge.localize(model, data, optimizer=rate, seeds=seeds, permutations=permutations, key=11)


def _pixels(found: Any) -> str:
    rows, columns = found.to_xarray().attrs["image_shape"]
    return f"{rows} x {columns}"


def _images(found: Any) -> str:
    """What was looked at; of files the name of their folder, and not where they lie."""
    source = Path(found.to_xarray().attrs["source"])
    return (
        f"Images from {source.parent.name}" if "ubyte" in source.name else "Digits of scikit-learn, framed in 28 x 28"
    )


def _slug(name: str) -> str:
    return name.lower().replace(", ", "_").replace(" ", "_").replace("-", "_").replace(".", "")


def _facts(found: Any, level: str) -> dict[str, Any]:
    """What stands beside every correlation: learning, all levels, chance, controls, partials, undefined shares."""
    fields = found.to_xarray()
    good = fields.where(fields.trained)
    mean = lambda array: {  # noqa: E731
        str(name): float(value) for name, value in zip(array[array.dims[0]].values, array.values, strict=True)
    }
    R2 = found.estimate(level, "R2")
    return {
        "accuracy": float(good.accuracy.mean()),
        "loss": float(good.loss.mean()),
        "trained": int(fields.trained.sum()),
        "seeds": int(fields.sizes["seed"]),
        "undefined": float(good.undefined.mean()),
        "R2": R2.value,
        "R2_error": R2.error,
        "r_by_seed": fields.r.sel(level=level).values.tolist(),
        "levels": mean(good.r.mean("seed")),
        "p_joint": float(fields.p_joint.sel(tested=level if level in ("biases", "unit", "live") else "live")),
        "null_sd": mean(good.null_sd.mean("seed")),
        "controls": mean(good.control.sel(level=level).mean("seed")),
        "partial": mean(good.partial.sel(level=level).mean("seed")),
    }


def _weights(main: Any) -> Claim:
    facts, R2 = _facts(main, "weights"), main.estimate("weights", "R2")
    signs = sum(r > 0 for r in facts["r_by_seed"])
    verdict = "holds" if abs(R2.value - 0.28) < 3 * R2.error else "holds in kind" if R2.value > 0.14 else "fails"
    return Claim(
        "K5",
        "the tally share of a weight goes with its fork share",
        SOURCE,
        R2,
        verdict,
        published=0.28,
        note=f"R2 over all weights, mean over networks at accuracy {facts['accuracy']:.3f}; r is positive in {signs} "
        f"of {facts['seeds']}. Border weights are copies of biases; over live weights alone r is "
        f"{main.estimate('live')}, {TEST} {facts['p_joint']:.3g}. {_images(main)}; for MNIST itself: --set path=FOLDER",
        details=facts,
    )


def _biases(main: Any) -> Claim:
    facts, R2 = _facts(main, "biases"), main.estimate("biases", "R2")
    beyond = facts["p_joint"] <= 0.05 and facts["levels"]["biases"] > 0
    spread = facts["null_sd"]["biases"]
    return Claim(
        "K6",
        "the tally share of a bias goes with its fork share (p < 1e-4 by a t-test)",
        SOURCE,
        R2,
        "holds" if beyond else "not decidable here",
        published=0.17,
        note=f"R2 over biases; {TEST} {facts['p_joint']:.3g}. The post's own p fails: under shuffled labels r of one "
        f"network spreads by {spread:.2f}, where a t-test over 100 units assumes 0.10, because units share their data",
        details=facts,
    )


def _levels(main: Any, others: dict[str, Any]) -> Claim:
    import numpy as np

    facts = _facts(main, "interaction")
    parts = main.variance.where(main.trained).sel(side="tally").mean("seed")
    R2 = main.estimate("interaction", "R2")
    sound = [found.estimate("interaction", "R2").value for found in (main, *others.values()) if found.trained.all()]
    units = float(parts.sel(part="unit")) > float(parts.sel(part="interaction"))
    return Claim(
        "K7",
        "clusters of weights with one share are units, and weights follow the pattern of biases",
        SOURCE,
        R2,
        "holds" if units and R2.value < 0.02 else "fails",
        published="seen",
        note=f"R2 of what is left of a weight's share below its pixel and its unit (r {main.estimate('interaction')}); "
        f"at most {np.nanmax(sound):.2g} in the settings where all networks learned: next to nothing is localized "
        "below units",
        details={**facts, "variance": {str(p): float(parts.sel(part=p)) for p in parts.part.values}},
    )


def _heat(main: Any) -> Claim:
    import numpy as np

    import thalweg as tw

    heat = main.heatmap.values[main.trained.values]
    live = _live(main)
    border = heat[:, ~live].mean(axis=1)
    inside = heat[:, live].mean(axis=1)
    negative = float(np.mean(heat[:, live] < 0))
    return Claim(
        "K8",
        "the heat map of correlations by pixel is mostly positive, and weak at the border",
        SOURCE,
        tw.Estimate(float(inside.mean()), float(inside.std(ddof=1) / len(inside) ** 0.5)),
        "fails" if negative > 1 / 3 or border.mean() > inside.mean() else "holds",
        published="seen",
        note=f"mean r over live pixels; {negative:.0%} of them are negative. The border is not weak: there r is the "
        f"biases' ({border.min():.2f} to {border.max():.2f}), by an identity",
        details=_facts(main, "pixel"),
    )


def _live(main: Any) -> Any:
    """Pixels that vary: their weights are not copies of the biases, so that r differs from that of the border."""
    import numpy as np

    heat = main.heatmap.values
    return np.abs(heat - heat[:, :1]).max(axis=0) > 1e-4


def _activations(main: Any, others: dict[str, Any]) -> Claim:
    found = {f"softplus, squared, {_pixels(main)}": main, **others}
    said = [
        f"{name}: {one.estimate('unit').value:.2f} (joint p {float(one.p_joint.sel(level='unit')):.3g}, "
        f"{int(one.trained.sum())} of {one.trained.size} learned)"
        for name, one in found.items()
    ]
    sigmoid = others["sigmoid, squared"]
    clear = float(sigmoid.p_joint.sel(level="unit")) <= 0.05 and sigmoid.estimate("unit").value > 0
    return Claim(
        "K9",
        "the correlation is there for ReLU-like activations only, never for the sigmoid",
        SOURCE,
        sigmoid.estimate("unit"),
        "fails" if clear else "not decidable here",
        published="seen",
        note="measured: r over units of sigmoid networks under squared error. All: " + "; ".join(said),
        details=_facts(sigmoid, "unit"),
    )


def _window(main: Any) -> Claim:
    second = main.r.sel(level="weights") ** 2
    whole = main.control.sel(name="whole_phase", level="weights") ** 2
    gain = main.mean((second - whole).values)
    return Claim(
        "K10",
        "tallies of the second half of phase 1 correlate a little better than those of the whole",
        SOURCE,
        gain,
        "holds" if gain.value > 2 * gain.error else "fails" if gain.value < -2 * gain.error else "not decidable here",
        published="> 0",
        note=f"R2 of weights, second half less whole, paired: {main.mean(second.values)} and {main.mean(whole.values)}",
        details=_facts(main, "weights"),
    )


def _history(main: Any, others: dict[str, Any]) -> Claim:
    entropy = others["softplus, cross-entropy"]
    gain = {
        name: found.mean(found.partial.sel(given="snapshot", level="unit").values)
        for name, found in (("squared", main), ("entropy", entropy))
    }
    alone = {
        name: found.estimate("unit", control="snapshot") for name, found in (("squared", main), ("entropy", entropy))
    }
    adds = {name: one.value > 3 * one.error for name, one in gain.items()}
    verdict = "holds" if all(adds.values()) else "holds in kind" if any(adds.values()) else "fails"
    return Claim(
        "K11",
        "it is the history that tells, not the network as it stands: r given the last gradient is positive",
        "thalweg (a control the post lacks)",
        gain["entropy"],
        verdict,
        published="> 0",
        note=f"partial r over units given the gradient at the end of phase 1, cross-entropy ({_pixels(entropy)}); "
        f"squared error ({_pixels(main)}): {gain['squared']}. The gradient alone: {alone['entropy']} and "
        f"{alone['squared']}; the tally: {entropy.estimate('unit')} and {main.estimate('unit')}",
        details={"entropy": _facts(entropy, "unit"), **_facts(main, "unit")},
    )


def _broken(others: dict[str, Any]) -> Claim:
    import numpy as np

    broken, sound = others["GELU, rate .1"], others["GELU, rate .01"]
    R2 = (broken.r.sel(level="weights") ** 2).values
    failed = ~broken.trained.values
    good = sound.estimate("weights", "R2")
    higher = failed.any() and R2[failed].min() > good.value + 2 * good.error
    relu = others["ReLU, squared"]
    zeroed = (relu.control.sel(name="undefined_as_zero", level="weights") ** 2).values
    plain = (relu.r.sel(level="weights") ** 2).values
    traps = np.nanmean(zeroed) > np.nanmean(plain)
    measured = R2[failed] if failed.any() else R2
    return Claim(
        "K12",
        "a high R2 comes from networks that did not learn, and from setting 0/0 to 0",
        "thalweg (our own)",
        float(np.nanmean(measured)),
        "holds" if higher and traps else "holds in kind" if higher or traps else "not decidable here",
        error=float(np.nanstd(measured, ddof=1) / len(measured) ** 0.5) if len(measured) > 1 else None,
        note=f"R2 of weights, mean over networks that did not learn. GELU at rate .1: accuracies "
        f"{_list(broken.accuracy)}, R2 {_list(R2)}; at rate .01 "
        f"(accuracy {float(sound.accuracy.where(sound.trained).mean()):.2f}) {good}. ReLU: setting the shares of "
        f"{_list(relu.undefined)} dead units to 0 turns R2 {_list(plain)} into {_list(zeroed)}",
        details=_facts(sound, "weights"),
    )


def _list(values: Any) -> str:
    return ", ".join(f"{float(value):.3g}" for value in values)


def _function(main: Any, others: dict[str, Any]) -> Claim:
    entropy = others["softplus, cross-entropy"]
    tally = main.mean(main.ablation.sel(name="tally").values)
    snapshot = main.mean(main.ablation.sel(name="snapshot").values)
    partial = main.mean(main.ablation.sel(name="partial").values)
    return Claim(
        "K13",
        "the tally share of a unit predicts whose losses it carries (ablation), beyond the last gradient",
        "thalweg (our own)",
        partial,
        "holds" if partial.value > 2 * partial.error and partial.value > 0.5 * tally.value else "fails",
        note=f"partial r given the gradient; plain r {tally}, but the last gradient alone {snapshot}. Cross-entropy "
        f"({_pixels(entropy)}): {entropy.mean(entropy.ablation.sel(name='tally').values)}",
        details=_facts(main, "unit"),
    )


def _figure_levels(main: Any) -> Picture:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    levels = [str(level) for level in main.r.level.values]
    with tw.plot.style():
        figure, axes = plt.subplots(figsize=(7.5, 3.8))
        shown = [
            ("tally", main.r, "o"),
            ("last gradient", main.control.sel(name="snapshot"), "s"),
            ("wrong groups", main.control.sel(name="groups_16_78"), "D"),
            ("other network", main.control.sel(name="other_network"), "^"),
        ]
        for n, (label, values, marker) in enumerate(shown):
            good = values.where(main.trained)
            error = good.std("seed", ddof=1) / np.sqrt(good.count("seed"))
            at = np.arange(len(levels)) + 0.15 * (n - 1.5)
            axes.errorbar(at, good.mean("seed"), yerr=error, marker=marker, linestyle="none", capsize=3, label=label)
        axes.axhline(0, color="#6f7276", linewidth=1)
        axes.set_xticks(np.arange(len(levels)), levels)
        axes.set(ylabel="r with the fork share")
        axes.legend(fontsize=9)
    return Picture(
        figure,
        "Correlation with the fork share, mean over networks with one standard error. Live weights read pixels that "
        "vary, constant ones read the border; unit and pixel are means over live weights, interaction is what is left.",
    )


def _figure_heat(main: Any) -> Picture:
    import matplotlib.pyplot as plt

    import thalweg as tw

    shape = tuple(int(size) for size in main.to_xarray().attrs["image_shape"])
    with tw.plot.style():
        figure, axes = plt.subplots(figsize=(4.8, 3.8))
        heat = main.heatmap.where(main.trained).mean("seed").values.reshape(shape)
        drawn = axes.imshow(heat, cmap="RdBu_r", vmin=-0.6, vmax=0.6)
        axes.grid(False)
        axes.set(xlabel="column", ylabel="row")
        figure.colorbar(drawn, ax=axes, label="r of tally and fork share")
    return Picture(
        figure, "Per pixel, the correlation over its 100 weights, mean over networks. The border repeats the biases."
    )


def _figure_others(main: Any, others: dict[str, Any]) -> Picture:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    found = {f"softplus, squared, {_pixels(main)}": main, **others}
    with tw.plot.style():
        figure, axes = plt.subplots(figsize=(7.5, 4.2))
        for n, one in enumerate(found.values()):
            learned = one.trained.values
            r = one.r.sel(level="unit").values
            axes.plot(r[learned], np.full(learned.sum(), n), "o", color="#1b3a5c", label="learned" if n == 0 else None)
            label = "did not learn" if n == 0 else None
            axes.plot(r[~learned], np.full((~learned).sum(), n), "x", color="#b3382c", label=label)
        axes.set_yticks(range(len(found)), found)
        axes.invert_yaxis()
        axes.axvline(0, color="#6f7276", linewidth=1)
        axes.set(xlabel="r of tally and fork share over units")
        axes.legend()
    return Picture(figure, "Every network of every setting; networks that did not learn are crosses and enter no mean.")
