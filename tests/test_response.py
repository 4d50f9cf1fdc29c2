"""Nodes, clamps and responses against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg import noise, processes, systems

LORENZ = systems.lorenz(28.0)
START = LORENZ.init(a=1, b=1, c=1)


def log_c(steps=1000, **kwargs):
    return float(
        tw.response(LORENZ, START, steps, wrt=lambda s: s["c"], read=lambda s: s["c"], **kwargs).jvp().log_norm
    )


@pytest.mark.parametrize("where", ["b", lambda s: s["b"], ("b",)])
def test_a_clamp_acts_at_every_stage(where):
    """With b held, the tangent of c decays by RK4's factor for -beta; held between steps only, it would not."""
    z = -8 / 3 * 0.01
    factor = 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24
    assert log_c(clamp=where) == pytest.approx(1000 * math.log(factor), abs=1e-9)
    assert log_c(clamp=where) == pytest.approx(-26.6666665518, abs=1e-9)


def test_the_free_response_of_lorenz():
    assert log_c() == pytest.approx(1.6063837, abs=1e-5)  # chaos: 10 time units amplify rounding by e^9


def test_100_000_steps_neither_overflow_nor_vanish():
    rate = log_c(100_000, clamp="b") / 1000
    assert rate == pytest.approx(-8 / 3, abs=1e-6)
    free = log_c(100_000) / 1000
    assert 0.85 < free < 0.95


def test_a_window_holds_for_its_steps_only():
    window = np.zeros(1000, bool)
    window[:400] = True
    first = log_c(400, clamp="b")
    partly = tw.response(LORENZ, START, 1000, wrt=lambda s: s["c"], read=lambda s: s["c"], clamp="b", window=window)
    at_400 = tw.simulate(LORENZ, START, 400).state
    rest = tw.response(LORENZ, at_400, 600, start=400, wrt=lambda s: s["c"], read=lambda s: s["c"]).jvp()
    assert float(partly.jvp().log_norm) == pytest.approx(first + float(rest.log_norm), abs=1e-6)
    never = log_c(500, clamp="b", window=lambda s, w: s["c"] < -1e9)
    assert never == pytest.approx(log_c(500), abs=1e-9)


def _loss(p, datum):
    x, y = datum
    h = jnp.tanh(tw.node(x @ p["W1"], "field"))
    return jnp.sum((h @ p["W2"] - y) ** 2)


def _network(optimizer):
    keys = jax.random.split(jax.random.key(0), 4)
    data = jax.random.normal(keys[0], (30, 4)), jax.random.normal(keys[1], (30, 2))
    learner = processes.sgd(_loss, data, optimizer, batch_size=3, order="shuffle")
    params = {"W1": jax.random.normal(keys[2], (4, 5)), "W2": jax.random.normal(keys[3], (5, 2))}
    return learner, learner.init(params)


@pytest.mark.parametrize(
    "optimizer", [0.01, optax.sgd(0.01, momentum=0.9), optax.adam(0.01)], ids=["sgd", "momentum", "adam"]
)
def test_held_updates_carry_a_change_unchanged(optimizer):
    learner, start = _network(optimizer)
    first = lambda s: s.params["W1"][0]  # noqa: E731
    r = tw.response(learner, start, 40, key=1, wrt=first, read=first, clamp="update")
    unit, log_norm = r.jvp(jnp.arange(5.0))
    assert float(log_norm) == pytest.approx(math.log(math.sqrt(30)), abs=1e-12)
    assert np.allclose(unit, np.arange(5) / math.sqrt(30))
    other = tw.response(learner, start, 40, key=1, wrt=first, read=lambda s: s.params["W2"], clamp="update").jvp()
    assert np.isneginf(other.log_norm) and other.status == tw.Status.NO_RESPONSE


@pytest.mark.parametrize("after_a_free_call", [False, True])
def test_a_node_inside_an_inner_gradient(after_a_free_call):
    """Held inside a loss that the step differentiates, the update is unchanged and the outer tangent is held."""
    learner, start = _network(0.01)
    if after_a_free_call:
        tw.simulate(learner, start, 3, key=1)
    held = tw.clamp(learner, "field")
    free = tw.simulate(learner, start, 3, key=1).state.params
    same = tw.simulate(held, start, 3, key=1).state.params
    assert all(np.array_equal(free[name], same[name]) for name in free)

    # The gradient of W1 is x^T delta, and delta depends on W1 through the field alone: with the field held, a
    # change of W1 is carried as it is. A change of W2 does not move the field: it is carried as if free.
    r, free_r = (
        tw.response(p, start, 1, key=1, wrt=lambda s: s.params, read=lambda s: s.params) for p in (held, learner)
    )
    first = {"W1": jnp.ones((4, 5)), "W2": jnp.zeros((5, 2))}
    second = {"W1": jnp.zeros((4, 5)), "W2": jnp.ones((5, 2))}
    unit, log_norm = r.jvp(first)
    assert float(log_norm) == pytest.approx(math.log(20) / 2, abs=1e-14)
    assert np.allclose(unit["W1"], 20**-0.5) and np.all(unit["W2"] == 0)
    assert abs(float(free_r.jvp(first).log_norm) - math.log(20) / 2) > 1e-3
    unit, log_norm = r.jvp(second)
    free_unit, free_log = free_r.jvp(second)
    assert float(log_norm) == pytest.approx(float(free_log), abs=1e-13)
    assert np.abs(unit["W1"]).max() > 1e-3, "a change of W2 reaches W1 through the backward pass"
    assert all(np.allclose(unit[name], free_unit[name], atol=1e-14) for name in unit)


