"""Comp and Op: closed forms, the limit of differences, what every source and target may be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg.steering import op

START = {"room": 35.0, "thermostat": 10.0}


def thermostat_op(gain, steps, setpoint=25.0, start=START, **options):
    room = tw.systems.thermostat(gain, setpoint)
    return op(room, room.init(**start), steps, agent="thermostat", source="room", target="room", **options)


def linear_comp(gain, steps):
    """(l1^(t+1) - l2^(t+1)) / (l1 - l2), from the recurrence c_{t+1} = c_t - k c_{t-1}."""
    comp = [1.0, 1.0]
    while len(comp) < steps + 1:
        comp.append(comp[-1] - gain * comp[-2])
    return np.array(comp[1:])


def test_the_published_thermostat():
    found = thermostat_op(0.01, 1000)
    known = {1: 0.0, 2: 0.0100503359, 10: 0.0912766605, 100: 1.0050847695, 1000: 10.1431658590}
    for step, value in known.items():
        assert abs(float(found.op[step - 1]) - value) < 1e-10
    assert abs(float(thermostat_op(0.02, 1000).op[-1]) - 20.6070899186) < 1e-10
    assert found.ok and found.message == "the result can be trusted"
    np.testing.assert_array_equal(found.log_clamped, 0.0)  # the direct effect is 1


@pytest.mark.parametrize("gain", [0.003, 0.17, 0.25, 0.6, 0.93])
def test_any_thermostat_follows_the_closed_form(gain):
    found, comp = thermostat_op(gain, 60, setpoint=-3.0, start={"room": 1.0, "thermostat": 2.0}), linear_comp(gain, 60)
    sure = np.abs(comp) > 1e-9 * np.sqrt(gain) ** np.arange(1, 61)
    np.testing.assert_allclose(found.comp[sure], comp[sure], rtol=1e-9)
    np.testing.assert_array_equal(found.sign[sure], np.sign(comp)[sure])


def test_a_quarter_has_a_double_root():
    steps = np.arange(1, 101)
    np.testing.assert_allclose(thermostat_op(0.25, 100).op, steps * np.log(2) - np.log(steps + 1), atol=1e-12)


def test_exact_zeros_are_plus_infinity_and_say_so():
    found = thermostat_op(0.5, 12)
    zero = np.isin(np.arange(1, 13), [3, 7, 11])
    np.testing.assert_array_equal(np.isposinf(found.op), zero)
    np.testing.assert_array_equal(found.status == tw.Status.NO_RESPONSE, zero)
    np.testing.assert_array_equal(found.sign[zero], 0)
    assert "the free response is exactly zero: Op = +inf (at 3 of 12, first at 3)" in found.message
    assert not found.ok


def test_what_goes_through_the_agent_alone_is_minus_infinity():
    chain = tw.Process(lambda s, w: {"a": s["b"], "b": tw.node(s["c"], "relay"), "c": s["c"]})
    found = op(chain, {"a": 0.0, "b": 0.0, "c": 1.0}, 3, "relay", lambda s: s["c"], lambda s: s["b"])
    np.testing.assert_array_equal(found.op, -np.inf)
    assert "everything goes through the agent" in found.message


def test_a_source_that_does_not_reach_the_target_is_undefined():
    apart = tw.Process(lambda s, w: {"a": s["a"], "b": tw.node(s["b"], "b"), "c": 2 * s["c"]})
    found = op(apart, {"a": 1.0, "b": 1.0, "c": 1.0}, 2, "b", lambda s: s["c"], lambda s: s["a"])
    assert np.all(np.isnan(found.op)) and np.all(found.status == tw.Status.UNDEFINED)
    assert "Comp is 0/0" in found.message


def test_a_response_made_of_rounding_errors_is_called_so():
    cancels = tw.Process(lambda s, w: {"x": s["x"] * 0.1 * 3 - 0.3 * s["x"], "y": s["x"], "b": tw.node(s["b"], "b")})
    found = op(cancels, {"x": 1.0, "y": 0.0, "b": 0.0}, 1, "b", lambda s: s["x"], lambda s: s["x"])
    assert -40 < float(found.log_free[0]) < -35  # 5e-17, where exact numbers would give 0
    assert int(found.status[0]) == tw.Status.ILL_CONDITIONED
    assert "neither its size nor its sign is reliable" in found.message


def test_lorenz_below_the_bifurcation():
    lorenz = tw.systems.lorenz(0.8, method="euler")
    state = lorenz.init(a=1, b=1, c=1)
    found = op(lorenz, state, 2000, "a", "b", "b")
    for time, value in ((1, -0.2245810), (5, -3.1850337), (10, -7.2387640), (20, -15.4301807)):
        assert abs(float(found.op[100 * time - 1]) - value) < 1e-7
    of_c = op(lorenz, state, 2000, lambda s: s["a"], lambda s: s["c"], lambda s: s["c"])
    assert abs(float(of_c.op[99]) - 2.3415096) < 1e-7 and float(of_c.sign[99]) == -1
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(of_c.sign) < 0) + 1, np.arange(99, 137))


def test_chaos_with_the_clamp_at_every_stage():
    lorenz = tw.systems.lorenz(28.0)
    state = lorenz.init(a=1, b=1, c=1)
    found = op(lorenz, state, 1000, "b", "c", "c")
    assert abs(float(found.log_clamped[-1]) + 26.6666665518) < 1e-9
    assert abs(float(found.log_free[-1]) - 1.6063837) < 1e-6
    z = -8 / 3 * 0.01
    np.testing.assert_allclose(
        found.log_clamped, np.arange(1, 1001) * np.log(1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24), atol=1e-10
    )


def test_chaos_stays_finite_over_a_hundred_thousand_steps():
    lorenz = tw.systems.lorenz(28.0)
    state = tw.simulate(lorenz, lorenz.init(a=1, b=1, c=1), 2000).state
    found = op(lorenz, state, 100_000, "a", "b", lambda s: jnp.stack([s["b"], s["c"]]), read="end")
    assert found.ok
    assert abs(float(found.op) / 1000 + 2.706) < 0.06  # per unit of time: -1.8018 - .9039
    grows = tw.Process(lambda s, w: {"x": 1e6 * s["x"], "y": 1e-6 * s["y"] + s["x"] * 0})
    far = op(grows, {"x": 1.0, "y": 1.0}, 100_000, lambda s: s["y"], lambda s: s["x"], lambda s: s["x"], read="end")
    assert abs(float(far.log_free) / (1e5 * np.log(1e6)) - 1) < 1e-12 and float(far.op) == 0


def test_no_agent_no_effect():
    lorenz = tw.systems.lorenz(28.0)
    np.testing.assert_array_equal(op(lorenz, lorenz.init(a=1, b=1, c=1), 50, (), "b", "c").op, 0.0)
    without_gain = thermostat_op(0.0, 20)
    np.testing.assert_array_equal(without_gain.op, 0.0)


def test_a_window_holds_the_agent_for_a_while():
    lorenz = tw.systems.lorenz(28.0, method="euler")
    state, window = lorenz.init(a=1, b=1, c=1), np.arange(3000) < 1000
    always, a_while = op(lorenz, state, 3000, "a", "b", "b"), op(lorenz, state, 3000, "a", "b", "b", window=window)
    np.testing.assert_allclose(a_while.op[:1000], always.op[:1000], atol=1e-12)
    assert abs(float(a_while.op[999]) + 21.4153) < 1e-3
    np.testing.assert_allclose(a_while.op[2500:], -22.28707, atol=1e-4)  # once let go, both grow alike
    asked = op(lorenz, state, 200, "a", "b", "b", window=lambda s, w: s["c"] > -1e9)
    np.testing.assert_allclose(asked.op, always.op[:200], atol=1e-12)
    read_later = op(lorenz, state, 2000, "a", "b", "a", window=window)  # the agent may be read once it is let go
    assert np.isfinite(read_later.op[-1])


# Each kind of source, with the same thing done by hand.


def test_the_response_is_the_limit_of_a_difference_for_every_source():
    lorenz = tw.systems.lorenz(28.0)
    state = lorenz.init(a=1.0, b=2.0, c=20.0)
    sources = {
        "part": "b",
        "selector": lambda s: s["b"],
        "mask": {"a": np.array(False), "b": np.array(True), "c": np.array(False)},
        "direction": (lambda s: (s["b"], s["c"]), (0.6, -0.8)),
        "process": lambda p: p.step.field.rho,
    }
    for name, source in sources.items():
        exact = op(lorenz, state, 60, "a", source, lambda s: s["b"] * s["c"])
        finite = op(lorenz, state, 60, "a", source, lambda s: s["b"] * s["c"], method="fork", size=1e-7)
        np.testing.assert_allclose(finite.log_free, exact.log_free, atol=2e-4, err_msg=name)
        np.testing.assert_allclose(finite.log_clamped, exact.log_clamped, atol=2e-4, err_msg=name)
        np.testing.assert_array_equal(finite.sign, exact.sign, err_msg=name)


def test_a_node_inside_the_step_is_perturbed_in_the_first_step():
    room = tw.systems.thermostat(0.1, 25.0)
    state = room.init(**START)
    at_node = op(room, state, 40, "thermostat", "control", "room")
    by_hand = op(room, {**state, "room": state["room"] - 1}, 39, "thermostat", ("room", -1.0), "room")
    np.testing.assert_allclose(at_node.op[1:], by_hand.op, atol=1e-12)
    assert float(at_node.op[0]) == 0
    finite = op(room, state, 40, "thermostat", "control", "room", method="fork", size=0.1)
    np.testing.assert_allclose(finite.op, at_node.op, atol=1e-9)


def test_nodes_are_found_in_loops_branches_and_jitted_functions():
    def body(x, _):
        return jax.jit(lambda x: x - 0.1 * tw.node(jnp.sin(x), "pull"))(x), None

    def step(s, w):
        x = jax.lax.scan(body, s["x"], None, length=3)[0]
        x = jax.lax.cond(x > 0, lambda x: x + 0.1 * tw.node(x, "pull"), lambda x: x, x)
        x = jax.lax.fori_loop(0, 2, lambda i, x: x + tw.node(0.01 * x, "more"), x)
        return {"x": x + 0.1 * s["y"], "y": tw.node(s["y"] - 0.2 * x, "y")}

    process, state = tw.Process(step), {"x": 0.7, "y": 0.3}
    for name in ("pull", "more"):
        exact = op(process, state, 12, "y", (name, 1.0), lambda s: s["x"])
        finite = op(process, state, 12, "y", (name, 1.0), lambda s: s["x"], method="fork", size=1e-6)
        np.testing.assert_allclose(finite.log_free, exact.log_free, atol=1e-5)
        np.testing.assert_allclose(finite.op, exact.op, atol=1e-5)


@pytest.mark.parametrize("most", [2**27, 0])
def test_reverse_mode_agrees_with_forward_mode(most, monkeypatch):
    monkeypatch.setattr("thalweg.steering._pair.MOST_BYTES", most)  # with 0, states are made again by segments
    ring = tw.systems.lorenz96(12 + (most == 0))  # another shape, so that it is compiled anew
    state = tw.simulate(ring, ring.init(), 300).state
    held = np.arange(state.size) // 2 == 3
    back = op(ring, state, 37, held, lambda x: x[:6], lambda x: x[11], mode="reverse")
    for site in (0, 3, 5):
        alone = (lambda x: x[:6], jnp.eye(6)[site])
        ahead = op(ring, state, 37, held, alone, lambda x: x[11], read="end")
        np.testing.assert_allclose(back.op[site], ahead.op, atol=1e-9)
        np.testing.assert_allclose(back.log_free[site], ahead.log_free, atol=1e-9)
        assert back.sign[site] == ahead.sign


def regression():
    x = jax.random.normal(jax.random.key(1), (20, 3))
    data = (x, x @ jnp.array([1.0, -2.0, 0.5]))
    return lambda p, d: (d[0] @ p - d[1]) ** 2 / 2, data


# Kept whole, the states of any run go the same way; in segments of about sqrt(steps), runs that fill one (1, 2),
# several (16), and several with a rest (7).
@pytest.mark.parametrize(("most", "lengths"), [(2**27, (1, 7)), (0, (1, 2, 7, 16))])
def test_reverse_mode_asks_every_datum_and_every_node_at_once(most, lengths, monkeypatch):
    monkeypatch.setattr("thalweg.steering._pair.MOST_BYTES", most)
    loss, data = regression()
    learner = tw.processes.sgd(loss, data, optax.sgd(0.05, momentum=0.9), 4, weights=jnp.ones(20))
    state = learner.init(jnp.zeros(3))
    where, read = (lambda p: p.step.weights), (lambda s: s.params[1])
    for steps in lengths:
        back = op(learner, state, steps, lambda s: s.opt_state, where, read, key=3, mode="reverse")
        assert back.op.shape == (20,)
        reached = np.flatnonzero(np.isfinite(back.op))[:2]
        for datum in reached:
            ahead = op(learner, state, steps, lambda s: s.opt_state, (where, jnp.eye(20)[datum]), read, 3, read="end")
            np.testing.assert_allclose(back.op[datum], ahead.op, atol=1e-9)
        nodes = op(learner, state, steps, lambda s: s.opt_state, "gradient", read, key=3, mode="reverse")
        for entry in range(3):
            if np.isfinite(nodes.op[entry]):
                direction = jnp.eye(3)[entry]
                ahead = op(learner, state, steps, lambda s: s.opt_state, ("gradient", direction), read, 3, read="end")
                np.testing.assert_allclose(nodes.op[entry], ahead.op, atol=1e-9)


def test_an_array_needs_a_direction_and_a_vector_gets_a_cosine():
    matrix = jnp.array([[0.9, 0.2], [-0.3, 0.8]])
    loop = tw.Process(lambda s, w: {"x": matrix @ s["x"] - 0.4 * tw.node(s["z"], "z"), "z": s["x"]})
    state = {"x": jnp.ones(2), "z": jnp.zeros(2)}
    found = op(loop, state, 9, "z", (lambda s: s["x"], jnp.array([1.0, 2.0])), lambda s: s["x"])
    v, z, u = np.array([1.0, 2.0]), np.zeros(2), np.array([1.0, 2.0])
    for step in range(9):
        v, z, u = matrix @ v - 0.4 * z, v, matrix @ u
        assert abs(float(found.op[step]) - np.log(np.linalg.norm(u) / np.linalg.norm(v))) < 1e-12
        assert abs(float(found.cosine[step]) - u @ v / np.linalg.norm(u) / np.linalg.norm(v)) < 1e-12


def test_op_works_under_vmap_and_jit_and_reads_the_end():
    lorenz = tw.systems.lorenz(28.0)
    starts = jax.random.normal(jax.random.key(0), (5, 3)) * 5

    @jax.jit
    @jax.vmap
    def landscape(x):
        return op(lorenz, lorenz.init(*x), 100, "a", "b", "c", read="end")

    found = landscape(starts)
    for member in range(5):
        alone = op(lorenz, lorenz.init(*starts[member]), 100, "a", "b", "c")
        np.testing.assert_allclose(found.op[member], alone.op[-1], atol=1e-9)
        assert found.sign[member] == alone.sign[-1]


def test_saturated_is_exactly_zero_and_the_landscape_adds_up():
    for (theta, power), dt in (((1.0, 1.0), 0.02), ((0.5, 1.0), 0.02), ((1.0, 0.5), 0.02), ((0.3, 2.0), 0.01)):
        room, steps = tw.systems.saturating_thermostat(theta, power, 25.0, dt), 500
        starts = np.linspace(5, 45, 801)
        found = jax.vmap(
            lambda r, room=room: op(room, room.init(r, 0.0), 500, "thermostat", "room", "room", read="end")
        )(starts)
        assert float(found.op[0]) == 0 and float(found.op[400]) > 1
        # exactly, between the ends: (hi - lo) - (R_t(hi) - R_t(lo)) = 2 p (t - dt)
        ends = [tw.simulate(room, room.init(r, 0.0), steps).state["room"] for r in (5.0, 45.0)]
        assert abs(40 - float(ends[1] - ends[0]) - 2 * power * (steps - 1) * dt) < 1e-9
        integral = np.trapezoid(1 - np.asarray(found.comp), starts)
        assert abs(integral - 2 * power * (steps - 1) * dt) < 0.02


def test_noise_forcing_start_and_setpoint_drop_out_of_a_linear_loop():
    plain = thermostat_op(0.07, 80)
    for room in (
        tw.systems.thermostat(0.07, 3.0, forcing=1000.0, period=7.0),
        tw.systems.thermostat(0.07, 25.0, noise=5.0),
    ):
        found = op(room, room.init(room=-4.0, thermostat=1.0), 80, "thermostat", "room", "room", key=1)
        np.testing.assert_allclose(found.op, plain.op, atol=1e-10)


def test_sgd_on_a_quadratic_steers_at_the_mean_log_rate():
    curvature = jnp.array([0.5, 3.0])
    learner = tw.processes.sgd(lambda p, h: h * p**2 / 2, curvature, 0.9)
    steps = 20_000
    found = op(learner, learner.init(1.0), steps, "update", lambda s: s.params, lambda s: s.params, 5, read="end")
    logs = np.log(np.abs(1 - 0.9 * np.asarray(curvature)))
    error = logs.std() / np.sqrt(steps)
    assert abs(float(found.op) / steps + logs.mean()) < 4 * error
    assert np.mean((1 - 0.9 * np.asarray(curvature)) ** 2) > 1  # while the mean square diverges


def test_gradient_descent_steers_until_the_edge_of_stability():
    eta = 0.5
    curvature = jnp.array([0.1, 3.9, 4.1])
    descent = tw.processes.gradient_descent(lambda p: jnp.sum(curvature * p**2) / 2, eta)
    state = descent.init(jnp.ones(3))
    for k in range(3):
        found = op(descent, state, 100, "update", (lambda s: s.params, jnp.eye(3)[k]), lambda s: s.params)
        wanted = -np.arange(1, 101) * np.log(abs(1 - eta * float(curvature[k])))
        np.testing.assert_allclose(found.op, wanted, atol=1e-9)
    assert wanted[-1] < 0  # past eta H = 2 the update drives errors apart


def test_holding_a_node_leaves_the_inner_gradient_alone():
    """The loss holds a node on its way; clamping it must not change the update of the unperturbed run."""
    learner = tw.processes.gradient_descent(lambda p: jnp.sum(tw.node(jnp.tanh(p["a"]), "h") * p["b"]) ** 2, 0.1)
    state = learner.init({"a": jnp.array([0.3, 0.8]), "b": jnp.array([1.0, -2.0])})
    source, read = (lambda s: s.params["a"], jnp.array([1.0, 0.5])), lambda s: s.params["b"]
    exact = op(learner, state, 5, "h", source, read)
    finite = op(learner, state, 5, "h", source, read, method="fork", size=1e-5)
    np.testing.assert_allclose(finite.log_clamped, exact.log_clamped, atol=1e-4)
    np.testing.assert_allclose(finite.log_free, exact.log_free, atol=1e-4)


# Forks.


def test_forks_say_where_they_break():
    room = tw.systems.thermostat(0.02, 25.0)
    exact = thermostat_op(0.02, 1000)
    forked = op(room, room.init(**START), 1000, "thermostat", "room", "room", method="fork", size=1e-6)
    wrong = np.flatnonzero(~(np.abs(forked.op - exact.op) < 0.01)) + 1
    assert 650 < int(forked.breaks_at) <= wrong[0] < 760
    assert "lost to rounding" in forked.message
    lorenz = tw.systems.lorenz(28.0)
    chaos = op(lorenz, lorenz.init(a=1, b=1, c=1), 3000, "a", "b", "b", method="fork", size=1e-6)
    assert 100 < int(chaos.breaks_at) < 1500 and "finite size" in chaos.message


def test_forks_see_jumps_that_tangents_miss():
    def step(s, w):
        return {"x": s["x"] - 0.5 * tw.node(jnp.where(s["x"] > s["on"], 1.0, 0.0), "valve"), "on": s["on"]}

    valve, state = tw.Process(step, smooth=False), {"x": 1.0, "on": 0.99}
    with pytest.raises(ValueError, match='use method="fork"'):
        op(valve, state, 3, "valve", lambda s: s["x"], lambda s: s["x"])
    found = op(valve, state, 1, "valve", (lambda s: s["on"], 1.0), lambda s: s["x"], method="fork", size=0.1)
    assert np.isneginf(found.op[0])  # the threshold acts through the valve alone
    moved = op(valve, state, 1, "valve", (lambda s: s["x"], -1.0), lambda s: s["x"], method="fork", size=0.1)
    np.testing.assert_allclose(moved.op, -np.log(4.0))  # -0.1 + 0.5 against -0.1


def test_comp_is_the_total_over_the_natural_direct_effect():
    """Pearl's effects, by nested counterfactuals of a model written out by hand."""

    def x1(x0, z0):
        return x0 + 0.3 * jnp.sin(x0) - 0.5 * z0

    def z1(x0):
        return jnp.tanh(x0)

    def outcome(x0, mediator):
        return jnp.sin(x1(x0, 0.2)) - 0.7 * mediator**2

    process = tw.Process(
        lambda s, w: {"x": outcome_step(s), "z": jnp.tanh(s["x"])},
        names=lambda s: {"x": "x", "z": "z"},
    )

    def outcome_step(s):
        x, z = tw.node(s["x"], "x"), tw.node(s["z"], "z")
        return jnp.where(s["z"] == 0.2, x1(x, z), jnp.sin(x) - 0.7 * z**2)

    x0, change = 0.4, 1e-6
    total = (outcome(x0 + change, z1(x0 + change)) - outcome(x0 - change, z1(x0 - change))) / 2 / change
    direct = (outcome(x0 + change, z1(x0)) - outcome(x0 - change, z1(x0))) / 2 / change
    found = op(process, {"x": x0, "z": 0.2}, 2, "z", "x", "x")
    assert abs(float(found.comp[1]) - float(total / direct)) < 1e-8


def test_a_state_of_single_precision_keeps_it():
    halving = tw.Process(lambda s, w: {"x": s["x"] / 2 - tw.node(0.25 * s["x"], "pull")})
    state, x = {"x": jnp.float32(1.0)}, lambda s: s["x"]
    for source in (x, ("pull", 1.0)):
        found = op(halving, state, 200, "pull" if source is x else (), source, x)
        assert found.log_free.dtype == jnp.float32
        np.testing.assert_allclose(found.op[-1], 200 * np.log(2) if source is x else 0.0, rtol=1e-6)
    back = op(halving, state, 200, "pull", x, x, mode="reverse")
    np.testing.assert_allclose(back.op, 200 * np.log(2), rtol=1e-6)
