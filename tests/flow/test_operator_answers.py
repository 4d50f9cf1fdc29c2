"""Committors, spectra, currents, conditioned paths; Gaussian noise, two dimensions and discrete states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw

LIP, BOTTOM = tw.systems.pit_points().lip_of_l1, tw.systems.pit_points().bottom
STEP = 0.1


def escaped(W):
    return W >= LIP


@pytest.fixture(scope="module")
def ornstein_uhlenbeck():
    """x' = 0.9 x + sqrt(0.2) w: the law of a step is normal, so cells are integrated in closed form."""
    return tw.flow.transfer_operator(
        tw.processes.langevin(lambda x: x**2 / 2, temperature=1.0, dt=STEP), tw.flow.Grid(-8.0, 8.0, 400)
    )


def test_gaussian_spectrum_and_variance_are_exact(ornstein_uhlenbeck):
    times = ornstein_uhlenbeck.relaxation_times(3)
    np.testing.assert_allclose(times.value, -1 / np.log((1 - STEP) ** np.arange(1, 4)), rtol=1e-6)
    density = ornstein_uhlenbeck.stationary_density()
    x, mass = ornstein_uhlenbeck.space.centers[0], density.value * ornstein_uhlenbeck.space.cell_volume
    assert mass @ x**2 == pytest.approx(1 / (1 - STEP / 2), rel=1e-6)


def test_gaussian_escape_agrees_with_monte_carlo(ornstein_uhlenbeck):
    far = lambda x: x > 2  # noqa: E731
    counted = tw.flow.monte_carlo(ornstein_uhlenbeck.process, 100_000, key=0)
    exact = ornstein_uhlenbeck.escape_probability(0.0, far, 20)
    sampled = counted.escape_probability(0.0, far, 20)
    assert exact.error < 1e-3 * exact.value
    assert abs(exact.value - sampled.value) < 3 * np.hypot(exact.error, sampled.error)


