"""Quasi-potentials against the pit's exact rates, Langevin barriers, and separable problems."""

import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg import Status
from thalweg.systems import pit_points

BOTTOM, LIP = pit_points().bottom, pit_points().lip


def of_pit(T, **where):
    return tw.flow.quasi_potential(tw.systems.pit(T), where.get("start", BOTTOM), where.get("target", LIP))


def test_the_pit():
    """V, V_FP, C and C_FP; the exponent times T does not depend on T."""
    for T in (0.004, 0.05):
        found = of_pit(T)
        assert found.value.ok and float(found.value) * T == pytest.approx(0.1323587230, abs=2e-10)
        assert found.value.error * T < 1e-12
        assert float(found.diffusion.value) * T == pytest.approx(0.0786412815, abs=2e-10)
        # 7.34323 is the formula by three quadratures, one of them written apart (7.3463 was published).
        assert found.rate.details["prefactor"] / T == pytest.approx(7.343228, abs=1e-5)
        assert found.diffusion.rate.details["prefactor"] / T == pytest.approx(6.9347, abs=1e-4)
        assert found.log_rate == pytest.approx(np.log(7.343228 * T) - 0.1323587230 / T, abs=1e-5)


def test_the_half_depth_pit():
    def step(W, w):
        wide, narrow = 2 * (W - 2) * jnp.exp(-((W - 2) ** 2)), 200 * (W - 1) * jnp.exp(-100 * (W - 1) ** 2)
        return W - 0.01 * (wide + 0.5 * w * narrow)

    process = tw.Process(step, tw.noise.Choice(2))
    found = tw.flow.quasi_potential(process, 1.0149, 1.16)
    bottom, lip = found.rate.details["bottom"], found.rate.details["lip"] if found.rate.ok else np.nan
    found = tw.flow.quasi_potential(process, bottom, lip)
    assert float(found.value) * 0.01 == pytest.approx(0.0942240513, abs=2e-10)
    assert float(found.diffusion.value) * 0.01 == pytest.approx(0.0742410292, abs=2e-10)
    assert found.rate.details["prefactor"] / 0.01 == pytest.approx(4.4069, abs=5e-5)  # 4.4073 was published


@pytest.mark.parametrize("T, exact", [(0.003, 1.49851e-21), (0.004, 1.23298e-16), (0.006, 1.15848e-11)])
def test_against_exact_rates(T, exact):
    """The rate is right to O(T) over eleven decades, where the diffusion is off by up to eight."""
    found = of_pit(T)
    assert float(found.rate) == pytest.approx(exact, rel=6 * T)
    assert float(found.diffusion.rate) > 3e3 * exact


def test_downhill_is_free_and_slopes_are_shorter():
    beyond = of_pit(0.01, target=pit_points().lip_of_l1)
    assert float(beyond.value) == pytest.approx(13.2358723, abs=1e-6)
    assert float(beyond.rate) == pytest.approx(float(of_pit(0.01).rate), rel=1e-9)
    slope = of_pit(0.01, start=1.05)
    up = of_pit(0.01, target=1.05)
    assert float(slope.value) + float(up.value) == pytest.approx(13.2358723, abs=1e-6)
    assert slope.rate.details["bottom"] == pytest.approx(BOTTOM, abs=1e-12)
    down = of_pit(0.01, start=1.1, target=1.02)
    assert float(down.value) == 0 and down.rate.status == Status.UNDEFINED
    unfinished = of_pit(0.01, target=1.1)
    assert unfinished.rate.status == Status.UNDEFINED and "one lip" in unfinished.rate.message
    assert np.isnan(float(unfinished.rate))


def test_no_datum_opposes_the_drift():
    """At W = 2 no datum pulls back: V is infinite, and so it is for the diffusion, whose noise vanishes there."""
    back = of_pit(0.01, start=2.0)
    assert float(back.value) == np.inf and back.value.status == Status.UNDEFINED
    assert "no outcome of a step moves from" in back.value.message
    assert back.path is None and float(back.rate) == 0
    still = tw.Process(lambda x, w: 0.9 * x)
    assert "no outcome" in tw.flow.quasi_potential(still, 0.0, 1.0).value.message


