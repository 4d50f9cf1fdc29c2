"""The operator in one dimension against known answers, and against Monte Carlo within their errors."""

import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw

POINTS = tw.systems.pit_points()
LIP = POINTS.lip_of_l1
PIT_GRID = tw.flow.Grid(0.0, 2.5, 8192)


def escaped(W):
    return W >= LIP


# science: transfer operators with a point start enumerated, converged to the digits given
KNOWN = [
    (0.010, 1.8274e-5, 3.8200e6),
    (0.012, 9.4126e-4, 78739.0),
    (0.020, 0.497201, 141.633),
    (0.030, 0.9999472, 14.280),
    (0.050, 1 - 1.115e-6, 9.4112),
]


@pytest.mark.parametrize(("rate", "probability", "time"), KNOWN)
def test_pit_has_its_known_escapes(rate, probability, time):
    operator = tw.flow.transfer_operator(tw.systems.pit(rate), PIT_GRID)
    within = operator.escape_probability(POINTS.bottom, escaped, 100)
    mean = operator.mean_first_passage_time(POINTS.bottom, escaped)
    assert within.ok and mean.ok
    assert abs(within.value - probability) < 3 * within.error + 1e-4 * min(probability, 1 - probability)
    assert abs(mean.value - time) < 3 * mean.error + 1e-4 * time
    assert within.error < 5e-3 * probability and mean.error < 5e-3 * time


def test_operator_and_monte_carlo_agree_to_better_than_two_percent():
    process = tw.systems.pit(0.02)
    operator = tw.flow.transfer_operator(process, PIT_GRID)
    counted = tw.flow.monte_carlo(process, 40_000, key=1)
    for exact, sampled in (
        (
            operator.escape_probability(POINTS.bottom, escaped, 100),
            counted.escape_probability(POINTS.bottom, escaped, 100),
        ),
        (
            operator.mean_first_passage_time(POINTS.bottom, escaped),
            counted.mean_first_passage_time(POINTS.bottom, escaped),
        ),
    ):
        error = np.hypot(exact.error, sampled.error)
        assert error < 0.02 * exact.value / 3  # so a 2% error would be more than three sigma
        assert abs(exact.value - sampled.value) < 3 * error


def test_densities_agree_with_monte_carlo():
    grid = tw.flow.Grid(1.0, 3.0, 400)
    process = tw.systems.linear_noise(0.1)
    operator = tw.flow.transfer_operator(process, grid)
    counted = tw.flow.monte_carlo(process, 20_000, key=2, space=grid)
    start = grid.density(lambda x: np.exp(-50 * (x - 1.8) ** 2))
    for exact, sampled in (
        (operator.push(start, 20), counted.push(start, 20)),
        (operator.stationary_density(), counted.stationary_density(steps=200, burn_in=100)),
    ):
        assert exact.ok and sampled.ok
        for density in (exact.value, sampled.value):
            assert density.min() >= 0 and density.sum() * grid.cell_volume == pytest.approx(1, abs=1e-12)
        blocks = lambda density: density.reshape(20, 20).mean(axis=1)  # noqa: E731
        error = np.hypot(blocks(exact.error), np.sqrt(blocks(sampled.error**2) / 4))
        z = (blocks(exact.value) - blocks(sampled.value)) / error
        assert np.abs(z).max() < 4


def test_committor_current_and_spectrum_agree_with_monte_carlo():
    grid = tw.flow.Grid(1.4, 2.6, 60)
    process = tw.processes.langevin(lambda x: 2 * (x - 2) ** 2, temperature=0.05, dt=0.1)
    operator = tw.flow.transfer_operator(process, grid)
    counted = tw.flow.monte_carlo(process, 400, key=5, space=grid)
    low, high = (lambda x: x < 1.8), (lambda x: x > 2.3)
    exact, sampled = operator.committor(low, high), counted.committor(low, high)
    assert sampled.ok
    inside = sampled.error > 0
    z = (exact.value - sampled.value)[inside] / np.hypot(exact.error, sampled.error)[inside]
    assert np.abs(z).max() < 4
    density = grid.density(lambda x: np.exp(-20 * (x - 1.9) ** 2))
    many = tw.flow.monte_carlo(process, 100_000, key=6, space=grid)
    flow, seen = operator.current(density), many.current(density)
    z = (flow.value - seen.value)[1:-1] / np.hypot(flow.error, seen.error)[1:-1]
    assert np.abs(z).max() < 4 and flow.value.max() > 20 * seen.error.max()
    times, rough = operator.relaxation_times(1), counted.relaxation_times(1)
    assert times.value[0] == pytest.approx(-1 / np.log(0.6), rel=1e-3)
    assert abs(times.value[0] - rough.value[0]) < 4 * rough.error[0] + 0.01 * times.value[0]


def test_linear_noise_has_its_stationary_moments():
    grid = tw.flow.Grid(1.0, 3.0, 2000)
    rate, s = 0.1, 0.2
    density = tw.flow.transfer_operator(tw.systems.linear_noise(rate, s), grid).stationary_density()
    x, mass = grid.centers[0], density.value * grid.cell_volume
    mean = mass @ x
    assert mean == pytest.approx(2, abs=1e-9)
    assert mass @ (x - mean) ** 2 == pytest.approx(4 * rate * s**2 / (2 - rate - rate * s**2), rel=1e-3)