def test_gaussian_push_is_the_closed_form(ornstein_uhlenbeck):
    grid = ornstein_uhlenbeck.space
    x = grid.centers[0]
    pushed = ornstein_uhlenbeck.push(grid.density(lambda x: np.exp(-2 * (x - 1) ** 2)), 5)
    decay = (1 - STEP) ** 5
    variance = 0.25 * decay**2 + 2 * STEP * (1 - decay**2) / (1 - (1 - STEP) ** 2)
    exact = np.exp(-((x - decay) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    assert np.abs(pushed.value - exact).max() < 2e-4 * exact.max()
    assert np.all(np.abs(pushed.value - exact) <= pushed.error + 1e-12)


def test_rates_far_below_rounding_keep_three_digits():
    for rate, known in ((0.006, 1.15848e-11), (0.004, 1.23298e-16), (0.003, 1.49851e-21)):
        operator = tw.flow.transfer_operator(tw.systems.pit(rate), tw.flow.Grid(0.8, 1.3, 8192))
        found = operator.escape_rate(BOTTOM, escaped)
        assert found.ok and found.error < 1e-3 * known
        assert abs(found.value - known) < found.error


def test_one_escape_probability_to_a_hundred_thousandth():
    operator = tw.flow.transfer_operator(tw.systems.pit(0.02), tw.flow.Grid(0.5, 1.5, 65_536))
    found = operator.escape_probability(BOTTOM, escaped, 100)
    assert found.error < 1e-5 * found.value
    assert found.value == pytest.approx(0.497201, abs=2e-6 + found.error)


def test_target_edge_and_start_do_not_depend_on_the_cells():
    """The same question with the cells shifted against the lip: the answers differ by less than their errors."""
    answers = []
    for shift in (0.0, 0.00003, 0.00007):
        operator = tw.flow.transfer_operator(tw.systems.pit(0.004), tw.flow.Grid(0.8 + shift, 1.3 + shift, 4096))
        answers.append(operator.escape_rate(BOTTOM, escaped))
    spread = np.ptp([answer.value for answer in answers])
    assert spread < 2 * max(answer.error for answer in answers)


def test_committor_is_a_probability_and_ends_right():
    grid = tw.flow.Grid(-2.5, 2.5, 512)
    operator = tw.flow.transfer_operator(tw.systems.double_well(0.2, 0.01), grid)
    q = operator.committor(lambda x: x < -1, lambda x: x > 1)
    x = grid.centers[0]
    assert q.ok and np.all(q.value[x < -1] == 0) and np.all(q.value[x > 1] == 1)
    np.testing.assert_allclose(q.value + q.value[::-1], 1, atol=1e-6)  # by symmetry
    assert np.all(np.diff(q.value) > -1e-12)


def test_committor_of_a_fair_walk_is_linear():
    operator = tw.flow.transfer_operator(tw.systems.coin(1.0), tw.flow.Grid(-16.5, 16.5, 33))
    q = operator.committor(lambda x: x <= -5, lambda x: x >= 5)
    x = operator.space.centers[0]
    inside = np.abs(x) < 5
    np.testing.assert_allclose(q.value[inside], (x[inside] + 5) / 10, atol=1e-9)


def test_spectrum_of_linear_noise():
    """E (1 - T a)^n: 0.9, 0.8104, 0.73008 at T = 0.1."""
    operator = tw.flow.transfer_operator(tw.systems.linear_noise(0.1), tw.flow.Grid(1.0, 3.0, 2048))
    np.testing.assert_allclose(np.exp(-1 / operator.relaxation_times(3).value), [0.9, 0.8104, 0.73008], atol=2e-5)
    modes = operator.modes(3)
    np.testing.assert_allclose(modes.eigenvalues, [1, 0.9, 0.8104], atol=2e-5)
    assert np.ptp(modes.functions[0]) < 1e-6 * np.abs(modes.functions[0]).max()  # the constant


def test_current_is_what_crosses():
    grid = tw.flow.Grid(-10.5, 10.5, 21)
    walk = tw.Process(lambda x, w: x + w, tw.noise.Choice(2))  # right by one, every second time
    operator = tw.flow.transfer_operator(walk, grid)
    at_zero = np.zeros(21)
    at_zero[10] = 1.0
    current = operator.current(at_zero).value
    assert current[11] == pytest.approx(0.5) and np.abs(np.delete(current, 11)).max() < 1e-15


def test_no_current_flows_at_rest():
    operator = tw.flow.transfer_operator(tw.systems.linear_noise(0.1), tw.flow.Grid(1.0, 3.0, 512))
    assert np.abs(operator.current(operator.stationary_density()).value).max() < 1e-12


def test_quasi_stationary_density_escapes_at_the_rate():
    operator = tw.flow.transfer_operator(tw.systems.pit(0.01), tw.flow.Grid(0.8, 1.3, 4096))
    density = operator.quasi_stationary_density(BOTTOM, escaped)
    _, hit, _ = operator._level(operator.space).killed(escaped)
    rate = operator.escape_rate(BOTTOM, escaped)
    assert density.ok
    assert density.value.reshape(-1) @ hit * operator.space.cell_volume == pytest.approx(
        rate.details["values"][0], rel=1e-6
    )


def test_conditioned_process_always_escapes_as_the_rare_paths_do():
    """Doob's transform against rejection: the steps taken by those that escape within 10 steps at 0.02."""
    process = tw.systems.pit(0.02)
    operator = tw.flow.transfer_operator(process, tw.flow.Grid(0.5, 1.5, 8192))
    likely = operator.conditioned(escaped, steps=12)
    starts = jax.vmap(likely.init)(jnp.full(4000, BOTTOM))
    drawn = tw.ensemble(likely, starts, 12, key=0, until=lambda s: escaped(s.state))
    came = np.asarray(drawn.arrived)
    assert came.mean() > 0.99  # what interpolation of the probabilities between cells loses
    free = tw.ensemble(process, jnp.full(200_000, BOTTOM), 12, key=1, until=escaped)
    by_rejection = np.asarray(free.steps)[np.asarray(free.arrived)]
    steps = np.asarray(drawn.steps)[came]
    error = np.hypot(steps.std() / np.sqrt(len(steps)), by_rejection.std() / np.sqrt(len(by_rejection)))
    assert abs(steps.mean() - by_rejection.mean()) < 4 * error


def test_conditioned_on_not_turning_back():
    operator = tw.flow.transfer_operator(tw.systems.pit(0.006), tw.flow.Grid(0.8, 1.3, 2048))
    back = lambda W: abs(W - BOTTOM) < 0.005  # noqa: E731
    paths = operator.conditioned(escaped, avoiding=back)
    run = tw.ensemble(paths, jnp.full(100, BOTTOM + 0.006), 1000, key=0, until=lambda W: escaped(W) | back(W))
    assert bool(run.arrived.all()) and bool(escaped(run.state).all())


def test_two_wells_prefer_the_wide_one():
    """P(x < 0) of the wide wells at 0.5 is 0.9950(1); a 257 x 257 operator is within 2e-3, as its error says."""
    grid = tw.flow.Grid([-2.6, -1.9], [2.6, 1.9], [256, 256])
    operator = tw.flow.transfer_operator(tw.systems.two_wells("wide", 0.5), grid)
    density = operator.stationary_density()
    left = grid.points[:, 0] < 0
    share = lambda d: float(d.reshape(-1)[left].sum() * grid.cell_volume)  # noqa: E731
    assert density.ok
    assert share(density.value) == pytest.approx(0.9950, abs=2e-3)
    assert share(density.error) > abs(share(density.value) - 0.9950)


def test_two_axes_that_do_not_see_each_other_factor():
    """Two coins at once: the time to leave a strip does not know of the other axis."""
    both = tw.Process(lambda x, w: x + 2.0 * w - 1.0, tw.noise.Choice(2, shape=(2,)))
    operator = tw.flow.transfer_operator(both, tw.flow.Grid([-8.5, -20.5], [8.5, 20.5], [17, 41]))
    assert operator.mean_first_passage_time([0.0, 0.0], lambda x: jnp.abs(x[0]) >= 3).value == pytest.approx(
        9, rel=1e-3
    )


def test_three_axes_keep_their_mass():
    process = tw.Process(lambda x, w: 0.7 * x + 0.2 * (2.0 * w - 1.0), tw.noise.Choice(2, shape=(3,)))
    grid = tw.flow.Grid([-1.0] * 3, [1.0] * 3, [16] * 3)
    operator = tw.flow.transfer_operator(process, grid)
    pushed = operator.push(grid.density(lambda x: 1.0), 5)
    assert pushed.value.sum() * grid.cell_volume == pytest.approx(1, abs=1e-12) and pushed.value.min() >= 0
    times = operator.relaxation_times(1)
    assert times.value[0] == pytest.approx(-1 / np.log(0.7), rel=1e-3)


def test_discrete_states_are_exact():
    chain = tw.processes.finite([[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.0, 0.2, 0.8]])
    operator = tw.flow.transfer_operator(chain, tw.flow.States(np.arange(3)))
    np.testing.assert_allclose(operator.stationary_density().value, np.array([10, 2, 1]) / 13, rtol=1e-14)
    assert operator.mean_first_passage_time(0, lambda s: s == 2).value == pytest.approx(70, rel=1e-9)
    np.testing.assert_allclose(operator.committor(lambda s: s == 0, lambda s: s == 2).value, [0, 1 / 6, 1], rtol=1e-12)
    counted = tw.flow.monte_carlo(chain, 20_000, key=0).escape_probability(0, lambda s: s == 2, 5)
    exact = operator.escape_probability(0, lambda s: s == 2, 5)
    assert abs(counted.value - exact.value) < 3 * counted.error
    start = np.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(
        operator.push(start, 3).value, start @ np.linalg.matrix_power(operator.matrix.toarray(), 3), rtol=1e-13
    )


def test_rare_states_keep_their_digits():
    """A ladder climbed with probability 1e-5 a rung: the top has probability about 1e-20."""
    up, down = 1e-5, 0.5
    table = np.diag([up] * 4, 1) + np.diag([down] * 4, -1)
    table += np.diag(1 - table.sum(axis=1))
    operator = tw.flow.transfer_operator(tw.processes.finite(table), tw.flow.States(np.arange(5)))
    law = operator.stationary_density().value
    exact = (up / down) ** np.arange(5)
    np.testing.assert_allclose(law, exact / exact.sum(), rtol=1e-12)


BAD = [
    (lambda: tw.flow.States([1, 1]), "each once"),
    (lambda: tw.flow.States(np.array([])), "at least one state"),
    (
        lambda: tw.flow.transfer_operator(tw.Process(lambda s, w: s + 1), tw.flow.States(np.arange(3))),
        "not among the States",
    ),
    (
        lambda: tw.flow.transfer_operator(tw.processes.finite([1, 0]), tw.flow.Grid(0.0, 1.0, 8)),
        "pass tw.flow.States",
    ),
    (
        lambda: tw.flow.transfer_operator(
            tw.processes.underdamped_langevin(lambda x: x**2, 1.0, 1.0, 0.1), tw.flow.Grid(-1.0, 1.0, 16)
        ),
        "one axis for each coordinate",
    ),
    (lambda: _pit().conditioned(escaped), "either avoiding= .* or steps="),
    (lambda: _pit().committor(lambda W: W > 1, lambda W: W > 1.1), "must not overlap"),
    (lambda: _pit().relaxation_times(0), "k must be"),
]


def _pit():
    return tw.flow.transfer_operator(tw.systems.pit(0.02), tw.flow.Grid(0.5, 1.5, 64))


@pytest.mark.parametrize(("ask", "sentence"), BAD)
def test_bad_questions_end_in_a_sentence(ask, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        ask()


def test_a_target_that_is_never_met_has_an_infinite_mean():
    found = _pit().mean_first_passage_time(1.4, lambda W: W < 0.7)
    assert found.value == np.inf and found.status == tw.Status.UNDEFINED and "not reached" in found.message


# Chains, asked all that a grid is asked ---------------------------------------------------------------


def test_a_chain_in_the_long_run():
    """Escape rate and quasi-stationary law of a random chain, against its leading eigenpair; down to 1e-30."""
    table = np.random.default_rng(4).dirichlet(np.ones(6), size=6)
    table[:5, 5] *= 1e-15
    table /= table.sum(axis=1, keepdims=True)
    chain = tw.flow.transfer_operator(tw.processes.finite(table), tw.flow.States(np.arange(6)))
    values, vectors = np.linalg.eig(table[:5, :5].T)
    shape = np.abs(vectors[:, np.argmax(values.real)].real)
    shape /= shape.sum()
    quasi = chain.quasi_stationary_density(0, lambda s: s == 5)
    np.testing.assert_allclose(quasi.value[:5], shape, rtol=1e-9)
    rate = chain.escape_rate(0, lambda s: s == 5)
    assert rate.ok and float(rate) == pytest.approx(shape @ table[:5, 5], rel=1e-9)
    cycle = np.array([[0, 0.999, 0.001], [1.0, 0, 0], [0, 0, 1]])
    turning = tw.flow.transfer_operator(tw.processes.finite(cycle), tw.flow.States(np.arange(3)))
    assert float(turning.escape_rate(0, lambda s: s == 2)) == pytest.approx(1 - np.sqrt(0.999), rel=1e-6)
    swap = tw.flow.transfer_operator(tw.processes.finite(cycle[:2, :2] > 0), tw.flow.States(np.arange(2)))
    assert swap.relaxation_times(1).value[0] == np.inf  # a perturbation of a swap never dies out


def test_a_walk_that_wins():
    """The fair walk given that it reaches 6 before 0 goes up with probability (x + 1) / 2x."""
    n = 7
    table = np.eye(n)
    table[1:-1] = 0
    table[np.arange(1, n - 1), np.arange(2, n)] = table[np.arange(1, n - 1), np.arange(n - 2)] = 0.5
    walk = tw.flow.transfer_operator(tw.processes.finite(table), tw.flow.States(np.arange(n)))
    winner = walk.conditioned(lambda s: s == 6, avoiding=lambda s: s == 0)
    for x in range(1, 6):
        states, chances = winner.transition(jnp.asarray(x))
        assert float(chances[np.flatnonzero(np.asarray(states) == x + 1)[0]]) == pytest.approx((x + 1) / (2 * x))
    again = tw.flow.transfer_operator(winner, tw.flow.States(np.arange(1, n)))
    assert float(again.mean_first_passage_time(1, lambda s: s == 6)) == pytest.approx((36 - 1) / 3)
    soon = walk.conditioned(lambda s: s == 6, steps=8)
    runs = tw.ensemble(soon, jax.vmap(lambda _: soon.init(3))(jnp.arange(400)), 8, key=0, until=lambda s: s.state == 6)
    assert np.all(np.asarray(runs.arrived))
    # The first step: up with probability P(6 within 7 steps from 4) over twice that within 8 from 3.
    up = [float(walk.escape_probability(x, lambda s: s == 6, n)) for x, n in ((4, 7), (3, 8))]
    first = tw.ensemble(soon, jax.vmap(lambda _: soon.init(3))(jnp.arange(4000)), 1, key=1).state.state
    share = up[0] / (2 * up[1])
    assert abs(np.mean(np.asarray(first) == 4) - share) < 4 * np.sqrt(share * (1 - share) / 4000)
    with pytest.raises(ValueError, match="avoiding and target must not overlap"):
        walk.conditioned(lambda s: s == 6, avoiding=lambda s: s > 2)


def test_a_long_question_shows_where_it_is_and_changes_nothing(capsys, monkeypatch):
    """Operators, diffusions and lists of states: a line a grid on a terminal, nothing without asking."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    walk = tw.Process(lambda x, w: 0.9 * x + 0.1 * (2 * w - 1), tw.noise.Choice(2))
    grid = tw.flow.Grid(-1.0, 1.0, 64)
    coin = tw.Process(lambda x, w: jnp.clip(x + 2 * w - 1, 0, 6), tw.noise.Choice(2))
    states = tw.flow.States(np.arange(7))

    def ask(progress):
        P = tw.flow.transfer_operator(walk, grid, progress=progress)
        F = tw.flow.fokker_planck((lambda x: -x, lambda x: 0.1), grid, progress=progress)
        S = tw.flow.transfer_operator(coin, states, progress=progress)
        even = np.full(64, 0.5)
        return [
            P.push(even, 40).value,
            P.stationary_density().value,
            P.escape_probability(0.0, lambda x: x >= 0.6, 300).value,
            P.mean_first_passage_time(0.0, lambda x: x >= 0.6).value,
            F.push(even, 3).value,
            S.push(np.eye(7)[3], 5).value,
            S.mean_first_passage_time(3, lambda s: s >= 6).value,
        ]

    quiet = ask(False)
    assert capsys.readouterr().err == ""
    loud = ask(True)
    told = capsys.readouterr().err
    for line in (
        "64 cells: steps 40 of 40 (100%)",
        "32 cells: steps 40",
        "moved",
        "64 cells: lengths of time step",
        "7 states: steps 5 of 5",
    ):
        assert line in told
    assert all(np.array_equal(a, b) for a, b in zip(quiet, loud, strict=True))


@pytest.mark.parametrize("uphill", [0.3, 0.05])
def test_a_mean_time_beyond_what_a_subtraction_could_tell(uphill, monkeypatch):
    """A walk pushed back at every step, to the top of a ladder: up to 1e50 steps, to rounding, without waiting."""
    rungs = 40
    steps = np.zeros((rungs, rungs))
    for k in range(rungs):
        steps[k, max(k - 1, 0)] += 1 - uphill
        steps[k, min(k + 1, rungs - 1)] += uphill
    steps = steps[np.ix_(order := np.random.default_rng(0).permutation(rungs), order)]  # in no order to help
    top, bottom = (int(np.flatnonzero(order == k)[0]) for k in (rungs - 1, 0))
    ladder = tw.flow.transfer_operator(tw.processes.finite(steps), tw.flow.States(np.arange(rungs)))
    one_up, exact = 1 / uphill, 1 / uphill
    for _ in range(rungs - 2):  # from rung k to k + 1: h_k = (1 + (1 - p) h_(k-1)) / p
        one_up = (1 + (1 - uphill) * one_up) / uphill
        exact += one_up
    monkeypatch.setattr("thalweg.flow._first_passage.MOST_STEPS", 2)  # the chain counts as one that does not settle
    found = ladder.mean_first_passage_time(bottom, lambda s: s == top)
    assert found.ok and found.value == pytest.approx(exact, rel=1e-12)
    monkeypatch.setattr("thalweg.flow._first_passage.MOST_DENSE", 0)
    lost = ladder.mean_first_passage_time(bottom, lambda s: s == top)
    assert lost.ok == (abs(lost.value / exact - 1) < 1e-3)  # by a factorisation it is told where it is lost