def test_langevin_climbs_the_potential():
    """Gaussian noise, either way: V = dU / temperature, and the rate is that of Eyring and Kramers."""
    process = tw.systems.double_well(temperature=0.05, dt=0.001)
    kramers = 0.001 * np.sqrt(8 * 4) / (2 * np.pi) * np.exp(-20)
    for a, b in ((-1.0, 0.5), (1.0, -0.5)):
        found = tw.flow.quasi_potential(process, a, b)
        assert float(found.value) == pytest.approx(20, rel=1e-9)
        assert float(found.rate) == pytest.approx(kramers, rel=1e-7)
        assert float(found.diffusion.rate) == pytest.approx(kramers, rel=1e-9)


def test_the_path_carries_its_cost():
    path = of_pit(0.01).path
    assert path.points[0, 0] == BOTTOM and path.points[-1, 0] == LIP
    assert path.cost[-1] == pytest.approx(13.23587, rel=1e-4)
    assert np.all(np.diff(path.cost) >= 0) and path.momentum[0, 0] == 0
    # On the way the momentum is the root: E exp(p delta) = 1.
    x, p = path.points[200, 0], path.momentum[200, 0]
    process = tw.systems.pit(0.01)
    assert float(process.noise.expectation(lambda w: jnp.exp(p * (process.step(x, w) - x)))) == pytest.approx(
        1, abs=1e-9
    )


# Several dimensions ---------------------------------------------------------------------------------


def pits(W, w):
    pit = tw.systems.pit(0.01)
    return jnp.stack([pit.step(W[0], w[0]), pit.step(W[1], w[1])])


TURN = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])


def turned(z, w):
    return TURN @ pits(TURN.T @ z, w)


def test_independent_pits_add_up():
    """Two pits side by side, seen from a turned frame: the cost is the sum, on a path that is not straight."""
    one = [of_pit(0.01, target=x) for x in (1.12, 1.16)]
    process = tw.Process(turned, tw.noise.Choice(2, shape=(2,)))
    a, b = TURN @ np.array([BOTTOM, BOTTOM]), TURN @ np.array([1.12, 1.16])
    found = tw.flow.quasi_potential(process, a, b, nodes=40)
    for ours, parts in ((found, one), (found.diffusion, [q.diffusion for q in one])):
        exact = sum(float(q.value) for q in parts)
        assert ours.value.ok and abs(float(ours.value) - exact) < ours.value.error < 2e-3 * exact
    points = found.path.points
    along = (b - a) / np.linalg.norm(b - a)
    assert np.max(np.abs((points - a) @ [-along[1], along[0]])) > 2e-3
    assert found.path.cost[-1] == pytest.approx(float(found.value), rel=2e-3)
    assert found.rate.status == Status.UNDEFINED and "saddle for its target" in found.rate.message
    # H = 0 along the path.
    x, p = points[20], found.path.momentum[20]
    tilt = process.noise.expectation(lambda w: jnp.exp(p @ (process.step(x, w) - x)))
    assert float(tilt) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_over_one_lip_of_two():
    process = tw.Process(pits, tw.noise.Choice(2, shape=(2,)))
    found = tw.flow.quasi_potential(process, np.array([BOTTOM, BOTTOM]), np.array([LIP, BOTTOM]), nodes=32)
    assert abs(float(found.value) - 13.2358723) < 2 * found.value.error < 0.1
    # The other pit does not change the rate, which is known on a line.
    for ours, alone in ((found, of_pit(0.01)), (found.diffusion, of_pit(0.01).diffusion)):
        assert ours.rate.ok and ours.rate.error < 0.05 * float(ours.rate)
        assert float(ours.rate) == pytest.approx(float(alone.rate), rel=0.02)


@pytest.mark.slow
def test_the_prefactor_on_a_path_that_bends():
    """The pit beside linear noise, seen in turned and bent coordinates: the rate is that of the pit on a line."""
    T = 0.003

    def bent(z):
        return TURN @ jnp.stack([z[0], z[1] + 2 * (z[0] - BOTTOM) ** 2])

    def straight(z):
        z = TURN.T @ z
        return jnp.stack([z[0], z[1] - 2 * (z[0] - BOTTOM) ** 2])

    def step(z, w):
        x, y = straight(z)
        slope = jnp.where(w[1] == 0, 9.6, 6.4) * y + jnp.where(w[1] == 0, 2.0, -2.0)
        return bent(jnp.stack([tw.systems.pit(T).step(x, w[0]), y - T * slope]))

    process = tw.Process(step, tw.noise.Choice(2, shape=(2,)))
    ends = [np.asarray(bent(jnp.array([x, 0.0]))) for x in (BOTTOM, LIP)]
    found, alone = tw.flow.quasi_potential(process, *ends, nodes=48), of_pit(T)
    assert found.rate.ok and float(found.rate) == pytest.approx(float(alone.rate), rel=0.05)
    assert found.rate.details["barrier"] == pytest.approx(float(alone.value), abs=0.01)