def test_rare_escapes_keep_their_digits():
    """1.15848e-11 a step at 0.006 and 1.23298e-16 at 0.004: below what 1 - survival can hold."""
    for rate, known in ((0.006, 1.15848e-11), (0.004, 1.23298e-16), (0.003, 1.49851e-21)):
        operator = tw.flow.transfer_operator(tw.systems.pit(rate), tw.flow.Grid(0.8, 1.3, 8192))
        mean = operator.mean_first_passage_time(POINTS.bottom, escaped)
        assert mean.ok
        assert mean.value * known == pytest.approx(1, rel=1e-3)
        assert abs(mean.value * known - 1) < 3 * mean.error * known + 1e-5


def test_escape_from_a_coin_is_exact():
    """Gambler's ruin: mean time 25 to leave (-5, 5), and 6/16 to reach 2 within 4 tosses."""
    coin = tw.systems.coin(1.0)
    operator = tw.flow.transfer_operator(coin, tw.flow.Grid(-16.5, 16.5, 33))
    assert operator.escape_probability(0.0, lambda x: x >= 2, 4).value == pytest.approx(6 / 16, rel=1e-14)
    assert operator.mean_first_passage_time(0.0, lambda x: abs(x) >= 5).value == pytest.approx(25, rel=1e-9)


def test_zero_steps_move_nothing():
    grid = tw.flow.Grid(1.0, 3.0, 64)
    operator = tw.flow.transfer_operator(tw.systems.linear_noise(0.1), grid)
    start = grid.density(lambda x: 1.0)
    np.testing.assert_allclose(operator.push(start, 0).value, start)
    assert operator.escape_probability(2.0, lambda x: x > 2.1, 0).value == 0


def test_mass_that_leaves_is_told():
    grid = tw.flow.Grid(-1.0, 1.0, 64)
    operator = tw.flow.transfer_operator(tw.systems.coin(0.1), grid)
    pushed = operator.push(grid.density(lambda x: 1.0), 10)
    assert pushed.status == tw.Status.LEAKS and "leaves the grid" in pushed.message
    assert pushed.value.sum() * grid.cell_volume == pytest.approx(1, abs=1e-12)
    escape = operator.escape_probability(0.0, lambda x: x > 0.9, 1000)
    assert escape.status == tw.Status.LEAKS and escape.error > 0.3


def test_monte_carlo_never_claims_a_zero_error():
    counted = tw.flow.monte_carlo(tw.systems.pit(0.01), 100, key=0)
    none = counted.escape_probability(POINTS.bottom, escaped, 10)
    assert none.value == 0 and none.error > 0 and not none.ok and "below 0.03" in none.message
    late = counted.mean_first_passage_time(POINTS.bottom, escaped, steps=10)
    assert late.status == tw.Status.NOT_ARRIVED and late.details["lower_limit"] > 100


def test_a_censored_mean_is_the_exponential_estimate():
    process = tw.systems.pit(0.02)
    cut = tw.flow.monte_carlo(process, 4000, key=3).mean_first_passage_time(POINTS.bottom, escaped, steps=100)
    assert cut.status == tw.Status.NOT_ARRIVED
    assert abs(cut.value - 141.6) < 4 * cut.error


BAD = [
    (lambda P: P.escape_probability(POINTS.bottom, lambda W: W >= 99.0, 10), "target must hold somewhere on the grid"),
    (lambda P: P.escape_probability(1.5, escaped, 10), "start must lie outside the target"),
    (lambda P: P.escape_probability(-3.0, escaped, 10), "start must lie on the grid"),
    (lambda P: P.escape_probability(np.nan, escaped, 10), "start must be finite"),
    (lambda P: P.escape_probability([1.0, 2.0], escaped, 10), "start must be a state"),
    (lambda P: P.escape_probability("here", escaped, 10), "start must be a state"),
    (lambda P: P.escape_probability(1.0, 1.2, 10), "target must be a predicate"),
    (
        lambda P: P.escape_probability(1.0, lambda W: W > 1 and W < 2, 10),
        "target must be a predicate that works on arrays",
    ),
    (lambda P: P.escape_probability(1.0, escaped, -1), "steps must be a whole number"),
    (lambda P: P.push(np.ones(3), 1), "density must have the shape"),
    (lambda P: P.push(np.ones(64), 1), "density must be >= 0"),
    (
        lambda P: tw.flow.transfer_operator(tw.processes.langevin(lambda x: jnp.sum(x**2), 1.0, 0.1, (2,)), P.space),
        "one axis for each coordinate",
    ),
    (lambda P: tw.flow.transfer_operator(P.process, 3), "space must be"),
    (lambda P: tw.flow.transfer_operator(3, P.space), "process must be"),
    (
        lambda P: tw.flow.transfer_operator(tw.Process(P.process.step, tw.noise.Uniform()), P.space),
        "Uniform cannot be integrated",
    ),
    (lambda P: tw.flow.transfer_operator(tw.Process(lambda x, w: x / 0.0), P.space), "NaN or infinity"),
    (lambda P: tw.flow.Grid(1.0, 0.0, 10), "lower must be below upper"),
    (lambda P: tw.flow.Grid(0.0, np.inf, 10), "upper must be a finite number"),
    (lambda P: tw.flow.Grid(0.0, 1.0, 2), "at least 4"),
    (lambda P: tw.flow.monte_carlo(P.process, 1, key=0), "members must be"),
    (lambda P: tw.flow.monte_carlo(P.process, 10, key=0).push(np.ones(4), 1), "needs the grid"),
]


@pytest.mark.parametrize(("ask", "sentence"), BAD)
def test_bad_questions_end_in_a_sentence(ask, sentence):
    operator = tw.flow.transfer_operator(tw.systems.pit(0.02), tw.flow.Grid(0.0, 2.5, 64))
    with pytest.raises((ValueError, TypeError), match=sentence):
        ask(operator)
