"""The one table of public functions with arguments that they accept, and ways to spoil each argument.

A new public function is one more entry: `Asked(function, {its good arguments}, {argument: bad values})`. The kinds of
bad values below serve most arguments. A value may stand in `Bad(value, word)` where the sentence must name something
else than the argument, such as `step` for a process whose step is at fault.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import thalweg as tw
from thalweg import noise, processes, stats, systems

NAN, INF = float("nan"), float("inf")


class Bad(NamedTuple):
    """A bad value, and the word by which the sentence must call it (by default the name of the argument)."""

    value: Any
    word: str


class Asked(NamedTuple):
    """A public function, arguments that it accepts, and bad values for each."""

    function: Callable[..., Any]
    good: dict[str, Any]
    bad: dict[str, list[Any]]


# Kinds of bad values.

NOT_WHOLE: list[Any] = [1.5, 2.0, "3", True, [3], {}, NAN, object()]


def whole(least: int = 0) -> list[Any]:
    return [*NOT_WHOLE, least - 1, -(2**40), 2**70]


def optional_whole(least: int = 1) -> list[Any]:
    return [*NOT_WHOLE, least - 1, -(2**40)]


NOT_A_NUMBER: list[Any] = ["fast", None, object(), {}, [], lambda x: x, NAN, INF, -INF, 1j]
POSITIVE: list[Any] = [*NOT_A_NUMBER, 0, -0.1]
NOT_NEGATIVE: list[Any] = [*NOT_A_NUMBER, -1e-9, -3]
FUNCTION: list[Any] = ["f", 3, [], {}, object()]
REQUIRED_FUNCTION: list[Any] = [*FUNCTION, None]
CHOICE: list[Any] = ["banana", "", 3, ["a"], {}, object()]
KEY: list[Any] = ["seed", 1.5, True, np.zeros(3), [1, 2], object(), np.zeros((2, 2), np.uint32), 2**70]
NO_KEY: list[Any] = [None]
STATE: list[Any] = ["left", NAN, INF, None, [], {}, object(), {"x": "left"}, [1.0, NAN], lambda s: s, np.array(["a"])]
PROCESS: list[Any] = [None, 3, "pit", lambda s, w: s, systems.pit]
SHAPE: list[Any] = [-1, (0,), (2, -1), "ab", 1.5, (1.5,), None, True]
SERIES: list[Any] = [
    *["text", None, object(), {}, 3.0, [], [1.0, 2.0], np.zeros((2, 3, 4))],
    *[np.full(50, NAN), np.append(np.arange(50.0), INF), np.array(["a"] * 50), np.ones(50) * 1j],
]
PATH: list[Any] = [3, None, object(), "/no/such/place/result.nc", "", "a\0b"]
FOLDS: list[Any] = [3, [1], {"f": 3}, {"f": lambda c: c}]


# What users may write by mistake.


def noisy(x: Any, w: Any) -> Any:
    return 0.5 * x + w


def noiseless(x: Any, w: Any) -> Any:
    return x / 2


def bad_steps() -> list[Bad]:
    """Processes whose step gives back something else than the next state."""
    returned = {
        "text": lambda x, w: "left",
        "nothing": lambda x, w: None,
        "another shape": lambda x, w: jnp.zeros(3) + x,
        "another structure": lambda x, w: {"x": x},
        "a pair": lambda x, w: (x, w),
        "an object": lambda x, w: object(),
        "a function": lambda x, w: noisy,
    }
    return [Bad(tw.Process(step, noise.Normal()), "step") for step in returned.values()]


def bad_folds() -> list[Any]:
    keep = lambda c, s, w, n: c  # noqa: E731
    return [
        *FOLDS,
        Bad({"f": tw.Fold(lambda s: 0.0, lambda c, s, w, n: jnp.zeros(2))}, "'f'"),
        Bad({"f": tw.Fold(lambda s: 0.0, lambda c, s, w, n: (c, c))}, "'f'"),
        Bad({"f": tw.Fold(lambda s: "text", keep)}, "'f'"),
        Bad({"f": tw.Fold(lambda s: 0.0, lambda c, s, w, n: "text")}, "'f'"),
        Bad({"f": SimpleNamespace(init=lambda s: 0.0, update=lambda c, s: c)}, "'f'"),
        Bad({"f": SimpleNamespace(init=3, update=keep)}, "'f'"),
    ]


RECORD: list[Any] = [*FUNCTION, lambda s, w, n: "text", lambda s, w, n: object(), lambda s: s, lambda: 0]
UNTIL: list[Any] = [*FUNCTION, lambda s: jnp.ones(2, bool), lambda s: "text", lambda s: None, lambda s, w: True]
ON_CHUNK: list[Any] = FUNCTION
OPTIONS: list[Any] = [3, "fast", {"chunk": 3}, tw.Options]
RESUME: list[Any] = [3, "checkpoint.nc", {}, True]  # True needs a folder

GOOD_SERIES = np.sin(np.arange(200.0) ** 2)


def _run(steps: int = 6) -> Any:
    return tw.simulate(tw.Process(noisy, noise.Normal()), 1.0, steps, key=0)


def _runs() -> Any:
    return tw.ensemble(tw.Process(noisy, noise.Normal()), jnp.ones(3), 6, key=0)


def _two(x: Any, w: Any) -> Any:
    return {"a": 0.9 * tw.node(x["a"], "a"), "b": x["b"] + 0.1 * x["a"], "n": x["n"] + 1}


TWO = tw.Process(_two)
TWO_START = {"a": jnp.ones(3), "b": jnp.zeros(3), "n": 0}


def _loss(params: Any, datum: Any) -> Any:
    return jnp.sum((params - datum) ** 2)


def core() -> dict[str, Asked]:
    process = tw.Process(noisy, noise.Normal())
    watching = {
        "record": RECORD,
        "folds": bad_folds(),
        "on_chunk": ON_CHUNK,
        "options": OPTIONS,
        "every": whole(1),
        "until": UNTIL,
        "resume": RESUME,
    }
    selectors = [
        *["nowhere", 3, 1.5, (), ("a", 3), np.ones(7, bool)],
        *[lambda s: s["a"] * 2, lambda s: s["z"], lambda s: [], lambda: 0],
    ]
    window = [
        *[3, "always", np.ones(3), np.ones((2, 2), bool), [0, 1]],
        *[lambda s, w: "text", lambda s, w: np.ones(2, bool), lambda s: True],
    ]
    asked = {
        "Process": Asked(
            tw.Process,
            {"step": noisy},
            {
                "step": REQUIRED_FUNCTION,
                "noise": [3, "normal", object(), {"a": 3}, (noise.Normal(), "b"), noise.Normal],
                "init": FUNCTION,
                "dt": [value for value in POSITIVE if value is not None],
                "coordinates": FUNCTION,
                "names": FUNCTION,
                "transition": FUNCTION,
                "contributions": FUNCTION,
                "layers": FUNCTION,
                "smooth": ["no", 3, None],
            },
        ),
        "simulate": Asked(
            tw.simulate,
            {"process": process, "state": 1.0, "steps": 3, "key": 0},
            {
                "process": PROCESS + bad_steps(),
                "state": STATE,
                "steps": [*whole(), None],
                "key": KEY + NO_KEY + [jax.random.split(jax.random.key(0), 3)],
                "start": [*whole(), [0, 1]],
                **watching,
            },
        ),
        "ensemble": Asked(
            tw.ensemble,
            {"process": process, "states": jnp.ones(4), "steps": 3, "key": 0},
            {
                "process": PROCESS + bad_steps(),
                "states": [*STATE, 3.0, np.zeros((0,)), {"a": np.zeros(2), "b": np.zeros(3)}],
                "steps": [*whole(), None],
                "key": KEY + NO_KEY + [jax.random.split(jax.random.key(0), 3)],
                "start": [1.5, -1, "now", [0, 1], None, NAN, {}, True],
                "over": [*CHOICE, lambda p: p.nothing, lambda p: p.step],
                "noise": CHOICE,
                **watching,
            },
        ),
        "fork": Asked(
            tw.fork,
            {"run": _run(), "at": 2},
            {
                "run": [None, 3, "run", process],
                "at": [*whole(), 7, None],
                "process": [value for value in PROCESS if value is not None] + bad_steps(),
                "state": ["left", NAN, {}, jnp.ones(3), lambda s: "left", lambda s: s / 0, lambda: 3, object()],
                "members": [[0], 0, "all", 1.5],
                "steps": [value for value in whole() if value is not None],
                "every": whole(1),
                "record": RECORD,
                "folds": bad_folds(),
                "options": OPTIONS,
            },
        ),
        "fork of an ensemble": Asked(
            tw.fork,
            {"run": _runs(), "at": 2},
            {"members": [3, [0, 7], -4, "all", 1.5, [], np.zeros(3, bool), np.ones(2, bool), [0.5], object()]},
        ),
        "clamp": Asked(
            lambda **given: tw.simulate(tw.clamp(**given), TWO_START, 3),
            {"process": TWO, "where": "a"},
            {"process": PROCESS, "where": [*selectors, None], "window": window},
        ),
        "node": Asked(
            tw.node,
            {"value": 1.0, "name": "a"},
            {"value": ["text", object(), {"a": "text"}], "name": [3, "", None, ["a"], object()]},
        ),
        "response": Asked(
            lambda **given: tw.response(**given).jvp(),
            {"process": TWO, "state": TWO_START, "steps": 3},
            {
                "process": [*PROCESS, Bad(tw.Process(lambda s, w: s["a"]), "step")],
                "state": [*STATE, 1j, {"a": 1j * jnp.ones(3), "b": jnp.zeros(3), "n": 0}],
                "steps": [*whole(), None],
                "key": KEY,
                "start": [1.5, -1, "now", None, NAN],
                "wrt": [*selectors, "a", lambda s: s["n"], lambda p: p.noise],
                "read": [*FUNCTION, lambda s: s["n"], lambda s: "text", lambda s: None, lambda: 0.0],
                "clamp": selectors,
                "at": CHOICE,
                "jumps": CHOICE,
            },
        ),
        "response with a window": Asked(
            lambda **given: tw.response(**given).jvp(),
            {"process": TWO, "state": TWO_START, "steps": 3, "clamp": "a"},
            {"window": window},
        ),
    }
    linear = tw.response(TWO, TWO_START, 3, wrt=lambda s: s["a"], read=lambda s: s["b"])
    every = tw.response(TWO, TWO_START, 3, wrt=lambda s: s["a"], read=lambda s: s["b"], at="every")
    direction = ["up", np.ones(2), np.ones((3, 3)), {"a": 1.0, "b": 2.0}, [], NAN, np.array([1, NAN, 1]), object(), 1j]
    none_done = tw.response(TWO, TWO_START, 0, at="every")
    return {
        **asked,
        "jvp": Asked(linear.jvp, {"v": 1.0}, {"v": direction}),
        "vjp": Asked(linear.vjp, {"c": 1.0}, {"c": direction}),
        "vjp at every step": Asked(every.vjp, {"c": 1.0}, {"c": [np.ones((2, 3)), np.ones(3), "up", NAN, object()]}),
        "vjp of no step": Asked(lambda steps: none_done.vjp(), {}, {"steps": [0]}),
        "sweep": Asked(
            tw.sweep,
            {"f": lambda a: a, "a": [1, 2]},
            {
                "f": [*REQUIRED_FUNCTION, lambda a: np.ones(a), lambda a: {str(a): a}, lambda b: b],
                "a": [[], 3, None],
                "options": OPTIONS,
                "resume": [3, "yes", True],
            },
        ),
        "stack": Asked(
            tw.stack,
            {"items": [1.0, 2.0]},
            {"items": [[], 3, None, [1.0, {"a": 1.0}], [jnp.ones(2), jnp.ones(3)], ["a", "b"]]},
        ),
        "Options": Asked(
            tw.Options,
            {},
            {
                "chunk": optional_whole(),
                "store": optional_whole(),
                "checkpoint": FUNCTION[1:],  # a text is a folder
                "checkpoint_every": NOT_NEGATIVE,
                "memory": [value for value in POSITIVE if value is not None],
                "record_to": ["record", "record.csv", 3, object()],
                "progress": ["yes", 3],
                "shard": ["yes", 3],
                "vectorise": ["yes", 3],
            },
        ),
        "Fold": Asked(
            tw.Fold,
            {"init": lambda s: s, "update": lambda c, s, w, n: c},
            {
                "init": [*REQUIRED_FUNCTION, lambda: 0.0],
                "update": [*REQUIRED_FUNCTION, lambda c, s: c],
                "result": [*REQUIRED_FUNCTION, lambda: 0.0],
                "over": CHOICE,
            },
        ),
        "save": Asked(
            tw.save,
            {"result": tw.Estimate(1.0, 0.1), "path": "unused.nc"},
            {"result": [3, None, "a"], "path": PATH[:3]},
        ),
        "load": Asked(tw.load, {"path": "unused.nc"}, {"path": [*PATH, __file__, str(Path(__file__).parent)]}),
    }


def laws() -> dict[str, Asked]:
    return {
        "Choice": Asked(
            noise.Choice,
            {"n": 4, "shape": (2,)},
            {
                "n": [*whole(1), None],
                "p": [
                    *["fair", [1.0], [0.5] * 4, [-1.0, 1, 1, 0], [NAN] * 4, [[0.25] * 4], object(), {}],
                    *[[0.25, 0.25, 0.5, "x"], [INF, 0, 0, 0]],
                ],
                "shape": SHAPE,
                "replace": ["no", 3, None],
            },
        ),
        "Choice without replacement": Asked(noise.Choice, {"n": 4, "replace": False}, {"shape": [(5,), (2, 3)]}),
        "Choice of few": Asked(noise.Choice, {"n": 4, "replace": False, "shape": (3,)}, {"p": [[0.5, 0.5, 0.0, 0.0]]}),
        "Shuffle": Asked(
            noise.Shuffle, {"n": 4, "batch": 2}, {"n": [*whole(1), None], "batch": [*optional_whole(), 5]}
        ),
        "Normal": Asked(noise.Normal, {"shape": 2}, {"shape": SHAPE, "order": optional_whole()}),
        "Uniform": Asked(noise.Uniform, {}, {"shape": SHAPE}),
        "expectation": Asked(
            noise.Choice(3).expectation, {"f": lambda w: w}, {"f": [*REQUIRED_FUNCTION, lambda w: "text"]}
        ),
        "too many outcomes": Asked(
            lambda law: law.atoms(),
            {},
            {
                "law": [
                    Bad(noise.Choice(10, shape=9), "outcomes"),
                    Bad(noise.Normal(21), "nodes"),
                    Bad(noise.Uniform(), "Uniform"),
                    Bad(noise.Key(), "Key"),
                    Bad(noise.Shuffle(3), "Shuffle"),
                    Bad(tw.Process(noisy, (noise.Choice(2000), noise.Choice(2000))).noise, "outcomes"),
                ]
            },
        ),
    }


def ways() -> dict[str, Asked]:
    """`tw.processes`. What a step is made of is looked at when it is first run."""
    data = np.arange(6.0)

    def run(make: Callable[..., Any], start: Any) -> Callable[..., Any]:
        def asked(**given: Any) -> Any:
            process = make(**given)
            return tw.simulate(process, process.init(start), 2, key=0)

        return asked

    rate = [*NOT_NEGATIVE, optax.sgd]
    loss = [*REQUIRED_FUNCTION, lambda p, x: jnp.ones(2) * p, lambda p, x: "text", lambda p: p, lambda p, x: None]
    potential = [*REQUIRED_FUNCTION, lambda x: jnp.ones(2) * x, lambda x: "text", lambda: 0.0, lambda x: None]
    field = [*REQUIRED_FUNCTION, lambda s: {"x": s}, lambda s: jnp.ones(2) * s, lambda s: "text", lambda: 0.0]
    return {
        "sgd": Asked(
            run(processes.sgd, 0.5),
            {"loss": _loss, "data": data, "optimizer": 0.1, "batch_size": 2},
            {
                "loss": loss,
                "data": ["text", None, 3.0, [], {}, np.zeros(0), {"x": np.ones(2), "y": np.ones(3)}, object()],
                "optimizer": rate,
                "batch_size": [*whole(1), None],
                "order": CHOICE,
                "weights": ["text", np.ones(5), -np.ones(6), np.zeros(6), np.full(6, NAN), 3.0, object(), {}],
            },
        ),
        "sgd in epochs": Asked(
            run(processes.sgd, 0.5),
            {"loss": _loss, "data": data, "optimizer": 0.1, "order": "shuffle"},
            {"batch_size": [7, 100]},
        ),
        "gradient_descent": Asked(
            run(processes.gradient_descent, 0.5),
            {"loss": lambda p: p**2, "optimizer": 0.1},
            {"loss": [*REQUIRED_FUNCTION, lambda p: jnp.ones(2) * p, lambda p: "text"], "optimizer": rate},
        ),
        "langevin": Asked(
            run(processes.langevin, 0.5),
            {"potential": lambda x: x**2, "temperature": 1.0, "dt": 0.1},
            {"potential": potential, "temperature": NOT_NEGATIVE, "dt": POSITIVE, "shape": SHAPE},
        ),
        "underdamped_langevin": Asked(
            run(processes.underdamped_langevin, 0.5),
            {"potential": lambda x: x**2, "temperature": 1.0, "friction": 1.0, "dt": 0.1},
            {
                "potential": potential,
                "temperature": NOT_NEGATIVE,
                "friction": NOT_NEGATIVE,
                "dt": POSITIVE,
                "shape": SHAPE,
                "mass": POSITIVE,
            },
        ),
        "ode": Asked(
            run(processes.ode, 0.5),
            {"field": lambda s: -s, "dt": 0.1},
            {"field": field, "dt": POSITIVE, "method": CHOICE, "init": FUNCTION},
        ),
        "finite": Asked(
            processes.finite,
            {"table": [1, 0]},
            {
                "table": [
                    *["text", None, 3, [], {}, object(), [0, 2], [-1, 0], [0.5, 0.5], [[0.5, 0.6], [0.5, 0.5]]],
                    *[[[1.0, 0.0]], [[-0.5, 1.5], [0, 1]], [[NAN, 1], [0, 1]], np.zeros((2, 2, 2)), [[1j, 0], [0, 1]]],
                    *[[["a", "b"], ["c", "d"]], [[1.0], [0.5, 0.5]]],
                ]
            },
        ),
        "a finite state": Asked(processes.finite([1, 0]).init, {"state": 0}, {"state": [2, -1, 1.5, "a", None, True]}),
        "kernel": Asked(
            run(processes.kernel, 0.5),
            {"kernel": lambda key, x: x},
            {
                "kernel": [*REQUIRED_FUNCTION, lambda key: 0.0, lambda key, x: (x, "news"), lambda key, x: "text"],
                "init": FUNCTION,
                "info": ["yes", 3, Bad(True, "kernel")],
                "smooth": ["yes", 3],
            },
        ),
    }


def named() -> dict[str, Asked]:
    """`tw.systems`."""
    rate = {"learning_rate": 0.1}
    missing = ["/no/such/folder", 3, object(), Path(__file__), Path(__file__).parent]
    digits = systems.digits()
    return {
        "pit": Asked(systems.pit, rate, {"learning_rate": NOT_NEGATIVE}),
        "linear_noise": Asked(systems.linear_noise, rate, {"learning_rate": NOT_NEGATIVE, "spread": NOT_A_NUMBER}),
        "coin": Asked(systems.coin, rate, {"learning_rate": NOT_NEGATIVE}),
        "double_well": Asked(
            systems.double_well, {"temperature": 0.1, "dt": 0.01}, {"temperature": NOT_NEGATIVE, "dt": POSITIVE}
        ),
        "lorenz": Asked(
            systems.lorenz,
            {"rho": 28.0},
            {"rho": NOT_A_NUMBER, "sigma": NOT_A_NUMBER, "beta": NOT_A_NUMBER, "dt": POSITIVE, "method": CHOICE},
        ),
        "a lorenz state": Asked(systems.lorenz(28.0).init, {"a": 1, "b": 1, "c": 1}, {"a": NOT_A_NUMBER}),
        "a pit state": Asked(systems.pit(0.1).init, {"W": 1.0}, {"W": NOT_A_NUMBER}),
        "perceptron": Asked(
            systems.perceptron,
            {"sizes": (2, 3)},
            {
                "sizes": [(), (3,), (2, 0), (2, 1.5), 3, "ab", None, (2, -1)],
                "activation": CHOICE,
                "loss": CHOICE,
                "bias": CHOICE,
            },
        ),
        "softmax_classifier": Asked(
            systems.softmax_classifier, {"pixels": 4, "classes": 2}, {"pixels": whole(1)[:-1], "classes": whole(1)[:-1]}
        ),
        "perceptron parameters": Asked(systems.perceptron((2, 3)).init, {"key": 0}, {"key": KEY + NO_KEY}),
        "digits": Asked(
            systems.digits, {}, {"path": missing, "keep": [(), (11,), 3, "ab", ("1",)], "frame": [9, "a", None, 1.5]}
        ),
        "split digits": Asked(
            digits.split, {"fraction": 0.5}, {"fraction": [*NOT_A_NUMBER, 0, 1, 2.0], "seed": [-1, 1.5, "a", True]}
        ),
    }


def errors() -> dict[str, Asked]:
    """`tw.stats`."""
    of_series = (
        *(stats.analyse, stats.mean, stats.autocorrelation, stats.autocorrelation_time, stats.blocking),
        *(stats.effective_sample_size, stats.r_hat, stats.heavy_tails),
    )
    weights = ["text", np.ones(3), -np.ones(200), np.zeros(200), np.full(200, NAN), object(), 1j * np.ones(200)]
    return {
        **{f"stats.{f.__name__}": Asked(f, {"series": GOOD_SERIES}, {"series": SERIES}) for f in of_series},
        "weighted analyse": Asked(stats.analyse, {"series": GOOD_SERIES}, {"weights": weights}),
        "weighted mean": Asked(stats.mean, {"series": GOOD_SERIES}, {"weights": weights}),
        "lags": Asked(stats.autocorrelation, {"series": GOOD_SERIES}, {"lags": [*NOT_WHOLE, -1, None]}),
        "bootstrap": Asked(
            stats.bootstrap,
            {"series": GOOD_SERIES, "key": 0, "resamples": 100},
            {
                "series": SERIES,
                "statistic": [*REQUIRED_FUNCTION, lambda x: "text"],
                "key": ["seed", 1.5, True, None, object(), -1],
                "resamples": [*NOT_WHOLE, 0, None],
                "block_size": [*NOT_WHOLE, 0, 201],
                "level": [0, 1, -1, 2, NAN, "a", None],
            },
        ),
        "permutation_test": Asked(
            stats.permutation_test,
            {"x": GOOD_SERIES[:20], "y": GOOD_SERIES[20:40], "key": 0, "permutations": 99},
            {
                "x": ["text", None, [], [NAN] * 20, np.zeros((2, 2, 2)), object(), {}],
                "y": ["text", None, [], [NAN] * 20, np.zeros((2, 2, 2)), object(), {}],
                "statistic": [*CHOICE, lambda x, y: "text", lambda x, y: NAN],
                "key": ["seed", 1.5, True, None, object(), -1],
                "permutations": [*NOT_WHOLE, 0, None],
                "alternative": CHOICE,
            },
        ),
    }


def rare() -> dict[str, Asked]:
    """Rare events, gradient noise and stability, of `tw.flow`."""
    flow = tw.flow
    walk = tw.Process(lambda x, w: 0.9 * x + 0.1 * (2 * w - 1), noise.Choice(2))
    ways_out = [tw.Process(noisy, noise.Uniform()), *PROCESS]
    arrays = ["text", object(), {}, [], NAN, INF, lambda x: x, [NAN, 1.0], np.array(["a"])]
    matrices = [*arrays, np.zeros((0, 2)), np.ones((2, 2, 2, 2)), 3.0]
    learn: dict[str, Any] = {"loss": _loss, "params": jnp.zeros(2), "data": jnp.ones((3, 2))}
    losses: list[Any] = [*FUNCTION, lambda p: 0.0]
    positive = [*NOT_A_NUMBER, 0, -0.1]
    return {
        "modified_equation": Asked(
            flow.modified_equation,
            {"process": walk},
            {
                "process": [Bad(ways_out[0], "Uniform"), *PROCESS],
                "order": [*NOT_WHOLE, 0, 3, None],
                "diffusion_order": [*NOT_WHOLE, 0, 3],
                "convention": [*CHOICE, None],
                "state": STATE,
            },
        ),
        "quasi_potential": Asked(
            flow.quasi_potential,
            {"process": walk, "start": 0.0, "target": 0.5},
            {
                "process": PROCESS,
                "start": [*STATE, 0.5],
                "target": [*STATE, 0.0, np.ones(2)],
                "nodes": [*whole(8), None],
                "iterations": [*whole(1), None],
                "tol": positive,
            },
        ),
        "splitting": Asked(
            flow.splitting,
            {"process": walk, "start": 0.0, "score": lambda x: x, "level": 0.3, "steps": 5, "key": 0, "paths": 9}
            | {"kill": 2, "repeats": 2},
            {
                "process": PROCESS,
                "start": [*STATE, 0.4],
                "score": [*REQUIRED_FUNCTION, lambda x: "text", lambda x: x * jnp.ones(2), lambda: 0],
                "level": [*NOT_A_NUMBER, -1.0],
                "steps": [*whole(1), None],
                "key": KEY + NO_KEY,
                "paths": [*whole(2), None],
                "kill": [*whole(1), None, 9],
                "repeats": [*whole(2), None],
                "most_levels": [*whole(1), None],
                "options": OPTIONS,
                "resume": [3, "yes", True],
            },
        ),
        "gradient_noise": Asked(
            flow.gradient_noise,
            learn,
            {"loss": losses, "params": arrays, "data": [*arrays, 3.0, {"a": np.ones(2), "b": np.ones(3)}]}
            | {"hessian": [*matrices, np.eye(3)], "probes": [*whole(2), None], "key": KEY + NO_KEY},
        ),
        "gradients": Asked(flow.gradient_noise, {"gradients": np.ones((3, 2))}, {"gradients": matrices}),
        "mean_square_stability": Asked(
            flow.mean_square_stability,
            {"process": walk, "fixed_point": 0.0},
            {"process": PROCESS, "fixed_point": STATE, "tol": positive},
        ),
        "stability of factors": Asked(
            flow.mean_square_stability,
            {"learning_rate": 0.1, "factors": np.eye(3)},
            {"factors": matrices, "batch_size": [*whole(1), None], "order": [*CHOICE, "shuffle", None]}
            | {"momentum": [*NOT_A_NUMBER, 1, -0.1, 2.0], "learning_rate": [*NOT_A_NUMBER, -0.1]}
            | {"preconditioner": [*arrays, -np.ones(3), np.zeros(3), np.ones(2)]},
        ),
        "stable rate of a loss": Asked(
            flow.largest_stable_learning_rate,
            learn,
            {"loss": losses, "params": arrays, "data": [*arrays, 3.0], "outputs": losses, "tol": positive}
            | {"preconditioner": [*arrays, -np.ones(2), np.zeros(2), np.ones(3)]},
        ),
        "stable rate of factors": Asked(
            flow.largest_stable_learning_rate,
            {"factors": np.eye(3)},
            {"factors": matrices, "batch_size": [*whole(1), None], "order": [*CHOICE, "shuffle", None]}
            | {"momentum": [*NOT_A_NUMBER, 1, -0.1, 2.0]},
        ),
        "stable rate of hessians": Asked(
            flow.largest_stable_learning_rate, {"hessians": np.eye(2)[None]}, {"hessians": matrices}
        ),
    }


def densities() -> dict[str, Asked]:
    """Grids, operators, diffusions and Monte Carlo, of `tw.flow`."""
    flow = tw.flow
    walk = tw.Process(lambda x, w: 0.9 * x + 0.1 * (2 * w - 1), noise.Choice(2))
    grid = flow.Grid(-1.0, 1.0, 32)
    far, low = (lambda x: x > 0.5), (lambda x: x < -0.5)
    edges = ["left", None, object(), {}, [], NAN, INF, lambda x: x, [0.0, 0.0], [[0.0]], 1j]
    targets: list[Any] = [
        *REQUIRED_FUNCTION,
        *[lambda x: x > 99, lambda x: x > 0 and x < 1, lambda x: jnp.ones(2, bool), lambda x: "text", lambda: True],
    ]
    mass = [*edges, np.ones(3), -np.ones(32), np.full(32, NAN), np.zeros(32), 3.0]
    draws = lambda x, key: x + jax.random.normal(key)  # noqa: E731
    no_atoms = [Bad(tw.Process(noisy, noise.Uniform()), "Uniform"), Bad(tw.Process(draws, noise.Key()), "Key")]
    spaces = [None, 3, "grid", (0, 1, 8), object()]
    questions = {
        "transfer_operator": flow.transfer_operator(walk, grid),
        "fokker_planck": flow.fokker_planck(walk, grid, compare=False),
    }
    asked = {
        "Grid": Asked(
            flow.Grid,
            {"lower": 0.0, "upper": 1.0, "shape": 8},
            {"lower": [*edges, 2.0], "upper": [*edges, -1.0], "shape": [*NOT_WHOLE, 0, 3, -8, (8, 8), None, []]},
        ),
        "States": Asked(flow.States, {"array": np.arange(3)}, {"array": [*edges[:-2], 1j, 3, [1, 1], np.array(["a"])]}),
        "transfer_operator": Asked(
            flow.transfer_operator,
            {"process": walk, "space": grid},
            {
                "process": [*no_atoms, *PROCESS, Bad(tw.Process(lambda x, w: x / 0.0), "step")],
                "space": spaces,
                "progress": [None, 1, "yes"],
            },
        ),
        "monte_carlo": Asked(
            flow.monte_carlo,
            {"process": walk, "members": 10, "key": 0},
            {
                "process": PROCESS,
                "members": [*whole(2), None],
                "key": KEY + NO_KEY,
                "space": spaces[1:],
                "options": [3, "fast", {}, Bad(tw.Options(checkpoint="folder"), "checkpoint")],
            },
        ),
        "fokker_planck": Asked(
            flow.fokker_planck,
            {"process_or_coefficients": (lambda x: -x, lambda x: 1.0), "grid": grid},
            {
                "process_or_coefficients": [
                    *[None, 3, "ou", lambda x: x, (lambda x: x,), object()],
                    *[Bad((lambda x: -x, lambda x, value=value: value), "diffusion") for value in (-1.0, INF, NAN)],
                ],
                "grid": spaces,
                "convention": [*CHOICE, None],
                "order": [*NOT_WHOLE, 0, 2, None],
                "progress": [None, 1, "yes"],
            },
        ),
        "symmetrise": Asked(
            flow.symmetrise,
            {"generator": np.array([[-1.0, 1.0], [2.0, -2.0]])},
            {"generator": [None, "text", 3.0, object(), [], np.ones((2, 3)), np.eye(2), [[NAN, 1.0], [1.0, -1.0]]]},
        ),
        "monte carlo escape": Asked(
            flow.monte_carlo(walk, 10, key=0).escape_probability,
            {"start": 0.0, "target": far, "steps": 3},
            {"start": [*STATE, 0.6, 1j], "target": [*REQUIRED_FUNCTION], "steps": [*whole(), None]},
        ),
    }
    for name, made in questions.items():
        asked |= {
            f"{name} push": Asked(
                made.push, {"density": np.full(32, 0.5), "steps": 2}, {"density": mass, "steps": [*whole(), None]}
            ),
            f"{name} escape": Asked(
                made.escape_probability,
                {"start": 0.0, "target": far, "steps": 3},
                {"start": [*STATE, 0.6, 5.0, 1j, [0.0, 0.0]], "target": targets, "steps": [*whole(), None]},
            ),
            f"{name} time": Asked(
                made.mean_first_passage_time,
                {"start": 0.0, "target": far},
                {"start": [*STATE, 0.6, -5.0], "target": targets},
            ),
            f"{name} committor": Asked(made.committor, {"a": low, "b": far}, {"a": targets, "b": targets}),
            f"{name} relaxation": Asked(made.relaxation_times, {"k": 2}, {"k": [*whole(1), None, 30]}),
        }
    return asked


def steered() -> dict[str, Asked]:
    """`tw.steering`: what is carried along a run, and finite systems."""
    steering = tw.steering
    room = systems.thermostat(0.1, 25.0)
    state = room.init(room=35.0, thermostat=10.0)
    run: dict[str, Any] = {"process": room, "state": state, "steps": 3}
    states = [*STATE, 1j, {"room": 1j, "thermostat": 0.0}, {"room": NAN, "thermostat": 0.0}]
    not_picked = [lambda s: s["z"], lambda s: s["room"] * 2, lambda s: [], lambda: 0]
    agents = [*["nowhere", "", 3, object(), {}, [], ("room", 3), (None, "room"), np.ones(7, bool)], *not_picked]
    inside = [Bad("room", "source"), Bad(lambda s: s["room"], "source")]
    sources = [
        *["nowhere", "", 3, None, object(), {}, [], (), ("room",), ("room", "up"), ("room", NAN), ("room", 0.0)],
        *[("room", np.ones(3)), ("room", 1j), ("room", object()), ("room", 1.0, 2.0), np.ones(7, bool)],
        *["thermostat", lambda s: s["thermostat"], *not_picked],
    ]
    several = [*sources, lambda s: s, lambda p: p.noise]
    targets = [
        *["nowhere", 3, None, object(), {}, [], "thermostat", not_picked[0], not_picked[3], lambda s, w: s],
        *[lambda s: "text", lambda s: None, lambda s: [], lambda s: s["room"] > 3, lambda s: 1j * s["room"]],
    ]
    windows = [3, "always", np.ones(3), np.ones((2, 2), bool), [0, 1], object(), {}]
    asked_inside = [lambda s, w: "text", lambda s, w: np.ones(2, bool), lambda s: True]
    starts = [1.5, -1, "now", None, NAN, [0, 1]]
    keys = [*KEY, jax.random.split(jax.random.key(0), 3)]
    three = {"agent": "thermostat", "source": "room", "target": "room"}
    read = {"agent": [*agents, *inside], "source": several, "target": targets}
    loop: dict[str, Any] = {"process": room, "state": state, **three}
    of_loop = {"process": PROCESS, "state": states, "key": keys, **read}
    pair = lambda s: (s["room"], s["room"])  # noqa: E731
    number_keys = ["a", 1.5, -1, None, object(), True]
    table = np.array([[[0, 1], [1, 0]], [[1, 1], [0, 0]]])
    rows = np.full((2, 2, 2, 2), 0.25)
    cells = {(0, 0): (0, 0), (0, 1): (0, 0), (1, 0): (0, 0)}
    system = steering.FiniteSystem(table, {"a": 2, "b": 2})
    p = [
        *["a", None, 3, [], object(), {}, np.full(4, 0.25), np.full((2, 2), 0.3), np.full((2, 2), NAN)],
        *[np.full((2, 2), 0.25 + 0j), np.array([[-0.25, 0.5], [0.5, 0.25]]), {(0, 0): 0.5}, {(0, 5): 1.0}, {3: 1.0}],
        *[{(0, 0): "a"}, {(0, 0): NAN}, {(0, 0): [1.0]}],
    ]
    parts: list[Any] = [*["c", 3, ("a", "a"), ("a", "b", "c"), (), ("a", 3), object(), {}, 1.5], [["a"]]]
    even = {"p": np.full((2, 2), 0.25)}
    maps = [*whole(2), None]
    matrices = ["a", None, 3.0, np.zeros((2, 2)), np.eye(3), [[NAN, 1], [1, 1]], object(), {}, 1j * np.eye(2), []]
    return {
        "op": Asked(
            steering.op,
            {**run, **three},
            {**of_loop, "steps": [*whole(1), None], "start": starts, "window": [*windows, *asked_inside]}
            | {"method": CHOICE, "read": CHOICE, "mode": CHOICE},
        ),
        "op by forks": Asked(
            steering.op,
            {**run, **three, "method": "fork"},
            {**read, "state": states, "window": windows, "size": [*POSITIVE, True, [1.0, 2.0]]},
        ),
        "op in reverse": Asked(
            steering.op,
            {**run, **three, "mode": "reverse"},
            {"agent": agents, "source": sources, "target": [*targets, pair], "state": states},
        ),
        "op_volume": Asked(
            steering.op_volume,
            {**run, "agent": "thermostat", "source": lambda s: s["room"], "target": lambda s: s["room"]},
            {**of_loop, "source": sources, "steps": [*whole(), None], "start": starts, "window": windows}
            | {"directions": ["a", 3, NAN, np.ones(2), np.zeros(1), np.ones((1, 2)), object(), [], [[NAN]], [1j]]},
        ),
        "lyapunov_exponents": Asked(
            steering.lyapunov_exponents,
            {"process": room, "state": state, "steps": 100},
            {"process": PROCESS, "state": states, "steps": [*whole(), None, 10], "key": keys, "start": starts}
            | {"k": [*optional_whole(), 3], "clamp": [*agents, ("room", "thermostat")], "window": windows}
            | {"discard": [*optional_whole(0), 99, 2**70], "every": [*whole(1), None, 50]},
        ),
        "sensitivity": Asked(
            steering.sensitivity,
            {**loop, "frequencies": [0.1]},
            {**of_loop, "target": [*targets, pair], "frequencies": ["a", None, [NAN], INF, object(), {}, [1j]]},
        ),
        "bode_integral": Asked(steering.bode_integral, loop, {**of_loop, "target": [*targets, pair]}),
        "entropy": Asked(
            steering.entropy,
            {"p": [0.5, 0.5]},
            {"p": ["a", None, [], [0.5], [-0.5, 1.5], [NAN, 1], object(), {}, [1j, 1], [[0.5], [0.2, 0.3]], True]},
        ),
        "square_strength": Asked(steering.square_strength, {"gain": 0.3}, {"gain": [*POSITIVE, True, [0.3]]}),
        "gaussian_strength": Asked(
            steering.gaussian_strength,
            {"jacobian": np.eye(2) / 2, "covariance": np.eye(2)},
            {"jacobian": matrices, "covariance": [*matrices, -np.eye(2), [[1, 0.5], [0.4, 1]]]}
            | {"blocks": [3, "a", [3], [0, 2], [1.5, 0.5], [], object(), {}, [1, 1, 1], [-1, 3], NAN]},
        ),
        "FiniteSystem": Asked(
            steering.FiniteSystem,
            {"table": table, "parts": {"a": 2, "b": 2}},
            {
                "table": [
                    *["a", None, 3, [], object(), {}, np.ones((2, 2)), table + 1, table - 1, table * 1.0, cells],
                    *[Bad(2 * rows, "table"), -rows, np.full(rows.shape, NAN), rows * 1j, cells | {(1, 1): (0, 5)}],
                    *[cells | {(1, 1): chances} for chances in ({(0, 0): 0.5}, {(0, 0): "a"})],
                ],
                "parts": [
                    *["a", None, 3, [], {}, object(), [2, 2], *[{"a": 2, "b": k} for k in (3, 0, -1, 2.5, None, "")]],
                    *[{"a": 2}, {"a": 2, "b": 10**9}, {"a": 2, "b": ["x", "x"]}, {"a": 2, "b": [["x"], ["y"]]}],
                ],
            },
        ),
        "strength": Asked(system.optimizing_strength, even, {"p": p, "parts": parts}),
        "adjusted strength": Asked(system.adjusted_optimizing_strength, even, {"p": p, "parts": parts}),
        "total correlation": Asked(system.total_correlation, even, {"p": p, "parts": parts}),
        "beside_null": Asked(
            system.beside_null,
            even | {"maps": 5},
            {"p": p, "measure": CHOICE, "parts": parts, "maps": maps, "key": number_keys},
        ),
        "table_of_measures": Asked(
            system.table_of_measures, even | {"maps": 5}, {"p": p, "maps": maps, "key": number_keys}
        ),
        "sampled_strength": Asked(
            steering.sampled_strength,
            {"step": lambda s: s, "samples": np.stack([np.arange(100) % 3] * 2, axis=1)},
            {
                "step": [*REQUIRED_FUNCTION, lambda: 0, lambda s: "a", lambda s: s[:3], lambda s: s * 1.5],
                "samples": [
                    "a",
                    None,
                    3,
                    [],
                    object(),
                    {},
                    np.ones((100, 2)),
                    np.ones((10, 2), int),
                    np.ones(100, int),
                ],
                "shuffles": [*whole(1), None],
                "key": number_keys,
            },
        ),
    }


def steered_systems() -> dict[str, Asked]:
    """The named systems of the steering room."""
    plant, controller = ([[1.3]], [[1.0]], [[1.0]]), ([[0.0]], [[1.0]], [[-0.8]], [[0.0]])
    matrices: list[Any] = ["a", None, 3, [], (1,), ([[1.0]], [[1.0]]), object(), {}]
    first = [[[NAN]], [["a"]], [[1j]], np.ones((1, 2)), 3.0]
    parts = [*NOT_A_NUMBER, [1.0, 2.0], [NAN]]
    of_room = {"room": NOT_A_NUMBER, "thermostat": NOT_A_NUMBER}
    at_rest = {"position": 0.0, "velocity": 0.0, "angle": 0.1, "angular_velocity": 0.0}
    return {
        "thermostat": Asked(
            systems.thermostat,
            {"gain": 0.1, "setpoint": 1.0},
            {"gain": NOT_A_NUMBER, "setpoint": NOT_A_NUMBER, "forcing": NOT_A_NUMBER, "period": POSITIVE}
            | {"noise": NOT_NEGATIVE},
        ),
        "a thermostat state": Asked(systems.thermostat(0.1, 1.0).init, {"room": 1.0, "thermostat": 0.0}, of_room),
        "saturating_thermostat": Asked(
            systems.saturating_thermostat,
            {"threshold": 1.0, "power": 1.0, "setpoint": 1.0, "dt": 0.1},
            {"threshold": POSITIVE, "power": NOT_NEGATIVE, "setpoint": NOT_A_NUMBER, "dt": POSITIVE},
        ),
        "thermostat_table": Asked(systems.thermostat_table, {"kind": "smart"}, {"kind": [*CHOICE, None]}),
        "feedback_loop": Asked(
            systems.feedback_loop,
            {"plant": plant, "controller": controller},
            {"plant": [*matrices, *[(wrong, *plant[1:]) for wrong in first]]}
            | {"controller": [*matrices, *[(wrong, *controller[1:]) for wrong in first]]},
        ),
        "a loop's state": Asked(
            systems.feedback_loop(plant, controller).init,
            {"plant": [0.0], "controller": [0.0]},
            {"plant": parts, "controller": parts},
        ),
        "cart_pole": Asked(
            systems.cart_pole,
            {},
            {"gains": [*NOT_A_NUMBER, [1.0, 2.0, 3.0], [NAN, 1.0, 1.0, 1.0], ["a"] * 4, 3.0], "dt": POSITIVE}
            | dict.fromkeys(("cart", "pole", "length", "gravity"), POSITIVE),
        ),
        "a cart-pole state": Asked(systems.cart_pole().init, at_rest, dict.fromkeys(at_rest, NOT_A_NUMBER)),
        "lorenz96": Asked(
            systems.lorenz96,
            {},
            {"sites": [*whole(4), None], "forcing": NOT_A_NUMBER, "dt": POSITIVE, "method": CHOICE},
        ),
        "a ring's state": Asked(
            systems.lorenz96(8).init, {}, {"x": ["a", np.ones(7), NAN, [NAN] * 8, object(), {}, 3.0, 1j * np.ones(8)]}
        ),
    }


def machines() -> dict[str, Asked]:
    """Boltzmann machines, their likelihood, samplers and training; `tw.energy.test_samples`."""
    energy = tw.energy
    model = energy.RBM([[0.5, -0.2], [0.1, 0.3], [0.0, 0.2]], np.zeros(3), np.zeros(2))
    real = energy.GaussianRBM([[0.5], [0.1]], np.zeros(2), np.zeros(1))
    data = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0.0]])
    wrong: list[Any] = [None, "text", 3.0, object(), {}, [], np.zeros((2, 7)), np.full((2, 3), NAN), data + 1j]
    rows = [*wrong, 3 * data, [[0, 1, 1], [0, 1]]]
    no_rows: list[Any] = [*wrong[:6], *wrong[7:], 3 * data, rows[-1]]
    not_a_machine: list[Any] = [None, 3, "model.npz", {}, np.eye(3), energy.RBM]
    arrays: list[Any] = [None, "text", object(), [], np.zeros((2, 2, 2, 2)), [[NAN, 0.0]] * 3]
    method: list[Any] = [*CHOICE, None]
    points = np.random.default_rng(0).normal(size=(40, 2))

    def slope(x: Any) -> Any:
        return -x

    return {
        "RBM": Asked(
            energy.RBM,
            {"weights": np.zeros((3, 2)), "visible_bias": np.zeros(3), "hidden_bias": np.zeros(2)},
            {"weights": [*arrays, 3.0], "visible_bias": [*arrays, np.zeros(2)], "hidden_bias": [*arrays, np.zeros(3)]}
            | {"units": [None, "01", (0, 2), (1, 0), 3, (0, 1, 2), object()]},
        ),
        "GaussianRBM": Asked(
            energy.GaussianRBM,
            {"weights": np.zeros((3, 2)), "visible_bias": np.zeros(3), "hidden_bias": np.zeros(2)},
            {"weights": [*arrays, 3.0], "log_variance": ["text", NAN, INF, np.zeros(2), object(), [NAN] * 3]},
        ),
        "RBM start": Asked(
            energy.RBM.start, {"data": data, "hidden": 2}, {"data": no_rows, "hidden": [*whole(1), None]}
        ),
        "GaussianRBM start": Asked(
            energy.GaussianRBM.start,
            {"data": points, "hidden": 2},
            {"data": wrong[:6], "hidden": [*NOT_WHOLE, 0, None]},
        ),
        "log_partition": Asked(
            energy.log_partition,
            {"model": model},
            {"model": not_a_machine[:-1], "method": method, "data": rows[1:], "chains": [*whole(2), None]}
            | {"steps": [*whole(2), None], "snapshots": [3, [3], [real], "text"]},
        ),
        "annealed": Asked(
            energy.log_partition,
            {"model": model, "method": "ais", "chains": 4, "steps": 4, "key": 0},
            {"base": ["text", np.zeros(2), NAN, object(), model], "key": KEY},
        ),
        "log_likelihood": Asked(
            energy.log_likelihood, {"model": model, "data": data}, {"model": not_a_machine, "data": [*rows, data / 2]}
        ),
        "pseudo_log_likelihood": Asked(
            energy.pseudo_log_likelihood,
            {"model": model, "data": data},
            {"model": [*not_a_machine, real], "data": rows},
        ),
        "gradient": Asked(
            energy.gradient,
            {"model": model, "data": data, "method": "cd"},
            {"model": not_a_machine, "data": rows, "method": method, "sweeps": [*whole(1), None], "key": KEY}
            | {"chains": rows[1:]},
        ),
        "sampler": Asked(
            energy.sampler,
            {"model": model},
            {"model": not_a_machine, "method": method, "sweeps": [*whole(1), None]},
        ),
        "tempered sampler": Asked(
            energy.sampler,
            {"model": model, "method": "tempering"},
            {"betas": ["text", [0.0], [0.0, NAN], [0.0, 2.0], object(), 0.5], "data": rows[1:]},
        ),
        "transition_matrix": Asked(
            energy.transition_matrix, {"model": model}, {"model": not_a_machine, "sweeps": [*whole(1), None]}
        ),
        "training": Asked(
            energy.training,
            {"model": model, "data": data},
            {"model": not_a_machine, "data": rows, "method": method, "optimizer": ["fast", NAN, -1.0, object(), True]}
            | {"steps": optional_whole(), "batch_size": [*NOT_WHOLE, 0, 9], "chains": [*whole(1), None]}
            | {"sweeps": [*whole(1), None], "order": method, "weights": ["text", [1.0], -np.ones(4), np.zeros(4), NAN]}
            | {"weight_decay": [*NOT_NEGATIVE], "natural": [*POSITIVE[:1], *POSITIVE[2:]]},
        ),
        "fit": Asked(
            energy.fit,
            {"model": model, "data": data, "epochs": 1, "every": 1, "patience": 1},
            {"model": not_a_machine, "data": rows, "epochs": [*NOT_WHOLE, 0, None], "every": [*NOT_WHOLE, 0, None]}
            | {"patience": [*NOT_WHOLE, 0, None], "validation": [*rows[1:], data / 2], "method": method, "key": KEY}
            | {"progress": [None, 3, "yes"]},
        ),
        "test_samples": Asked(
            energy.test_samples,
            {"samples": points, "score": slope, "draws": 100},
            {"samples": [*wrong[:6], points[:5], np.full((40, 2), NAN)], "score": [None, 3, "text", lambda x: x[:1]]}
            | {"reference": [*wrong[1:6], np.full((40, 2), NAN)], "jumps": ["far", [-1.0], [NAN], 3.0, object(), [0.0]]}
            | {"thin": [*NOT_WHOLE, 0, 9], "most": [*whole(20), None], "draws": [*whole(100), None], "key": KEY}
            | {"units": [(0, 1)]},
        ),
        "bars_and_stripes": Asked(
            systems.bars_and_stripes, {"rows": 2}, {"rows": [*NOT_WHOLE, 0, 13, None], "columns": [*NOT_WHOLE, 0, 13]}
        ),
        "shifter": Asked(systems.shifter, {"bits": 2}, {"bits": [*NOT_WHOLE, 1, 13, None]}),
        "gaussian_mixture": Asked(
            systems.gaussian_mixture,
            {"means": [[0.0], [1.0]], "weights": [0.5, 0.5], "scale": 1.0},
            {
                "means": ["text", 3.0, [], [[NAN], [1.0]], object()],
                "weights": ["text", [1.0], [0.5, 0.6], [NAN, 1.0], [-1, 2]],
            }
            | {"scale": POSITIVE},
        ),
        "curie_weiss": Asked(
            systems.curie_weiss,
            {"spins": 4, "beta": 1.0},
            {"spins": [*NOT_WHOLE, 1, None, 10**7], "beta": NOT_NEGATIVE},
        ),
    }


def located() -> dict[str, Asked]:
    """Forks, influence, permutation tests, localization and matching."""
    knowledge = tw.knowledge
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(16, 3)), np.array([1, 7, 6, 8] * 4)
    model = systems.perceptron((3, 4, 2))
    data = (jnp.asarray(x), jnp.asarray(np.eye(2)[labels % 2]))
    learner = processes.sgd(model.loss, data, 0.1)
    run = tw.simulate(learner, learner.init(model.init(0)), 3, key=0)
    classes = ["all", None, [], np.ones(16), labels[:5], np.zeros((16, 1), int), object()]
    pairs = [3, None, ((1, 7),), ((1, 7), (6, 3)), ((1, 7), (7, 8)), ((1, 7), (6, 8, 1)), "ab", ((1.5, 7), (6, 8))]
    numbers = ["all", None, [], np.ones(5), np.full(16, NAN), object(), {}]
    table = ["left", None, 3.0, [], np.ones(4), -np.ones((6, 4)), np.full((6, 4), NAN), np.zeros((0, 4)), object()]
    profile = [
        value for value in table if not (isinstance(value, np.ndarray) and value.shape == (6, 4) and value.min() < 0)
    ]
    layers = [3, lambda: 0, lambda p: (p["W1"], p["b1"]), lambda p: p["V"]]
    return {
        "forks": Asked(
            knowledge.forks,
            {"loss": model.loss, "data": data, "optimizer": 0.1, "params": model.init(0), "labels": labels, "steps": 2},
            {
                "loss": REQUIRED_FUNCTION,
                "optimizer": [Bad(value, "optimizer") for value in NOT_NEGATIVE],
                "labels": classes,
                "pairs": pairs,
                "steps": whole(),
                "key": KEY,
                "matched": ["no", 3, None],
                "batch_size": whole(1),
            },
        ),
        "fork_data": Asked(
            knowledge.fork_data,
            {"run": run, "remove": [0]},
            {
                "run": [3, None, "run", _run()],
                "at": [value for value in optional_whole(0) if value is not None] + [9],
                "remove": ["all", [], [16], [-1], [0.5], np.ones(16, bool), np.ones(3, bool), object()],
                "replace": ["x", 3, x, (x, labels), (x[:4], np.eye(2)[labels[:4] % 2])],
                "reweight": ["x", [1.0], -np.ones(16), np.full(16, NAN), object()],
                "reorder": ["x", [0, 1], np.zeros(16, int), np.arange(16.0), object()],
            },
        ),
        "small_fork": Asked(
            knowledge.small_fork,
            {"run": run, "change": np.ones(16)},
            {"run": [3, None, _run()], "change": numbers},
        ),
        "influence": Asked(
            knowledge.influence,
            {"loss": model.loss, "data": data, "params": model.init(0), "change": np.ones(16), "curvature": "fisher"},
            {
                "loss": REQUIRED_FUNCTION,
                "change": numbers,
                "ridge": NOT_NEGATIVE,
                "curvature": CHOICE,
                "newton": ["no", 3, None],
                "tolerance": POSITIVE,
                "iterations": whole(1),
            },
        ),
        "datum_permutation_test": Asked(
            knowledge.datum_permutation_test,
            {"C": rng.random((6, 4)), "labels": [0, 1, 0, 1, 1, 0], "target": rng.random(4)},
            {
                "C": table,
                "labels": ["all", None, [], [0, 1], [0, 1, 2, 0, 1, 0], np.full(6, NAN), object()],
                "target": ["all", None, [], [0.1], [0.1, 0.2, INF, 0.3], object()],
                "statistic": CHOICE,
                "permutations": whole(1)[:-1],
                "key": ["seed", 1.5, True, None, -1, object()],
                "data": [[np.arange(6)], 3],
            },
        ),
        "localize": Asked(
            knowledge.localize,
            {"model": model, "data": (x, labels), "phase1": 4, "forks": 2, "seeds": 1, "permutations": 9},
            {
                "model": [3, None, "net", object()],
                "data": [3, None, x, (x, x), (x[:, 0], labels), (np.full((16, 3), NAN), labels), {"x": x}],
                "pairs": pairs,
                "optimizer": [*POSITIVE, np.ones(2)],
                "phase1": whole(1),
                "window": ["all", 3, None, (0.5,), (0.9, 0.2), (-1, 1), (0.1, 0.11), (NAN, 1.0)],
                "forks": whole(1),
                "phase1_fraction": [*POSITIVE, 1.0, 2],
                "matched": ["no", 3, None],
                "seeds": whole(1)[:-1],
                "permutations": whole(1)[:-1],
                "controls": ["no", 3, None],
                "key": KEY,
                "layer": layers,
            },
        ),
        "profiles": Asked(
            knowledge.profiles,
            {"model": model, "run_or_data": run, "kind": "gradient"},
            {
                "run_or_data": [3, None, "run", _run(), (1, 2, 3)],
                "kind": CHOICE,
                "data": [3, "x", x],
                "layer": layers[:2] + layers[3:],
            },
        ),
        "match_units": Asked(
            knowledge.match_units,
            {"a": rng.random((6, 4)), "b": rng.random((6, 3))},
            {"a": profile, "b": profile, "permutations": whole()[:-1], "key": ["seed", 1.5, True, None, -1, object()]},
        ),
        "name_units": Asked(
            knowledge.name_units,
            {
                "match": knowledge.match_units(rng.random((6, 4)), rng.random((6, 3)), permutations=0),
                "small": rng.random((6, 4)),
                "large": rng.random((6, 3)),
                "labels": [0, 1, 0, 1, 1, 0],
            },
            {
                "match": [3, None, "match"],
                "small": profile,
                "large": profile,
                "labels": ["all", None, [0, 1], np.ones(6), object()],
            },
        ),
        "planted": Asked(
            systems.planted,
            {"kind": "head"},
            {"kind": CHOICE, "routed": [*NOT_NEGATIVE, 1.5], "seed": whole()},
        ),
        "unit_scores": Asked(
            knowledge.unit_scores,
            {
                "method": "gradient",
                "owner": {
                    "W1": np.zeros((3, 4), int),
                    "b1": np.arange(4),
                    "W2": np.zeros((4, 2), int),
                    "b2": -np.ones(2, int),
                },
                "groups": labels % 2,
                "loss": model.loss,
                "data": data,
                "params": model.init(0),
            },
            {
                "method": CHOICE,
                "owner": [3.5, None, "all", {}, np.arange(3), {"W1": np.ones(3)}, object()],
                "groups": [*classes, np.zeros(16, int)],
                "loss": REQUIRED_FUNCTION,
                "data": [None],
                "params": [None],
            },
        ),
        "auroc": Asked(
            knowledge.auroc,
            {"scores": [0.1, 0.2], "truth": [True, False]},
            {
                "scores": ["all", None, 3.0, [[0.1], [0.2]], object()],
                "truth": ["all", None, [True], [1, 0], [True, True], object()],
            },
        ),
    }


def tallied() -> dict[str, Asked]:
    import optax

    data = np.ones((4, 2))
    learner = processes.sgd(_loss, data, 0.1)
    groups = [
        [0, 1],
        [0, 2, 2, 2],
        [0.0, 1.0, 1.0, 1.0],
        "abcd",
        None,
        3,
        [],
        [-1, -1, -1, -1],
        [-2, 0, 0, 0],
        object(),
    ]
    lion, run = optax.lion(0.1), _run_of(learner)
    share = run.folds["tally"].share
    return {
        "Tally": Asked(
            tw.knowledge.Tally,
            {"groups": [0, 1, 1, -1], "process": learner},
            {
                "groups": groups,
                "process": [3, "sgd", systems.pit, tw.Process(noisy, noise.Normal()), tw.clamp(learner, "update")],
                "kinds": [*CHOICE, (), ("absolute", "banana"), None],
                "window": [
                    *[3, "ab", (3, 2), (-1, 2), (0.5, 1.0), np.ones(4), np.zeros(4, bool), [], {}],
                    lambda s: True,
                ],
                "every": whole(1),
                "per": [*CHOICE, None],
                "most_bytes": [0, -1, "4 GB", None, NAN, True],
            },
        ),
        "attribution": Asked(
            tw.knowledge.attribution,
            {"optimizer": optax.adam(0.1), "groups": 2},
            {"optimizer": ["adam", None, -0.1, NAN, object(), True, [0.1]], "groups": [*whole(1), None]},
        ),
        "the start of an attribution": Asked(
            lambda optimizer: tw.knowledge.attribution(optimizer, 2).init(np.zeros(3)),
            {"optimizer": optax.adam(0.1)},
            {"optimizer": [lion, optax.adafactor(0.1), optax.sign_sgd(0.1), optax.lamb(0.1)]},
        ),
        "share": Asked(
            share, {"a": 0, "b": 1}, {"a": [1, 3, -1, (), (0, 1), "0", 0.0, None, True], "b": [0, (0, 2), NAN]}
        ),
        "per": Asked(run.folds["tally"].per, {"resolution": "unit"}, {"resolution": [*CHOICE, None]}),
    }


def _run_of(learner: Any) -> Any:
    tally = tw.knowledge.Tally([0, 1, 1, -1], learner)
    return tw.simulate(learner, learner.init(np.zeros(2)), 3, key=0, folds={"tally": tally})


def dots() -> dict[str, Asked]:
    """Two electrons exactly, plain machines without noise, densities of samples."""
    trap, energy = tw.energy.HarmonicTrap(2, 2, interaction=False), tw.energy
    not_a_trap: list[Any] = [3, None, "trap", {}, object(), tw.energy.HarmonicTrap]
    samples: list[Any] = ["x", None, 3.0, {}, object(), [], np.zeros((1, 4)), np.zeros((9, 5)), np.full((9, 4), NAN)]
    machine = energy.GaussianRBM(np.zeros((4, 1)), np.zeros(4), [0.0])
    return {
        "two_electrons": Asked(
            energy.two_electrons,
            {"omega": 1.0, "dimension": 2},
            {"omega": [*POSITIVE, [1.0, 2.0], 1e-7, 1e13], "dimension": [*NOT_WHOLE, 0, 4, None]}
            | {"angular_momentum": whole(), "level": [*whole(), 51]},
        ),
        "a distance": Asked(
            energy.two_electrons().factor, {"r": 1.0}, {"r": ["far", None, NAN, [1.0, INF], -1.0, {}, object()]}
        ),
        "known_energies": Asked(energy.known_energies, {"trap": trap}, {"trap": not_a_trap}),
        "closed_form_energy": Asked(
            energy.closed_form_energy,
            {"state": machine, "trap": trap},
            {"trap": not_a_trap, "state": [*[Bad(s, "machine") for s in (3, None, "rbm", {})]]},
        ),
        "noise_free_ground_state": Asked(
            energy.noise_free_ground_state,
            {"trap": trap, "hidden": 1, "starts": 1, "iterations": 5},
            {"trap": not_a_trap, "hidden": [*whole(1), None], "starts": whole(1), "iterations": whole(1)}
            | {"sigma": ["wide", None, 0, -1.0, NAN, {}, object(), [1.0, 2.0]], "key": KEY},
        ),
        "radial_densities": Asked(
            energy.radial_densities,
            {"samples": np.ones((9, 4)) * np.arange(9)[:, None], "particles": 2},
            {"samples": samples, "particles": [*whole(1), None], "bins": [*whole(1), None]}
            | {"reach": [bad for bad in POSITIVE if bad is not None] + [[1.0, 2.0]]},
        ),
    }


def trapped() -> dict[str, Asked]:
    """Ground states of trapped particles, of `tw.energy`."""
    energy = tw.energy
    trap = energy.HarmonicTrap(2, 2, 1.0)
    gaussian = energy.GaussianState.of(trap)
    traps: list[Any] = [None, 3, "trap", object(), {}]
    states: list[Any] = [*[Bad(bad, "wavefunction") for bad in (None, 3, "psi", object(), lambda x: 0.0)]]
    states.append(energy.GaussianState.of(energy.HarmonicTrap(3)))
    functions: list[Any] = [None, 3, "psi", object(), lambda p, x: x, lambda p, x: "text", lambda: 0, lambda p, x: None]
    points: list[Any] = ["left", None, object(), {}, [], 1j, lambda x: x, np.ones(3), np.ones((2, 3)), np.array(["a"])]
    counts, methods = whole(1), [*CHOICE, None]
    shells = energy.SlaterDeterminants.of(energy.HarmonicTrap(3))
    not_table: list[Any] = ["left", None, object(), {}, 1j, lambda x: x, np.array(["a"])]
    return {
        "HarmonicTrap": Asked(
            energy.HarmonicTrap,
            {"particles": 2},
            {
                "particles": [*whole(1), None, (1,), (1, 2, 3), (-1, 2), (0, 0), (1.5, 1)],
                "dimension": [*NOT_WHOLE, 0, 4, None],
                "omega": [*POSITIVE, [1.0, 0.0], [1.0, 1.0, 1.0], [1.0, NAN], [[1.0]]],
                "interaction": [
                    *FUNCTION,
                    None,
                    lambda: 0,
                    lambda r: NAN,
                    lambda r: "text",
                    lambda r: 1j,
                    lambda r: r + 1j,
                ],
                "statistics": [*CHOICE, None],
                "orbitals": ["s", 3, object(), [(0,)], [(0, 0, 0)], [(0, -1)], [], [(0, 0.5)], [[(0, 0)]], {}],
                "potential": [*FUNCTION, lambda: 0, lambda r: r, lambda r: NAN, lambda r: "text"],
            },
        ),
        "RBMState": Asked(
            energy.RBMState,
            {"machine": energy.RBMState.start(trap).machine, "particles": 2},
            {"machine": [None, 3, object(), gaussian], "particles": [*NOT_WHOLE, 0, 3, None]},
        ),
        "RBMState.start": Asked(
            energy.RBMState.start,
            {"trap": trap},
            {"hidden": counts, "sigma": [*POSITIVE, "wide"], "key": KEY + NO_KEY},
        ),
        "Symmetrised": Asked(
            energy.Symmetrised,
            {"state": gaussian, "spins": (1, 1)},
            {"state": [None, 3, object()], "spins": [None, 3, (1,), (2, 1), (-1, 3), (1.0, 1), "ab"]},
        ),
        "Product": Asked(
            lambda factors: energy.Product(*factors), {"factors": [gaussian]}, {"factors": [[], [3], [None]]}
        ),
        "Ansatz": Asked(
            energy.Ansatz,
            {"log_psi": lambda p, x: -p * jnp.sum(x**2), "params": 1.0, "particles": 2, "dimension": 2},
            {
                "log_psi": functions,
                "params": ["a", object(), 1j],
                "particles": [*NOT_WHOLE, 0],
                "dimension": [*NOT_WHOLE, 0],
            },
        ),
        "BackflowDeterminants": Asked(
            energy.BackflowDeterminants,
            {"determinants": shells, "pair": np.zeros((2, 3)), "single": np.zeros(3)},
            {
                "determinants": [None, 3, object(), gaussian],
                "pair": [*not_table, np.zeros(3), np.zeros((3, 3)), np.full((2, 3), NAN)],
                "single": [*not_table, np.zeros((1, 3)), [NAN, 0.0]],
            },
        ),
        "BackflowDeterminants.of": Asked(
            energy.BackflowDeterminants.of, {"trap": energy.HarmonicTrap(3)}, {"trap": traps, "terms": [*whole(1), 65]}
        ),
        "SlaterDeterminants.of": Asked(energy.SlaterDeterminants.of, {"trap": trap}, {"trap": traps}),
        "PadeJastrow.of": Asked(
            energy.PadeJastrow.of,
            {"trap": trap},
            {"trap": traps, "terms": [bad for bad in whole(1) if bad is not None], "mixed": [3, "yes"]}
            | {"beta": [bad for bad in POSITIVE if bad is not None]},
        ),
        "GaussianState.of": Asked(energy.GaussianState.of, {"trap": trap}, {"trap": traps, "alpha": POSITIVE}),
        "log_psi": Asked(gaussian.log_psi, {"x": np.ones(4)}, {"x": points}),
        "trap_energy": Asked(trap.trap_energy, {"x": np.ones(4)}, {"x": points}),
        "wavefunction_sampler": Asked(
            energy.wavefunction_sampler,
            {"psi": gaussian},
            {"psi": [None, 3, "psi", trap], "method": [*methods, "gibbs", "exact"], "walkers": counts, "moves": counts}
            | {"adapt": [None, 3, "yes"]},
        ),
        "variational_monte_carlo": Asked(
            energy.variational_monte_carlo,
            {"trap": trap, "state": gaussian},
            {
                "trap": traps,
                "state": states,
                "walkers": whole(2),
                "moves": counts,
                "method": [*methods, "gibbs", "exact"],
                "optimizer": [*NOT_A_NUMBER, 0.0, -1.0],
                "relative_shift": NOT_NEGATIVE,
                "shift": NOT_NEGATIVE,
            },
        ),
        "stochastic_reconfiguration": Asked(
            energy.stochastic_reconfiguration,
            {"derivatives": np.eye(3), "energies": np.arange(3.0)},
            {"derivatives": [*points[:8], np.ones((2, 4))], "energies": [*points[:7], np.ones(2)]}
            | {"relative_shift": NOT_NEGATIVE, "shift": NOT_NEGATIVE},
        ),
        "evaluate": Asked(
            energy.evaluate,
            {"log_psi": gaussian, "hamiltonian": trap, "samples": GOOD_SERIES.reshape(50, 4)},
            {"log_psi": functions, "hamiltonian": traps, "samples": [*points, np.ones((4, 4)), np.full((9, 4), NAN)]}
            | {"weights": ["a", np.ones(3), -np.ones(50), [NAN] * 50, np.zeros(50)]},
        ),
        "measure": Asked(
            energy.measure,
            {"psi": gaussian, "trap": trap, "walkers": 8, "moves": 1},
            {
                "psi": states[-1:],
                "trap": traps,
                "key": KEY + NO_KEY,
                "tol": [0.0, -1.0, NAN, "small"],
                "most": [31, 1.5, None],
            }
            | {"walkers": whole(2), "start": ["left", *points[2:7]], "method": methods},
        ),
        "ground_state": Asked(
            energy.ground_state,
            {"trap": trap, "hidden": 0, "walkers": 8, "moves": 1, "steps": 1, "tol": 9.0},
            {
                "trap": traps,
                "hidden": whole(),
                "jastrow": [None, 3, "yes", object()],
                "sigma": [*POSITIVE, "wide", [1.0, 2.0]],
                "tol": [0.0, -1.0, NAN, "small"],
                "key": KEY + NO_KEY,
                "state": states[1:3] + states[-1:],
                "symmetric": [3, "yes"],
                "backflow": [3, "yes", True],
                "walkers": whole(2),
                "moves": counts,
                "method": [*methods, "gibbs"],
                "steps": [bad for bad in whole() if bad is not None],
                "options": [3, "fast", {}],
                "resume": [True, 3, "yes", None],
            },
        ),
    }


def table() -> dict[str, Asked]:
    """name -> what is asked, with what is refused."""
    of_rooms = {**rare(), **densities(), **steered(), **steered_systems(), **dots(), **tallied(), **located()}
    of_rooms |= {**machines(), **trapped()}
    return {**core(), **laws(), **ways(), **named(), **errors(), **of_rooms}
