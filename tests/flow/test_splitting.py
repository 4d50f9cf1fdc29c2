"""Splitting against closed forms and the exact operator, in one dimension and in a hundred."""

import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg import Status
from thalweg.systems import pit_points

BOTTOM, EXIT = pit_points().bottom, pit_points().lip_of_l1


def first(W):
    return W


def exact_escape(T, steps, start=BOTTOM, size=2**15):
    """P(escape within `steps`) on a fine grid: u <- K u with linear interpolation, and 14 steps by enumeration."""
    x = np.linspace(0.85, EXIT, size + 1)
    gradients = [2 * (x - 2) * np.exp(-((x - 2) ** 2))]
    gradients.append(gradients[0] + 200 * (x - 1) * np.exp(-100 * (x - 1) ** 2))
    places = []
    for g in gradients:
        at = np.clip((x - T * g - x[0]) / (x[1] - x[0]), 0, size)
        i = np.minimum(at.astype(int), size - 1)
        places.append((i, at - i))
    u = np.zeros(size + 1)
    u[-1] = 1.0
    for _ in range(steps - 14):
        u = np.mean([u[i] * (1 - f) + u[i + 1] * f for i, f in places], axis=0)
        u[-1] = 1.0
    points, arrived = np.array([start]), np.array([False])
    for _ in range(14):
        wide = 2 * (points - 2) * np.exp(-((points - 2) ** 2))
        narrow = 200 * (points - 1) * np.exp(-100 * (points - 1) ** 2)
        points = np.where(arrived, points, points - T * (wide + np.array([[0.0], [1.0]]) * narrow)).reshape(-1)
        arrived = np.tile(arrived, 2) | (points >= EXIT)
    return np.mean(np.where(arrived, 1.0, np.interp(points, x, u)))


def test_the_reference():
    assert exact_escape(0.01, 100) == pytest.approx(1.8274e-5, rel=3e-4)
    assert exact_escape(0.012, 100) == pytest.approx(9.4126e-4, rel=3e-4)


def test_the_pit():
    """T = 0.01, 100 steps: 1.8274e-5, about 12% a repeat of 1,000 paths."""
    found = tw.flow.splitting(tw.systems.pit(0.01), BOTTOM, first, EXIT, 100, key=3, repeats=16)
    assert found.ok
    assert abs(float(found) - 1.8274e-5) < 3.5 * found.error
    assert 0.06 < found.details["spread"] < 0.25
    assert 0.09 < found.details["ideal_spread"] < 0.12
    assert found.error == pytest.approx(found.details["spread"] * float(found) / 4, rel=1e-12)
    assert found.details["bytes"] == 1000 * 408


@pytest.mark.slow
@pytest.mark.parametrize("T, decade", [(0.008, -6.6), (0.006, -9.3), (0.0048, -11.9)])
def test_down_to_a_trillionth(T, decade):
    exact = exact_escape(T, 100)
    assert np.log10(exact) == pytest.approx(decade, abs=0.2)
    found = tw.flow.splitting(tw.systems.pit(T), BOTTOM, first, EXIT, 100, key=1, repeats=20)
    assert found.ok and abs(float(found) - exact) < 3.5 * found.error < 0.25 * exact
    assert found.details["log10"] == pytest.approx(np.log10(exact), abs=0.1)


@pytest.mark.slow
def test_unbiased_with_ties():
    """Few paths from one start with coin noise: exact ties, of which all must be killed. Mean of 300 repeats."""
    exact = exact_escape(0.012, 100)
    found = tw.flow.splitting(tw.systems.pit(0.012), BOTTOM, first, EXIT, 100, key=2, paths=100, kill=5, repeats=300)
    assert abs(float(found) - exact) < 3.5 * found.error < 0.1 * exact


def test_the_error_bar_covers():
    """40 estimates of 8 repeats each: 65% within one error bar (t with 7 degrees), on a walk with many ties."""
    walk = tw.Process(lambda x, w: x + 2 * w - 1, tw.noise.Choice(2))
    # First passage to 20 within 40 steps, by reflection: P(X >= 20) + P(X > 20).
    from scipy.stats import binom

    exact = binom.sf(29, 40, 0.5) + binom.sf(30, 40, 0.5)
    found = tw.flow.splitting(walk, 0.0, first, 20.0, 40, key=5, paths=100, kill=10, repeats=320)
    assert abs(float(found) - exact) < 3.5 * found.error
    groups = found.details["repeats"].reshape(40, 8)
    error = groups.std(axis=1, ddof=1) / np.sqrt(8)
    inside = np.mean(abs(groups.mean(axis=1) - exact) < error)
    assert abs(inside - 0.65) / np.sqrt(0.65 * 0.35 / 40) < 3


def hundred_pits(W, w):
    """One hundred parameters, each in a pit of its own with a coin of its own."""
    wide, narrow = 2 * (W - 2) * jnp.exp(-((W - 2) ** 2)), 200 * (W - 1) * jnp.exp(-100 * (W - 1) ** 2)
    return W - 0.01 * (wide + w * narrow)


def test_a_learner_with_a_hundred_parameters():
    """Any of a hundred independent parameters escapes: 1 - (1 - p)^100, p = 1.8274e-5."""
    process = tw.Process(hundred_pits, tw.noise.Choice(2, shape=(100,)))
    exact = -np.expm1(100 * np.log1p(-1.8274e-5))
    found = tw.flow.splitting(process, jnp.full(100, BOTTOM), jnp.max, EXIT, 100, key=0, paths=400, kill=40, repeats=8)
    assert found.ok and abs(float(found) - exact) < 3.5 * found.error < 0.4 * exact


