"""Misprints of the sources: where, what is printed, what is right, and how it was checked."""

from thalweg.studies._study import Erratum

_CURRENT = "J. Bostock, SGD Understood through Probability Current"
_OPTIMIZATION = "J. Bostock, Defining Optimization in a Deeper Way, Part {}"

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
        id="master_equation",
        source=_CURRENT,
        place="the master equation of SGD, multiplied out",
        printed="a cross term `1/2 (S^2)' P'` (times `T^2`)",
        right="`1 (S^2)' P'` (times `T^2`; Ito): with 1/2 probability is not kept, `dM/dt = (T^2/2) int (S^2)'' P`",
        checked="both sides as polynomials, and the mass that the printed equation makes",
    ),
    Erratum(
        id="stationary_density",
        source=_CURRENT,
        place="the stationary state",
        printed="a third form, which follows from neither equation before it",
        right="`(log P)' = -(log S^2)' - 2 G / (T S^2)` (Ito, where no current flows)",
        checked="the current of that density vanishes, for polynomial G and S",
    ),
    Erratum(
        id="swapped_thermostat_cells",
        source=_OPTIMIZATION.format(1),
        place="the tables of the two thermostats, cell (off, hot)",
        printed="low, warm for the dumb one; off, warm for the smart one",
        right="off, warm for the dumb one; low, warm for the smart one",
        checked="as printed both thermostats give .91830 and 2.50326 bits, not what the text says of them",
    ),
    Erratum(
        id="square_to_rhombus",
        source=_OPTIMIZATION.format(2),
        place="the continuous thermostat: the square of side `e` after a step",
        printed="a rhombus, with corners at `e k`",
        right="a parallelogram with sides `sqrt(2) e` and `k e`; the room spans `e (1 + k)`",
        checked="the images of the four corners",
    ),
    Erratum(
        id="thermostat_recurrence",
        source=_OPTIMIZATION.format(3),
        place="the equations of the simulated thermostat",
        printed="`T_t = T_{t-1} - d`",
        right="`T_t = R_{t-1} - d`",
        checked="as printed the room ends at 124810 degrees, and nothing is steered",
    ),
    Erratum(
        id="integral_of_the_second_landscape",
        source=_OPTIMIZATION.format(4),
        place="the three integrals of 1 - Comp",
        printed="19.961, 19.611, 9.980",
        right="19.96, 19.96, 9.98: `2 p (t - dt)` whatever the threshold, for `dt = .02`",
        checked="the exact difference of the end states",
    ),
    Erratum(
        id="lorenz_sentence_on_sizes",
        source=_OPTIMIZATION.format(4),
        place="rho = .8, n = m = b",
        printed="y - w is larger than x - w",
        right="y - w is smaller than x - w, so that Op < 0, as the plot shows",
        checked="two runs with a difference of 1e-6",
    ),
    Erratum(
        id="lorenz_stable_points",
        source=_OPTIMIZATION.format(4),
        place="1 < rho < 24.74",
        printed="three stable points",
        right="two: the origin is a saddle; the others are stable up to `rho = s (s + b + 3) / (s - b - 1) = 24.7368`",
        checked="the eigenvalues at the fixed points",
    ),
    Erratum(
        id="lorenz_sign",
        source=_OPTIMIZATION.format(4),
        place="the first of Lorenz's equations",
        printed="`a' = s (a - b)`",
        right="`a' = s (b - a)`",
        checked="as printed the state is not finite by t = 5",
    ),
    Erratum(
        id="dead_zone_of_the_thermostat",
        source=_OPTIMIZATION.format(4),
        place="the saturating thermostat inside its threshold",
        printed="`Therm(T) = 0`",
        right="`Therm(T) = p T / theta`",
        checked="with 0 inside, the room stays where it is and Comp inside is 1, not what is plotted",
    ),
    Erratum(
        id="comp_as_a_ratio",
        source=_OPTIMIZATION.format(4),
        place="the definition of Comp",
        printed="`lim (x - w)`, and a derivative with respect to A",
        right="`lim (x - w) / (y - w)`: the ratio of two derivatives with respect to n",
        checked="`x - w` goes to 0 with the alteration, the ratio does not",
    ),
]
