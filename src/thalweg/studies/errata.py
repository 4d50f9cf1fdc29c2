"""Misprints of the sources: where, what is printed, what is right, and how it was checked."""

from thalweg.studies._study import Erratum

_CURRENT = "J. Bostock, SGD Understood through Probability Current"

ERRATA = [
    Erratum(
        id="variance_of_the_linear_noise",
        source=_CURRENT,
        place="linear noise: the losses with slopes 1.2W - 2 and 0.8W - 2",
        printed="`S^2 = 0.4 W^2`",
        right="`S^2 = 0.04 W^2`",
        checked="the variance of the two slopes, at random W",
    ),
    Erratum(
        id="cross_term_of_the_diffusion",
        source=_CURRENT,
        place="the diffusion term `(T^2/2) d/dW (S d(S P)/dW)`, multiplied out",
        printed="`1/2 S S' P'` (times `T^2`)",
        right="`3/2 S S' P'` (times `T^2`)",
        checked="both sides as polynomials",
    ),
    Erratum(
        id="stationary_density",
        source=_CURRENT,
        place="the stationary state",
        printed="a third form, which follows from neither equation before it",
        right="`(log P)' = -(log S^2)' - 2 G / (T S^2)` (Ito, where no current flows)",
        checked="the current of that density vanishes, for polynomial G and S",
    ),
]
