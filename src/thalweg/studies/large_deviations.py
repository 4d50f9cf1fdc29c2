"""How rare escapes from the pit are: the coin's large deviations, the exact operator's rates, and the diffusion."""

import numpy as np

import thalweg as tw
from thalweg.studies._study import Claim, Outcome, Picture

ROOM = "flow"
SECONDS = 20
HEADLINE = False
SOURCE = 'J. Bostock, "Modelling and Understanding SGD" and "SGD Understood through Probability Current"; this library'

# Escape rates a step from the exact transfer operator, to six digits (Richardson extrapolation over grids).
EXACT = {0.003: 1.49851e-21, 0.004: 1.23298e-16, 0.006: 1.15848e-11}


def run(size: str = "quick") -> Outcome:
    """Rates by quasi-potential against exact ones, C(T), and the exponent of the diffusion."""
    points = tw.systems.pit_points()
    rates = np.linspace(0.0025, 0.012, 200)
    found = tw.flow.quasi_potential(tw.systems.pit(0.01), points.bottom, points.lip)
    V, V_fp = float(found.value) * 0.01, float(found.diffusion.value) * 0.01
    C, C_fp = found.rate.details["prefactor"] / 0.01, found.diffusion.rate.details["prefactor"] / 0.01

    def coin(T):
        return C * T * np.exp(-V / T)

    def diffusion(T):
        return C_fp * T * np.exp(-V_fp / T)

    worst = max(abs(coin(T) / exact - 1) for T, exact in EXACT.items())
    wrong = {T: diffusion(T) / exact for T, exact in EXACT.items()}
    # One measurement by splitting, where Monte Carlo sees nothing: escape within 100 steps at T = 0.008.
    rare = tw.flow.splitting(
        tw.systems.pit(0.008),
        points.bottom,
        _position,
        points.lip_of_l1,
        100,
        key=0,
        repeats=8 if size == "quick" else 40,
    )
    prefactors = {T: exact * np.exp(V / T) / T for T, exact in EXACT.items()}

    claims = [
        Claim(
            "F10",
            "the logarithm of the escape time is a function of 1/T",
            SOURCE,
            f"C T exp(-V/T) with V = {V:.7f}, C = {C:.4f}: exact rates over ten decades within {100 * worst:.1f}%",
            "holds in kind",
            published="log of the steps is a function of T",
            note="true for T below about 0.006; at larger T expanding maps take over",
            details={"V": V, "C": C, "C(T)": {str(T): c for T, c in prefactors.items()}},
        ),
        Claim(
            "F18.exponent",
            "the diffusion approximation gives the right exponent",
            SOURCE,
            V_fp,
            "fails",
            error=float(found.diffusion.value.error) * 0.01,
            note=f"the exact one is {V:.7f}: at T = 0.003 the diffusion's rate is {wrong[0.003]:.2g} times "
            f"too large, at 0.006 {wrong[0.006]:.2g}",
            details={"V_FP": V_fp, "C_FP": C_fp},
        ),
        Claim(
            "F10.splitting",
            "escapes within 100 steps at T = 0.008 can be measured without an operator",
            "this library",
            rare,
            "holds" if rare.ok else "not decidable here",
            note=f"adaptive multilevel splitting, {int(rare.details['paths'])} paths, mean of repeats; {rare.message}",
        ),
    ]
    return Outcome(
        f"The escape rate of the pit is C T exp(-V/T) with V = {V:.6f}, to {100 * worst:.1f}% of the exact rates "
        f"between 1e-11 and 1e-21 a step. The diffusion has the exponent {V_fp:.6f} instead: at T = 0.003 its rate is "
        f"{wrong[0.003]:.1g} times too large. Where no datum opposes the drift, at W = 2, V is infinite.",
        claims,
        {"rates": _rates(rates, coin, diffusion), "path": _path(found, prefactors, C)},
        {"rates": _data(rates, coin, diffusion)},
    )


def _position(W):
    return W


def _data(T, coin, diffusion):
    import xarray

    return xarray.Dataset(
        {
            "coin": ("T", coin(T), {"long_name": "escape rate a step, large deviations of the coin"}),
            "diffusion": ("T", diffusion(T), {"long_name": "escape rate a step, diffusion approximation"}),
        },
        {"T": ("T", T, {"long_name": "learning rate"})},
    )


def _rates(T, coin, diffusion):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.semilogy(T, coin(T), "-", color="#1b3a5c", label=r"coin: $C\,T\,e^{-V/T}$")
    axes.semilogy(T, diffusion(T), "--", color="#c8553d", label=r"diffusion: $C_{FP}\,T\,e^{-V_{FP}/T}$")
    axes.semilogy(list(EXACT), list(EXACT.values()), "o", color="black", label="exact operator")
    axes.set(xlabel="learning rate T", ylabel="escape rate a step", ylim=(1e-23, 1e-2))
    axes.legend(frameon=False)
    return Picture(
        figure,
        "Escape rate from the pit against the learning rate. The large deviations of the coin run through the exact "
        "rates over ten decades; the diffusion approximation is exponentially too high.",
    )


def _path(found, prefactors, C):
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for q, style, label in ((found, "-", "coin"), (found.diffusion, "--", "diffusion")):
        colour = "#1b3a5c" if label == "coin" else "#c8553d"
        left.plot(q.path.points[:, 0], 0.01 * q.path.cost, style, color=colour, label=label)
    left.set(xlabel="W, from the bottom to the lip", ylabel="quasi-potential times T")
    left.legend(frameon=False)
    T = list(prefactors)
    right.plot(T, [prefactors[t] for t in T], "o", color="black", label="exact rate times exp(V/T)/T")
    right.axhline(C, color="#1b3a5c", label=f"limit C = {C:.4f}")
    right.set(xlabel="learning rate T", ylabel="C(T)", xlim=(0, max(T) * 1.1), ylim=(7.0, 7.5))
    right.legend(frameon=False)
    return Picture(
        figure,
        "Left: what it costs to climb the pit, for the coin and for the diffusion. Right: the prefactor measured from "
        "exact rates stays within two percent of its limit.",
    )