def test_clamps_work_through_jit_and_scan_traced_before():
    @jax.jit
    def inner(x):
        return x * tw.node(jnp.cos(x), "factor")

    def step(x, w):
        return jax.lax.scan(lambda x, _: (inner(x), None), x, None, length=3)[0]

    process = tw.Process(step)
    inner(0.3)
    tw.simulate(process, 0.3, 2)
    log_norm = tw.response(process, 0.3, 1, clamp="factor").jvp().log_norm
    x, product = 0.3, 1.0
    for _ in range(3):
        product *= math.cos(x)
        x *= math.cos(x)
    assert float(log_norm) == pytest.approx(math.log(product), abs=1e-14)


def test_gradient_descent_on_a_quadratic():
    h = jnp.array([3.0, 0.5])
    descent = processes.gradient_descent(lambda p: jnp.sum(h * p**2) / 2, 0.1)
    r = tw.response(descent, descent.init(jnp.ones(2)), 500)
    for direction, curvature in ((jnp.array([1.0, 0.0]), 3.0), (jnp.array([0.0, 1.0]), 0.5)):
        assert float(r.jvp(direction).log_norm) == pytest.approx(500 * math.log(1 - 0.1 * curvature), abs=1e-9)
        assert float(r.vjp(direction).log_norm) == pytest.approx(500 * math.log(1 - 0.1 * curvature), abs=1e-9)


def test_the_learning_rate_as_the_source():
    """d/dT of x (1 - T)^n is -n x (1 - T)^(n-1)."""
    process = processes.gradient_descent(lambda p: p**2 / 2, 0.1)
    for n in (1, 7, 8, 9, 3000):
        r = tw.response(process, process.init(2.0), n, wrt=lambda p: p.step.learning_rate)
        expected = math.log(2 * n) + (n - 1) * math.log(0.9)
        forwards, backwards = r.jvp(), r.vjp()
        assert float(forwards.unit) == -1 == float(backwards.unit)
        assert float(forwards.log_norm) == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert float(backwards.log_norm) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_reading_at_every_step_is_transposed_too():
    process = systems.linear_noise(0.5)
    r = tw.response(process, 1.0, 25, key=3, at="every")
    unit, log_norm = r.jvp()
    factors = 1 - 0.5 * (
        1 + 0.2 * (1 - 2 * np.array([int(process.noise.sample(jax.random.key(3), i)) for i in range(25)]))
    )
    assert np.allclose(log_norm, np.cumsum(np.log(factors)), atol=1e-12) and np.all(np.asarray(unit) == 1)
    c = np.random.default_rng(0).normal(size=25)
    back = r.vjp(c)
    assert float(back.unit * np.exp(back.log_norm)) == pytest.approx(float(c @ np.cumprod(factors)), rel=1e-12)


def test_vmap_over_directions_and_starts():
    r = tw.response(LORENZ, START, 50)
    basis = {name: jnp.eye(3)[k] for k, name in enumerate("abc")}
    columns = jax.vmap(r.jvp)(basis)
    assert columns.log_norm.shape == (3,)
    f = jax.jit(
        jax.vmap(lambda a: tw.response(LORENZ, {**START, "a": a}, 50).jvp({"a": 1.0, "b": 0.0, "c": 0.0}).log_norm)
    )
    assert float(f(jnp.array([1.0, 2.0]))[0]) == pytest.approx(float(columns.log_norm[0]), abs=1e-9)


def test_integer_parts_carry_no_tangent():
    counter = tw.Process(lambda s, w: {"x": 0.5 * s["x"], "n": s["n"] + 1})
    unit, log_norm = tw.response(counter, {"x": 1.0, "n": 0}, 4).jvp()
    assert unit["n"] is None and float(log_norm) == pytest.approx(4 * math.log(0.5))
    with pytest.raises(ValueError, match="carries no tangent"):
        tw.response(counter, {"x": 1.0, "n": 0}, 4, wrt=lambda s: s["n"])


def test_jumps_are_refused_unless_ignored():
    metropolis = tw.Process(lambda x, w: jnp.where(w < 0.5, x + 1, x), noise.Uniform(), smooth=False)
    with pytest.raises(ValueError, match=r"compare finite forks \(tw.fork\), or use the covariance identity"):
        tw.response(metropolis, 0.0, 3, key=0)
    assert float(tw.response(metropolis, 0.0, 3, key=0, jumps="ignore").jvp().log_norm) == 0.0


def test_names_that_no_node_carries():
    with pytest.raises(ValueError, match=r"no node of the step is called 'd'; its nodes: 'a', 'b', 'c'"):
        tw.response(LORENZ, START, 3, clamp="d").jvp()


def test_masks_hold_entries():
    ring = processes.ode(lambda x: jnp.roll(x, 1) - x, 0.1)
    mask = np.array([True, False, False, False])
    r = tw.response(ring, jnp.zeros(4), 30, clamp=mask, wrt=lambda x: x[3], read=lambda x: x[1])
    assert np.isneginf(r.jvp().log_norm)  # 3 reaches 1 through 0 only
    assert tw.response(ring, jnp.zeros(4), 30, wrt=lambda x: x[3], read=lambda x: x[1]).jvp().log_norm > -5


def test_a_custom_derivative_around_a_held_node_is_refused():
    @jax.custom_jvp
    def f(x):
        return tw.node(x, "inside") ** 2

    f.defjvp(lambda p, t: (f(p[0]), 2 * p[0] * t[0]))
    with pytest.raises(ValueError, match="derivative rule of its own"):
        tw.response(tw.Process(lambda x, w: f(x)), 0.5, 2, clamp="inside").jvp()
