"""Do modified equations improve the diffusion approximation? The drift alone makes it worse."""

import equinox as eqx
import jax
import numpy as np

import thalweg as tw
from thalweg.studies._study import Claim, Outcome, Picture

ROOM = "flow"
SECONDS = 15
HEADLINE = False
SOURCE = "Li, Tai and E (2017), stochastic modified equations; this library"

KINDS = {
    "order 1 (Ito)": {"order": 1},
    "drift corrected": {"order": 2, "diffusion_order": 1},
    "both corrected": {"order": 2},
}
SPREAD = 0.2
# Variance in the pit after relaxing, from the exact transfer operator.
PIT = {0.001: 3.136e-6, 0.004: 1.883e-5}


def run(size: str = "quick") -> Outcome:
    """Stationary variances of linear noise and of the pit, exact against three diffusions; where D turns negative."""
    rates = np.geomspace(0.005, 0.5, 9 if size == "quick" else 40)
    exact = 4 * rates * SPREAD**2 / (2 - rates - rates * SPREAD**2)
    errors = {name: np.array([linear_variance(T, **kind) for T in rates]) / exact - 1 for name, kind in KINDS.items()}
    doubling = float(errors["drift corrected"][0] / errors["order 1 (Ito)"][0])
    slope = float(np.polyfit(np.log(rates[:5]), np.log(abs(errors["both corrected"][:5])), 1)[0])
    in_pit = {T: {name: pit_variance(T, **kind) / v - 1 for name, kind in KINDS.items()} for T, v in PIT.items()}
    negative = lowest_rate_with_negative_diffusion()

    claims = [
        Claim(
            "F24",
            "a second-order modified equation improves the description",
            SOURCE,
            doubling,
            "fails",
            published="smaller weak error",
            note="ratio of the relative errors of the variance as T -> 0, drift corrected over uncorrected: the drift "
            "alone doubles the error, since a stationary variance is itself O(T); escapes stay exponentially wrong "
            "either way",
        ),
        Claim(
            "F24.both",
            "drift and diffusion corrected leave an error of second order in T",
            "this library",
            slope,
            "holds" if abs(slope - 2) < 0.1 else "fails",
            published=2,
            note="slope of log |relative error of the variance| against log T for linear noise",
        ),
        Claim(
            "F24.pit",
            "both corrections fix the variance in the bulk of the pit",
            "this library",
            f"{100 * in_pit[0.001]['both corrected']:.1f}% at T = 0.001 (uncorrected "
            f"{100 * in_pit[0.001]['order 1 (Ito)']:.1f}%, drift alone {100 * in_pit[0.001]['drift corrected']:.1f}%)",
            "holds",
            note=f"at T = 0.004: {100 * in_pit[0.004]['both corrected']:.1f}% against "
            f"{100 * in_pit[0.004]['order 1 (Ito)']:.1f}% uncorrected",
            details={str(T): values for T, values in in_pit.items()},
        ),
        Claim(
            "F24.domain",
            "the corrected diffusion is positive in the pit",
            "this library",
            negative,
            "fails",
            note="the lowest learning rate tried at which it is negative somewhere between the bottom and the lip; "
            "just left of the bottom it is negative at every rate, since the noise vanishes at W = 1",
        ),
    ]
    return Outcome(
        "Correcting the drift of the diffusion approximation for the step size doubles the error of a stationary "
        f"variance (measured {doubling:.3f}); correcting drift and diffusion leaves O(T^2). The corrected diffusion "
        "turns negative where the noise changes fast, and says so.",
        claims,
        {"variance": _variance(rates, errors), "diffusion": _diffusion()},
        {"variance": _data(rates, errors)},
    )


def at(equation, points) -> tuple[np.ndarray, np.ndarray]:
    """Drift and diffusion at points; one compilation serves all learning rates."""
    drift, diffusion = _at(equation, points)
    return np.asarray(drift), np.asarray(diffusion)


@eqx.filter_jit
def _at(equation, points):
    return jax.vmap(lambda x: (equation.drift(x), equation.diffusion(x)))(points)


def linear_variance(T: float, **kind) -> float:
    """Stationary variance of the diffusion for linear noise: linear drift, quadratic diffusion, in closed form."""
    equation = tw.flow.modified_equation(tw.systems.linear_noise(T, SPREAD), **kind)
    drift, D = at(equation, np.array([1.0, 2.0, 3.0]))
    slope, curve = drift[1] - drift[0], (D[0] - 2 * D[1] + D[2]) / 2
    return D[1] / (-2 * slope - curve)


def pit_variance(T: float, **kind) -> float:
    """Variance of the density with no current, from where the diffusion turns positive to the lip."""
    equation = tw.flow.modified_equation(tw.systems.pit(T), **kind)
    bottom, lip = tw.systems.pit_points()[:2]
    x = np.linspace(1.0, lip, 100_001)[1:]
    b, D = at(equation, x)
    wrong = np.flatnonzero((x < bottom) & (D <= 0))
    x, b, D = (part[wrong[-1] + 1 if len(wrong) else 0 :] for part in (x, b, D))
    rate = 2 * b / D
    log_p = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(x))]) - np.log(D)
    p = np.exp(log_p - log_p.max())
    mean = np.sum(p * x) / np.sum(p)
    return float(np.sum(p * (x - mean) ** 2) / np.sum(p))


def lowest_rate_with_negative_diffusion() -> float:
    bottom, lip = tw.systems.pit_points()[:2]
    x = np.linspace(bottom, lip, 400)
    for T in np.round(np.arange(0.001, 0.05, 0.001), 3):
        if not tw.flow.modified_equation(tw.systems.pit(float(T)), 2).validity(x).ok:
            return float(T)
    return float("nan")


def _data(rates, errors):
    import xarray

    names = list(errors)
    return xarray.Dataset(
        {
            "error": (
                ("kind", "T"),
                np.array([errors[name] for name in names]),
                {"long_name": "relative error of variance"},
            )
        },
        {"kind": names, "T": ("T", rates, {"long_name": "learning rate"})},
    )


STYLES = {"order 1 (Ito)": ("-", "#1b3a5c"), "drift corrected": ("--", "#c8553d"), "both corrected": (":", "#3c8d5a")}


def _variance(rates, errors):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, values in errors.items():
        style, colour = STYLES[name]
        axes.loglog(rates, abs(values), style, marker=".", color=colour, label=name)
    axes.set(xlabel="learning rate T", ylabel="relative error of the stationary variance (size)")
    axes.legend(frameon=False)
    return Picture(
        figure,
        "Linear noise: how far the stationary variance of three diffusions is from that of the process. Correcting "
        "the drift alone doubles the error; correcting both leaves second order.",
    )


def _diffusion():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    x = np.linspace(0.98, 1.2, 600)
    for T, colour in ((0.002, "#1b3a5c"), (0.01, "#3c8d5a"), (0.02, "#c8553d")):
        for order, style in ((1, "--"), (2, "-")):
            equation = tw.flow.modified_equation(tw.systems.pit(T), order)
            label = f"T = {T}" if order == 2 else None
            axes.plot(x, at(equation, x)[1] / T**2, style, color=colour, label=label)
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel="W", ylabel=r"diffusion a step / $T^2$")
    axes.legend(frameon=False, title="solid: corrected; dashed: order 1")
    return Picture(
        figure,
        "The diffusion in the pit, corrected for the step size and not. Where the solid line is below zero no "
        "diffusion has the moments of a step.",
    )
