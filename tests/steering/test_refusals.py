"""What `op` and its kin refuse, each in one sentence."""

import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.steering import bode_integral, gaussian_strength, lyapunov_exponents, op, op_volume, square_strength

LORENZ = tw.systems.lorenz(28.0)
STATE = LORENZ.init(a=1, b=1, c=1)
DESCENT = tw.processes.gradient_descent(lambda p: jnp.sum(p["W"] ** 2) + jnp.sum(p["v"] ** 2), 0.1)
NET = DESCENT.init({"W": jnp.ones((2, 3)), "v": jnp.ones(2)})
CHAIN = tw.processes.finite([1, 2, 0])


def two_shapes(s, w):
    tw.node(s["a"][:1], "n")
    return {"a": s["a"] + tw.node(s["a"], "n") * 0}


def in_a_custom_rule(s, w):
    import jax

    @jax.custom_jvp
    def f(x):
        return tw.node(jnp.sin(x), "inner")

    f.defjvp(lambda p, t: (f(p[0]), t[0]))
    return {"a": f(s["a"]), "b": s["b"]}


def lorenz_op(agent="a", source="b", target="c", **options):
    return op(LORENZ, STATE, 3, agent, source, target, **options)


CASES = {
    "agent not in the state": (
        lambda: lorenz_op(agent=lambda s: s["d"]),
        "agent picks nothing out of the state: KeyError",
    ),
    "agent that is no node": (
        lambda: lorenz_op(agent="d"),
        "no node of the step is called 'd'; its nodes: 'a', 'b', 'c'",
    ),
    "agent of no kind": (lambda: lorenz_op(agent=3), "agent must be a node's name, a selector"),
    "agent that computes": (lambda: lorenz_op(agent=lambda s: s["a"] + 1), "must pick leaves, entries or slices"),
    "source in the agent": (lambda: lorenz_op(source="a"), "source lies inside the agent"),
    "source in the agent, by selector": (
        lambda: lorenz_op(agent=("a", "b"), source=lambda s: s["b"]),
        "source lies inside the agent",
    ),
    "source node in the agent": (
        lambda: op(DESCENT, NET, 2, "update", ("update.W", jnp.ones((2, 3))), lambda s: s.params["v"]),
        "source lies inside the agent",
    ),
    "target in the agent": (lambda: lorenz_op(target=lambda s: s["a"]), "target lies inside the agent"),
    "target computed from the agent": (lambda: lorenz_op(target=lambda s: s["a"] ** 2), "target lies inside the agent"),
    "target not in the state": (
        lambda: lorenz_op(target=lambda s: s["d"]),
        "target reads something that the state lacks",
    ),
    "target by an unknown name": (lambda: lorenz_op(target="d"), "target 'd' is no part of the state by name"),
    "target of truth values": (lambda: lorenz_op(target=lambda s: s["c"] > 0), "target must give floating numbers"),
    "source not in the state": (lambda: lorenz_op(source=lambda s: s["d"]), "source picks nothing out of the state"),
    "source that is no node": (lambda: lorenz_op(source="d"), "no node of the step is called 'd'"),
    "source without a direction": (
        lambda: op(DESCENT, NET, 2, (), lambda s: s.params["W"], lambda s: s.params["v"]),
        r"say along which direction, as source=\(selector, direction\)",
    ),
    "direction of a wrong shape": (
        lambda: op(DESCENT, NET, 2, (), (lambda s: s.params["W"], jnp.ones(3)), lambda s: s.params["v"]),
        r"the direction of source must have shape \(2, 3\), got \(3,\)",
    ),
    "direction of zeros": (lambda: lorenz_op(source=("b", 0.0)), "must be finite and not zero"),
    "direction at a node of other leaves": (
        lambda: op(DESCENT, NET, 2, (), ("update", {"W": jnp.ones((2, 3))}), lambda s: s.params["v"]),
        r"must have entries for \['update.W', 'update.v'\], got \['update.W'\]",
    ),
    "node of two shapes": (
        lambda: op(tw.Process(two_shapes), {"a": jnp.ones(2)}, 2, (), ("n", 1.0), lambda s: s["a"]),
        "node 'n' has two shapes in one step",
    ),
    "node inside a rule of its own": (
        lambda: op(tw.Process(in_a_custom_rule), {"a": 1.0, "b": 1.0}, 2, "inner", lambda s: s["b"], lambda s: s["a"]),
        "a derivative rule of its own",
    ),
    "whole-number state": (
        lambda: op(CHAIN, CHAIN.init(0), 2, (), lambda s: s, lambda s: s),
        "the state is not differentiable",
    ),
    "agent of nothing and something": (
        lambda: lorenz_op(agent=(None, "a")),
        "agent must be a node's name, a selector, a boolean mask or a tuple of them, got None",
    ),
    "complex state": (
        lambda: op(tw.Process(lambda s, w: s / 2), 1j, 2, (), lambda s: s, lambda s: s),
        "state must be real, got complex numbers",
    ),
    "several starts": (lambda: lorenz_op(start=[0, 1]), "start must be one, got several"),
    "every coordinate held": (
        lambda: lyapunov_exponents(LORENZ, STATE, 1000, clamp=("a", "b", "c")),
        "clamp holds every coordinate of the state",
    ),
    "everything goes through the agent": (
        lambda: bode_integral(
            tw.Process(lambda s, w: {"a": tw.node(s["c"] / 2, "relay"), "c": s["c"] / 3}),
            {"a": 0.0, "c": 0.0},
            "relay",
            lambda s: s["c"],
            lambda s: s["a"],
        ),
        "with the agent held: Op is -infinity at every frequency",
    ),
    "no steps": (lambda: op(LORENZ, STATE, 0, "a", "b", "c"), "steps must be at least 1"),
    "broken steps": (lambda: op(LORENZ, STATE, -1, "a", "b", "c"), "steps must be a whole number >= 0"),
    "unknown method": (lambda: lorenz_op(method="guess"), 'method must be "tangent" or "fork", got'),
    "unknown reading": (lambda: lorenz_op(read="last"), 'read must be "every" or "end"'),
    "negative size": (lambda: lorenz_op(method="fork", size=-1.0), "size must be a number > 0"),
    "reverse fork": (lambda: lorenz_op(method="fork", mode="reverse"), 'mode="reverse" needs method="tangent"'),
    "reverse to a vector": (
        lambda: lorenz_op(mode="reverse", target=lambda s: jnp.stack([s["b"], s["c"]])),
        "needs a target of one number",
    ),
    "reverse with a direction": (lambda: lorenz_op(mode="reverse", source=("b", 1.0)), "source must come without"),
    "state of NaN": (
        lambda: op(LORENZ, LORENZ.init(a=np.nan, b=1, c=1), 2, "a", "b", "c"),
        "a must be a finite number, got nan",
    ),
    "no process": (lambda: op(3, STATE, 2, "a", "b", "c"), "process must be a tw.Process"),
    "too many exponents": (
        lambda: lyapunov_exponents(LORENZ, STATE, 1000, 3, clamp="a"),
        "k must be a whole number from 1 to 2, the free coordinates, got 3",
    ),
    "too few steps for exponents": (lambda: lyapunov_exponents(LORENZ, STATE, 10), "steps must exceed discard"),
    "volume of dependent directions": (
        lambda: op_volume(
            DESCENT, NET, 2, "update", lambda s: s.params["v"], lambda s: s.params["v"], directions=jnp.ones((2, 2))
        ),
        "directions must be independent",
    ),
    "volume into too few numbers": (
        lambda: op_volume(DESCENT, NET, 2, "update", lambda s: s.params["W"], lambda s: s.params["v"]),
        "target must give at least as many numbers",
    ),
    "frequency form of nothing": (
        lambda: bode_integral(
            tw.Process(lambda s, w: {"a": s["a"] / 2, "b": tw.node(s["b"], "b"), "c": s["c"] / 3}),
            {"a": 0.0, "b": 0.0, "c": 0.0},
            "b",
            lambda s: s["a"],
            lambda s: s["c"],
        ),
        "the source does not reach the target",
    ),
    "square without gain": (lambda: square_strength(0.0), "gain must be a number > 0"),
    "singular Gaussian map": (lambda: gaussian_strength(np.zeros((2, 2)), np.eye(2)), "jacobian must be invertible"),
    "covariance of no Gaussian": (lambda: gaussian_strength(np.eye(2), -np.eye(2)), "positive definite"),
    "thermostat with a broken gain": (lambda: tw.systems.thermostat(np.nan, 1.0), "gain must be a finite number"),
    "thermostat without a threshold": (
        lambda: tw.systems.saturating_thermostat(0.0, 1.0, 25.0, 0.1),
        "threshold must be a number > 0",
    ),
    "loop of broken shapes": (
        lambda: tw.systems.feedback_loop(([[1.0]], [[1.0]], [[1.0]]), ([[0.0]], [[1.0]], [[1.0, 2.0]], [[0.0]])),
        r"matrix K must have shape \(1, 1\), got \(1, 2\)",
    ),
    "cart-pole of three gains": (lambda: tw.systems.cart_pole((1.0, 2.0, 3.0)), "gains must be four finite numbers"),
    "ring of three": (lambda: tw.systems.lorenz96(3), "sites must be a whole number from 4"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_a_sentence(name, as_installed):
    call, sentence = CASES[name]
    with pytest.raises((ValueError, TypeError), match=sentence) as refused:
        call()
    assert "\n" not in str(refused.value)