def rotating_wells(z, w):
    """A double well with a valley that bends and a force along its level lines: V = U / 0.1 for its diffusion."""
    x, y = z
    slope = jnp.stack([4 * x * (x**2 - 1) - 0.9 * x * (y - 0.3 * x**2), 1.5 * (y - 0.3 * x**2)])
    force = -slope + 0.6 * jnp.stack([slope[1], -slope[0]])
    return z + 0.02 * force + jnp.sqrt(2 * 0.1 * 0.02) * (2.0 * w - 1)


@pytest.mark.slow
def test_a_prefactor_without_detailed_balance():
    """The force along the level lines changes nothing of V and the density at rest, and speeds up the saddle."""
    process = tw.Process(rotating_wells, tw.noise.Choice(2, shape=(2,)))
    start, saddle = np.array([-1.0, 0.3]), np.zeros(2)
    found = tw.flow.quasi_potential(process, start, saddle, nodes=64)
    lift = (2.5 + np.sqrt(2.5**2 + 4 * 8.16)) / 2  # of the force at the saddle; det of U'' is 12 and -6
    known = 0.02 * lift / (2 * np.pi) * np.sqrt(2) * np.exp(-10)
    assert found.diffusion.rate.ok and abs(float(found.diffusion.rate) - known) < 2 * found.diffusion.rate.error
    assert float(found.diffusion.rate) == pytest.approx(known, rel=0.1)
    rough = tw.flow.quasi_potential(process, start, saddle, nodes=24)
    assert abs(np.log(float(rough.diffusion.rate) / known)) > 0.1  # a coarse path will not do, and says so
    assert abs(float(rough.diffusion.rate) - known) < 3 * rough.diffusion.rate.error


def test_gradient_langevin_in_three_dimensions():
    """Detailed balance: V = dU / temperature, along a potential whose valley bends."""

    def U(x):
        return 0.5 * (x[0] ** 2 + 2 * (x[1] - 0.5 * x[0] ** 2) ** 2 + x[2] ** 2)

    # One fair coin a coordinate: for steps this small it is as good as Gaussian noise, and finite.
    def step(x, w):
        grad = jnp.stack(
            [
                x[0] - 2 * (x[1] - 0.5 * x[0] ** 2) * x[0],
                2 * (x[1] - 0.5 * x[0] ** 2),
                x[2],
            ]
        )
        return x - 1e-4 * grad + jnp.sqrt(2 * 0.1 * 1e-4) * (2.0 * w - 1)

    target = np.array([1.0, 0.5, 0.3])
    found = tw.flow.quasi_potential(tw.Process(step, tw.noise.Choice(2, shape=(3,))), np.zeros(3), target, nodes=32)
    exact = float(U(target)) / 0.1
    assert abs(float(found.value) - exact) < found.value.error + 1e-3 * exact
    assert found.value.error < 0.02 * exact


def test_noise_that_does_not_reach():
    """Two data span a line only: no path leaves it."""
    process = tw.processes.sgd(lambda p, z: 0.5 * (z @ p - 1) ** 2, jnp.array([[1.0, 0.0], [1.0, 0.1]]), 0.1)
    found = tw.flow.quasi_potential(process, process.init(jnp.zeros(2)), jnp.ones(2), nodes=16, iterations=20)
    assert float(found.value) == np.inf and "fewer directions" in found.value.message


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda p: tw.flow.quasi_potential(p, 1.0, 1.0), "target must differ from start"),
        (lambda p: tw.flow.quasi_potential(p, 1.0, np.ones(2)), "target must be a state like"),
        (lambda p: tw.flow.quasi_potential(p, 1.0, np.inf), "target must be finite"),
        (lambda p: tw.flow.quasi_potential(p, 1.0, 2.0, nodes=2), "nodes must be a whole number >= 8"),
        (
            lambda p: tw.flow.quasi_potential(tw.Process(lambda x, w: x + w, tw.noise.Uniform()), 0.0, 1.0),
            "cannot be integrated",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(tw.systems.pit(0.01))
