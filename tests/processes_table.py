"""The one table of all processes, with a state that each can start from. The laws run over it."""

import jax
import jax.numpy as jnp
import optax

import thalweg as tw
from thalweg import noise, processes, systems


def _network():
    data = systems.digits(keep=(1, 7))
    model = systems.perceptron((64, 5, 2), activation="tanh", loss="xent")
    return model, (jnp.asarray(data.images[:40]), jnp.asarray(data.one_hot()[:40])), model.init(3)


def _regression(params, datum):
    x, y = datum
    return (x @ params["w"] + params["b"] - y) ** 2 / 2


def _regression_data():
    x = jax.random.normal(jax.random.key(5), (12, 3))
    return x, x @ jnp.array([1.0, -2.0, 0.5]) + 0.3


REGRESSION_START = {"w": jnp.zeros(3), "b": jnp.zeros(())}


def _coupled(state, w):
    """Everything at once: dict state, a counter, a node under jit in a scan, and laws in a dict."""

    def body(x, kick):
        return jax.jit(lambda x: x - 0.1 * tw.node(jnp.sin(x), "pull") + 0.01 * kick)(x), None

    x, _ = jax.lax.scan(body, state["x"], w["kicks"])
    return {"x": x, "n": state["n"] + w["coin"]}


def _blackjax_walk():
    import blackjax

    walk = blackjax.additive_step_random_walk(lambda x: -0.5 * x**2, blackjax.mcmc.random_walk.normal(jnp.ones(1)))
    return processes.kernel(walk.step, walk.init, info=True), walk.init(jnp.array(0.5))


def table():
    """name -> (process, state)."""
    model, images, start = _network()
    adam = processes.sgd(model.loss, images, optax.adam(1e-2), batch_size=4, order="subset")
    plain = processes.sgd(model.loss, images, 0.1, batch_size=3, order="shuffle")
    linear = processes.sgd(_regression, _regression_data(), 0.05, weights=jnp.arange(12.0) % 3)
    momentum = processes.sgd(_regression, _regression_data(), optax.sgd(0.05, momentum=0.9), batch_size=5)
    descent = processes.gradient_descent(lambda p: jnp.sum(p**4), 0.01)
    phase = processes.underdamped_langevin(lambda x: jnp.sum(x**2) / 2, 1.0, 0.5, 0.1, shape=(2,))
    lorenz = systems.lorenz(28.0)
    thermostat = systems.thermostat(0.1, 25.0, noise=0.3)
    forced = systems.thermostat(0.1, 25.0, forcing=2.0, period=7.0)
    saturating = systems.saturating_thermostat(1.0, 1.0, 29.5, 0.02)
    loop = systems.feedback_loop(
        ([[1.1, 0.2], [0.0, 0.5]], [[1.0], [0.3]], [[1.0, 0.0]]), ([[0.1]], [[0.5]], [[-0.7]], [[-0.4]])
    )
    pole = systems.cart_pole()
    euler = processes.ode(lambda s: -(s**3), 0.05, method="euler")
    chain = processes.finite([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    cycle = processes.finite([1, 2, 0])
    walk, walker = _blackjax_walk()
    coupled = tw.Process(_coupled, {"kicks": noise.Normal(3), "coin": noise.Choice(4)})
    return {
        "pit": (systems.pit(0.02), 1.0074),
        "linear noise": (systems.linear_noise(0.5), 1.5),
        "coin": (systems.coin(0.1), 0.0),
        "double well": (systems.double_well(0.3, 0.01), -1.0),
        "phase point": (phase, phase.init(jnp.array([1.0, -1.0]))),
        "regression by weighted sgd": (linear, linear.init(REGRESSION_START)),
        "regression with momentum": (momentum, momentum.init(REGRESSION_START)),
        "digits by sgd": (plain, plain.init(start)),
        "digits by adam": (adam, adam.init(start)),
        "gradient descent": (descent, descent.init(jnp.array([1.0, -0.5]))),
        "lorenz": (lorenz, lorenz.init(a=1, b=1, c=1)),
        "lorenz 96": (systems.lorenz96(8), systems.lorenz96(8).init()),
        "thermostat": (thermostat, thermostat.init(room=35.0, thermostat=10.0)),
        "forced thermostat": (forced, forced.init(room=35.0, thermostat=10.0)),
        "saturating thermostat": (saturating, saturating.init(room=30.0, thermostat=0.3)),
        "feedback loop": (loop, loop.init(plant=[1.0, -1.0], controller=[0.5])),
        "cart-pole": (pole, pole.init(position=0.1, velocity=0.0, angle=0.05, angular_velocity=0.0)),
        "euler": (euler, jnp.array([1.0, 2.0])),
        "markov chain": (chain, chain.init(0)),
        "cycle": (cycle, cycle.init(1)),
        "blackjax random walk": (walk, walker),
        "coupled": (coupled, {"x": jnp.array(0.3), "n": 0}),
        "two laws": (tw.Process(lambda x, w: 0.5 * x + w[0] * w[1], (noise.Normal(), noise.Choice(3))), 1.0),
        "uniform noise": (tw.Process(lambda x, w: 0.9 * x + jnp.sum(w), noise.Uniform(2)), 0.0),
    }
