"""The cart-pole against its Lagrangian, and the study of its control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw

CART, POLE, LENGTH, GRAVITY = 1.3, 0.2, 0.7, 9.1
BODY = {"cart": CART, "pole": POLE, "length": LENGTH, "gravity": GRAVITY}


def lagrangian(q, v):
    """A cart and a uniform rod of length 2 LENGTH on a hinge, whose moment of inertia about it is 4/3 m l^2."""
    (_, angle), (velocity, turning) = q, v
    kinetic = (CART + POLE) * velocity**2 / 2 + POLE * LENGTH * velocity * turning * jnp.cos(angle)
    return kinetic + 2 / 3 * POLE * LENGTH**2 * turning**2 - POLE * GRAVITY * LENGTH * jnp.cos(angle)


@pytest.mark.parametrize("seed", range(3))
def test_the_equations_of_motion_are_those_of_the_lagrangian(seed):
    gains = np.array([1.0, -2.0, 25.0, 6.0])
    process = tw.systems.cart_pole(gains, 1e-4, **BODY)
    x, angle, velocity, turning = np.random.default_rng(seed).uniform(-1, 1, 4)
    state = process.init(position=x, velocity=velocity, angle=angle, angular_velocity=turning)
    after = tw.simulate(process, state, 1).state
    q, v = jnp.array([x, angle]), jnp.array([velocity, turning])
    force = gains @ np.array([x, velocity, angle, turning])
    inertia = jax.hessian(lagrangian, argnums=1)(q, v)
    coupled = jax.jacfwd(jax.grad(lagrangian, argnums=1), argnums=0)(q, v) @ v
    bent = jnp.linalg.solve(inertia, jnp.array([force, 0.0]) + jax.grad(lagrangian)(q, v) - coupled)
    gained = [
        (float(after[part]) - was) / 1e-4 for part, was in (("velocity", velocity), ("angular_velocity", turning))
    ]
    np.testing.assert_allclose(gained, bent, atol=0.02, rtol=1e-3)  # an average over 0.1 ms


def test_uncontrolled_it_falls_at_the_stated_rate():
    process = tw.systems.cart_pole((0.0,) * 4, 0.01, **BODY)
    rate = np.sqrt(GRAVITY / (LENGTH * (4 / 3 - POLE / (CART + POLE))))
    tilted = process.init(position=0, velocity=0, angle=1e-9, angular_velocity=1e-9 * rate)
    after = tw.simulate(process, tilted, 200).state
    assert float(after["angle"]) == pytest.approx(1e-9 * np.exp(2 * rate), rel=1e-6)


@pytest.mark.slow
def test_the_study():
    from thalweg.studies import cart_pole

    found = {claim.id: claim for claim in cart_pole.run().claims}
    assert found["S28"].verdict == "fails" and found["S29"].verdict == "holds"
    assert found["S30"].verdict == "holds" and found["S31"].verdict == "holds in kind"
