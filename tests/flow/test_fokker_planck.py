"""The diffusion approximation and its Schroedinger operator, against closed forms and against the operator."""

import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw

LIP, BOTTOM = tw.systems.pit_points().lip_of_l1, tw.systems.pit_points().bottom
GRID = tw.flow.Grid(-8.0, 8.0, 400)


def escaped(W):
    return W >= LIP


@pytest.fixture(scope="module")
def ornstein_uhlenbeck():
    return tw.flow.fokker_planck((lambda x: -x, lambda x: 2.0), GRID)


def test_push_has_the_moments_of_ornstein_and_uhlenbeck(ornstein_uhlenbeck):
    pushed = ornstein_uhlenbeck.push(GRID.density(lambda x: np.exp(-((x - 1) ** 2) / 0.08)), 1)
    x, mass = GRID.centers[0], pushed.value * GRID.cell_volume
    mean = mass @ x
    assert mean == pytest.approx(np.exp(-1), rel=3e-4)
    assert mass @ (x - mean) ** 2 == pytest.approx(1 - 0.96 * np.exp(-2), rel=3e-4)
    assert pushed.value.min() >= 0 and mass.sum() == pytest.approx(1, abs=1e-13)


def test_energies_are_the_whole_numbers(ornstein_uhlenbeck):
    well = tw.flow.symmetrise(ornstein_uhlenbeck)
    energies = well.energies(4)
    np.testing.assert_allclose(energies.value, [0, 1, 2, 3], atol=2e-3)
    assert np.all(np.abs(energies.value - np.arange(4)) <= energies.error + 1e-12)
    root = np.sqrt(ornstein_uhlenbeck.stationary_density().value * GRID.cell_volume)
    assert well.states(1)[0] @ root == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(ornstein_uhlenbeck.relaxation_times(3).value, [1, 1 / 2, 1 / 3], rtol=2e-3)


def test_first_passage_of_ornstein_and_uhlenbeck(ornstein_uhlenbeck):
    """From 0 to 2: sqrt(2 pi) int_0^2 exp(y^2/2) Phi(y) dy."""
    from scipy.integrate import quad
    from scipy.special import ndtr

    exact = np.sqrt(2 * np.pi) * quad(lambda y: np.exp(y**2 / 2) * ndtr(y), 0, 2)[0]
    found = ornstein_uhlenbeck.mean_first_passage_time(0.0, lambda x: x > 2)
    assert abs(found.value - exact) < found.error < 1e-3 * exact
    rate = ornstein_uhlenbeck.escape_rate(0.0, lambda x: x > 2)
    late = [ornstein_uhlenbeck.escape_probability(0.0, lambda x: x > 2, n).value for n in (40, 60)]
    assert np.log((1 - late[0]) / (1 - late[1])) / 20 == pytest.approx(rate.value, rel=1e-3)


# Ito, by quadrature on (1, lip)
@pytest.mark.parametrize(("rate", "time"), [(0.004, 1.34160e10), (0.01, 46151.8), (0.02, 557.581), (0.05, 27.3134)])
def test_the_diffusion_of_the_pit(rate, time):
    diffusion = tw.flow.fokker_planck(tw.systems.pit(rate), tw.flow.Grid(0.8, 1.3, 4000), compare=False)
    found = diffusion.mean_first_passage_time(BOTTOM, escaped)
    assert found.ok and abs(found.value - time) < found.error + 1e-5 * time
    assert found.error < 1e-3 * time


def test_lowest_energy_is_the_rate_of_escape():
    diffusion = tw.flow.fokker_planck(tw.systems.pit(0.01), tw.flow.Grid(0.8, 1.3, 4000), compare=False)
    energy = tw.flow.symmetrise(diffusion, escaped).energies(1).value[0]
    assert energy * diffusion.mean_first_passage_time(BOTTOM, escaped).value == pytest.approx(1.0003, abs=3e-4)
    assert energy == pytest.approx(diffusion.escape_rate(BOTTOM, escaped).value, rel=1e-3)


def test_the_distance_from_the_operator_is_told():
    diffusion = tw.flow.fokker_planck(tw.systems.pit(0.01), tw.flow.Grid(0.8, 1.3, 4000))
    found = diffusion.mean_first_passage_time(BOTTOM, escaped)
    assert found.status == tw.Status.MODEL_DIFFERS and "transfer operator" in found.message
    assert abs(found.value - 3.82e6) < 1.001 * found.error
    good = tw.flow.fokker_planck(tw.systems.linear_noise(0.02), tw.flow.Grid(1.6, 2.4, 400)).stationary_density()
    assert good.ok and float(good.details["distance"]) < 0.05