def one_pit_turned(z, w):
    """A hundred parameters, mirrored so that the pit lies along a direction of all of them; the others are noise."""
    u = jnp.ones(100) / 10
    mirrored = z - 2 * u * jnp.sum(u * z)  # a reflection: its own inverse
    W = mirrored[0]
    wide, narrow = 2 * (W - 2) * jnp.exp(-((W - 2) ** 2)), 200 * (W - 1) * jnp.exp(-100 * (W - 1) ** 2)
    moved = 0.9 * mirrored + 0.1 * w["kick"]
    moved = moved.at[0].set(W - 0.006 * (wide + w["coin"] * narrow))
    return moved - 2 * u * jnp.sum(u * moved)


@pytest.mark.slow
def test_one_direction_of_a_hundred():
    """Escape along one direction in R^100 among noise in all others, about 1e-11: the one-dimensional answer."""
    u = np.ones(100) / 10
    process = tw.Process(one_pit_turned, {"coin": tw.noise.Choice(2), "kick": tw.noise.Normal((100,))})
    begin = np.zeros(100)
    begin[0] = BOTTOM
    direction = np.eye(100)[0] - 2 * u * u[0]
    found = tw.flow.splitting(
        process,
        jnp.asarray(begin - 2 * u * (u @ begin)),
        lambda z: jnp.sum(jnp.asarray(direction) * z),
        EXIT - 1e-12,
        100,
        key=0,
        repeats=10,
    )
    exact = exact_escape(0.006, 100)
    assert found.ok and abs(float(found) - exact) < 3.5 * found.error < 0.5 * exact


def test_states_are_pytrees_and_products_of_matrices_are_replayed():
    """A learner from `sgd` with a matrix product in its step: the answer is that of the plain walk."""
    data = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    process = tw.processes.sgd(lambda p, z: z @ p["w"], data, 1.0)
    start = process.init({"w": jnp.zeros(2)})
    found = tw.flow.splitting(process, start, lambda s: s.params["w"][0], 6.0, 6, key=0, paths=400, kill=20, repeats=8)
    assert abs(float(found) - 2.0**-6) < 3.5 * found.error < 0.3 * 2.0**-6


def test_same_key_same_number():
    walk = tw.Process(lambda x, w: x + 2 * w - 1, tw.noise.Choice(2))
    one, two, other = (
        float(tw.flow.splitting(walk, 0.0, first, 8.0, 12, key=k, paths=100, kill=10, repeats=2)) for k in (1, 1, 2)
    )
    assert one == two != other


def test_a_poor_score_is_told():
    """The score sees the fast noise and not the slow climb: repeats spread, or die out."""

    def step(s, w):
        return {"climb": s["climb"] + (2 * w["coin"] - 1), "noise": w["kick"]}

    process = tw.Process(step, {"coin": tw.noise.Choice(2), "kick": tw.noise.Normal()})

    def blind(s):
        return jnp.where(s["climb"] >= 14, 100.0, s["noise"])

    start = {"climb": 0.0, "noise": 0.0}
    found = tw.flow.splitting(process, start, blind, 100.0, 20, key=0, paths=100, kill=10, repeats=10, most_levels=300)
    assert not found.ok
    assert found.status in (Status.POOR_SCORE, Status.NOT_CONVERGED)
    good = tw.flow.splitting(process, start, lambda s: s["climb"], 14.0, 20, key=0, paths=400, kill=20)
    assert good.ok


def test_out_of_reach():
    """Ten steps of one cannot climb eleven: every path ties at the top and all die."""
    walk = tw.Process(lambda x, w: x + 2 * w - 1, tw.noise.Choice(2))
    found = tw.flow.splitting(walk, 0.0, first, 11.0, 10, key=0, paths=100, kill=10, repeats=3)
    assert float(found) == 0 and found.error == np.inf and found.status == Status.POOR_SCORE
    assert found.details["extinct"] == 3 and "no repeat reached the level" in found.message


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"steps": 0}, "steps must be a whole number >= 1"),
        ({"paths": 1}, "paths must be a whole number >= 2"),
        ({"kill": 1000}, "kill must be below paths"),
        ({"repeats": 1}, "repeats must be a whole number >= 2"),
        ({"level": np.nan}, "level must be a finite number"),
        ({"level": 0.5}, "start must lie below the level 0.5, got a score of"),
        ({"score": lambda W: jnp.stack([W, W])}, "score must give a single number"),
        ({"score": lambda W: jnp.log(W - 1.00746)}, "score must give one finite number"),
    ],
)
def test_bad_input(change, sentence):
    arguments = {"start": BOTTOM, "score": first, "level": EXIT, "steps": 10, "key": 0} | change
    with pytest.raises(ValueError, match=sentence):
        tw.flow.splitting(tw.systems.pit(0.01), **arguments)


def test_more_bad_input():
    shuffled = tw.processes.sgd(lambda p, z: (p - z) ** 2, jnp.arange(4.0), 0.1, order="shuffle")
    with pytest.raises(ValueError, match="epoch without replacement"):
        tw.flow.splitting(shuffled, 0.0, lambda s: s.params, 1.0, 5, key=0)
    with pytest.raises(ValueError, match="NaN on the way"):
        tw.flow.splitting(tw.systems.coin(1.0), 0.0, lambda x: jnp.sqrt(x + 0.5), 3.0, 9, key=0, paths=50, kill=5)
    with pytest.raises(TypeError, match="score must be a function"):
        tw.flow.splitting(tw.systems.pit(0.01), BOTTOM, 1.0, EXIT, 5, key=0)
    with pytest.raises(TypeError, match="key must be a random key"):
        tw.flow.splitting(tw.systems.pit(0.01), BOTTOM, first, EXIT, 5, key=None)