@pytest.mark.parametrize(("convention", "mean"), [("ito", 2.0), ("stratonovich", 2 / (1 - 0.5 * 0.04 / 2))])
def test_conventions_of_the_linear_noise(convention, mean):
    diffusion = tw.flow.fokker_planck(
        tw.systems.linear_noise(0.5), tw.flow.Grid(-1.0, 5.0, 1000), convention, compare=False
    )
    density = diffusion.stationary_density()
    x, mass = diffusion.space.centers[0], density.value * diffusion.space.cell_volume
    assert mass @ x == pytest.approx(mean, abs=1e-4)
    if convention == "ito":
        assert mass @ (x - mean) ** 2 == pytest.approx(4 * 0.5 * 0.04 / (2 - 0.5 * 0.04), rel=1e-3)


def test_nothing_turns_negative_where_the_noise_vanishes():
    for rate in (0.0005, 0.01, 0.1):
        grid = tw.flow.Grid(0.0, 2.5, 500)
        diffusion = tw.flow.fokker_planck(tw.systems.pit(rate), grid, compare=False)
        pushed = diffusion.push(grid.density(lambda x: np.exp(-200 * (x - 1.05) ** 2)), 50)
        assert pushed.value.min() >= 0 and pushed.value.sum() * grid.cell_volume == pytest.approx(1, abs=1e-12)


def test_correlated_noise_in_the_plane():
    """dx = -diag(1, 2) x dt with covariance [[2, .5], [.5, 2]]: variances 1 and 1/2, covariance 1/6."""
    diffusion = tw.flow.fokker_planck(
        (lambda x: -x * jnp.array([1.0, 2.0]), lambda x: jnp.array([[2.0, 0.5], [0.5, 2.0]])),
        tw.flow.Grid([-6.0, -6.0], [6.0, 6.0], [96, 96]),
    )
    density = diffusion.stationary_density()
    points, mass = diffusion.space.points, density.value.reshape(-1) * diffusion.space.cell_volume
    covariance = np.einsum("n,ni,nj->ij", mass, points, points)
    np.testing.assert_allclose(covariance, [[1, 1 / 6], [1 / 6, 1 / 2]], atol=4e-3)
    assert density.value.min() >= 0
    with pytest.raises(ValueError, match="current at rest"):
        tw.flow.symmetrise(diffusion)


def test_committor_of_a_free_diffusion_is_linear():
    diffusion = tw.flow.fokker_planck((lambda x: 0.0, lambda x: 1.0), tw.flow.Grid(-2.0, 2.0, 400))
    q = diffusion.committor(lambda x: x < -1, lambda x: x > 1)
    x = diffusion.space.centers[0]
    inside = np.abs(x) < 1
    np.testing.assert_allclose(q.value[inside], (x[inside] + 1) / 2, atol=0.01)


def test_a_table_of_rates_has_its_schroedinger_operator():
    """Two states with rates 1 and 2: energies 0 and 3."""
    well = tw.flow.symmetrise([[-1.0, 1.0], [2.0, -2.0]])
    np.testing.assert_allclose(well.energies(2).value, [0, 3], atol=1e-12)
    with pytest.raises(ValueError, match="current at rest"):
        tw.flow.symmetrise([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 0.0, -1.0]])


def test_a_diffusion_that_never_arrives_says_so():
    never = (lambda x: -x, lambda x: 0.0 * x)
    halving = tw.Process(lambda x, w: x / 2 + 0 * w, tw.noise.Choice(2))
    for asked in (tw.flow.fokker_planck(never, GRID), tw.flow.fokker_planck(halving, GRID)):
        time = asked.mean_first_passage_time(0.5, lambda x: x > 1)
        assert np.isinf(time.value) and np.isinf(time.error) and time.status == tw.Status.UNDEFINED
        assert "the mean is infinite" in time.message
    agreed = tw.flow.fokker_planck(halving, GRID).escape_probability(0.5, lambda x: x > 1, 10)
    assert agreed.value == agreed.error == 0 and agreed.ok


BAD = [
    (lambda: tw.flow.fokker_planck((lambda x: -x, lambda x: 1 / (x - x)), GRID), "must be finite on the grid"),
    (lambda: tw.flow.fokker_planck((lambda x: -x, lambda x: -1.0), GRID), "diffusion must be >= 0"),
    (lambda: tw.flow.fokker_planck(lambda x: -x, GRID), "a pair of functions"),
    (lambda: tw.flow.fokker_planck((lambda x: -x, lambda x: 1.0), 3), "grid must be"),
    (lambda: tw.flow.fokker_planck((lambda x: -x, lambda x: 1.0), GRID, "kramers"), "convention must be"),
    (lambda: tw.flow.fokker_planck((lambda x: -x, lambda x: 1.0), GRID, order=2), "order=2 is for a process"),
    (lambda: tw.flow.fokker_planck(tw.systems.pit(0.1), GRID, order=3), "order must be 1 or 2"),
    (lambda: tw.flow.fokker_planck(tw.Process(lambda x, w: x + w, tw.noise.Uniform()), GRID), "cannot be integrated"),
    (lambda: tw.flow.symmetrise([[1.0, -1.0], [0.0, 0.0]]), "rates >= 0"),
]


@pytest.mark.parametrize(("ask", "sentence"), BAD)
def test_bad_questions_end_in_a_sentence(ask, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        ask()
