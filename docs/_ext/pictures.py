"""A picture of each named system. One that has no drawing here yet is drawn from the example in its docstring."""

import doctest
import inspect
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import thalweg as tw

DRAWINGS: dict[str, Callable[[], Any]] = {}


def draw(name: str) -> Any:
    """The figure of a system, in thalweg's style."""
    with tw.plot.style():
        figure = DRAWINGS[name]() if name in DRAWINGS else from_example(getattr(tw.systems, name))
        return figure


def from_example(system: Callable[..., Any]) -> Any:
    """The run of the example in a system's docstring, or the patterns that it makes."""
    runs: list[tuple[Any, Any, int, Any]] = []
    simulate = tw.simulate

    def watched(process: Any, state: Any, steps: int, **how: Any) -> Any:
        runs.append((process, state, steps, how.get("key")))
        return simulate(process, state, steps, **how)

    namespace: dict[str, Any] = {}
    with mock.patch.object(tw, "simulate", watched):
        for example in doctest.DocTestParser().get_examples(inspect.getdoc(system) or ""):
            exec(compile(example.source, system.__name__, "single"), namespace)
    if runs:
        process, state, steps, key = runs[0]
        path = simulate(process, state, min(steps, 2000), key=key, record=lambda s, w, after: after).record
        return _lines({jax.tree_util.keystr(at, simple=True, separator=" "): np.asarray(leaf).reshape(len(leaf), -1)
                       for at, leaf in jax.tree_util.tree_leaves_with_path(path)})  # fmt: skip
    for value in namespace.values():
        if hasattr(value, "data") and hasattr(value, "shape") and np.ndim(value.data) == 2:
            return _pictures(np.asarray(value.data)[:20], value.shape, 10)
    raise LookupError(f"{system.__name__} has no run in its example: give it a drawing in docs/_ext/pictures.py")


def _drawing(function: Callable[[], Any]) -> Callable[[], Any]:
    DRAWINGS[function.__name__] = function
    return function


@_drawing
def pit() -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    W, (l0, l1), points = np.linspace(0.4, 3, 1001), tw.systems.pit_losses(), tw.systems.pit_points()
    left.plot(W, l0(W), label="first datum")
    left.plot(W, l1(W), label="second datum")
    left.plot(W, (l0(W) + l1(W)) / 2, label="mean")
    left.set(xlabel="W", ylabel="loss", ylim=(-1.6, 0.05))
    left.legend(loc="lower right")
    starts = jnp.full(4, points.bottom)
    runs = tw.ensemble(tw.systems.pit(0.02), starts, 500, key=0, record=lambda W, w, after: after).record
    right.plot(np.asarray(runs).T, linestyle="-", linewidth=1)
    right.axhline(points.lip_of_l1, color="0.4", linestyle=":", linewidth=1)
    right.set(xlabel="step", ylabel="W", title="four runs at learning rate 0.02")
    return figure


@_drawing
def linear_noise() -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    W = np.linspace(0, 4, 201)
    for curvature in (1.2, 0.8):
        left.plot(W, curvature * W**2 / 2 - 2 * W, label=f"curvature {curvature}")
    left.set(xlabel="W", ylabel="loss")
    left.legend()
    operator = tw.flow.transfer_operator(tw.systems.linear_noise(0.5), tw.flow.Grid(1.0, 3.0, 2000))
    right.plot(operator.space.centers[0], operator.stationary_density().value)
    right.set(xlabel="W", ylabel="stationary density", title="at learning rate 0.5")
    return figure


@_drawing
def coin() -> Any:
    figure, axes = plt.subplots(figsize=(8, 3))
    steps = np.arange(1, 401)
    runs = tw.ensemble(tw.systems.coin(0.1), jnp.zeros(30), 400, key=0, record=lambda W, w, after: after).record
    axes.plot(steps, np.asarray(runs).T, color="0.6", linestyle="-", linewidth=0.6)
    axes.plot(steps, 0.1 * np.sqrt(steps), color="C0", linestyle="-", label="one standard deviation")
    axes.plot(steps, -0.1 * np.sqrt(steps), color="C0", linestyle="-")
    axes.set(xlabel="step", ylabel="W", title="thirty runs at learning rate 0.1")
    axes.legend()
    return figure


@_drawing
def two_wells() -> Any:
    figure, panels = plt.subplots(1, 3, figsize=(8, 3), sharey=True)
    x, y = np.meshgrid(np.linspace(-2, 2, 81), np.linspace(-1.5, 1.5, 61))
    points = jnp.stack([jnp.asarray(x.ravel()), jnp.asarray(y.ravel())], axis=1)
    for axes, kind in zip(panels, ("wide", "noise", "control"), strict=True):
        losses = tw.systems.two_wells_losses(kind)
        mean = jax.jit(jax.vmap(lambda at, losses=losses: sum(loss(at) for loss in losses) / 4))(points)
        axes.contourf(x, y, np.asarray(mean).reshape(x.shape), 14)
        axes.set(title=kind, xlabel="x", aspect="equal")
    panels[0].set_ylabel("y")
    return figure


@_drawing
def double_well() -> Any:
    figure, axes = plt.subplots(figsize=(8, 3))
    process = tw.systems.double_well(temperature=0.3, dt=0.01)
    path = tw.simulate(process, 1.0, 10_000, key=3, record=lambda x, w, after: after).record
    axes.plot(np.arange(10_000) * 0.01, path, linewidth=0.6)
    axes.set(xlabel="time", ylabel="x", title="temperature 0.3")
    return figure


@_drawing
def lorenz() -> Any:
    figure, axes = plt.subplots(figsize=(8, 3.4))
    process = tw.systems.lorenz(28.0)
    path = tw.simulate(process, process.init(a=1, b=1, c=1), 5000, record=lambda s, w, after: after).record
    axes.plot(path["a"], path["c"], linewidth=0.6)
    axes.set(xlabel="a", ylabel="c", title="rho = 28")
    return figure


@_drawing
def lorenz96() -> Any:
    figure, axes = plt.subplots(figsize=(8, 3))
    ring = tw.systems.lorenz96(40, forcing=8.0)
    path = tw.simulate(ring, ring.init(), 2000, record=lambda s, w, after: after).record
    image = axes.imshow(np.asarray(path)[::4].T, aspect="auto", extent=(0, 20, 40, 0))
    axes.grid(False)
    axes.set(xlabel="time", ylabel="site", title="F = 8")
    figure.colorbar(image, ax=axes, label="x")
    return figure


@_drawing
def thermostat() -> Any:
    room = tw.systems.thermostat(gain=0.01, setpoint=25.0)
    path = tw.simulate(room, room.init(room=35.0, thermostat=10.0), 600, record=lambda s, w, after: after).record
    return _lines({"room": path["room"], "thermostat": path["thermostat"]}, "temperature", title="k = 0.01, d = 25")


@_drawing
def saturating_thermostat() -> Any:
    room = tw.systems.saturating_thermostat(threshold=1.0, power=1.0, setpoint=25.0, dt=0.02)
    path = tw.simulate(room, room.init(room=35.0, thermostat=0.0), 900, record=lambda s, w, after: after).record
    return _lines({"room": path["room"], "thermostat": path["thermostat"]}, "temperature", "time", scale=0.02)


@_drawing
def thermostat_table() -> Any:
    figure, panels = plt.subplots(1, 2, figsize=(8, 2.6))
    for axes, kind in zip(panels, ("dumb", "smart"), strict=True):
        table = tw.systems.thermostat_table(kind)
        settings, temperatures = table.parts.values()
        for row, setting in enumerate(settings):
            for column, temperature in enumerate(temperatures):
                after = table[setting, temperature]
                holds = after == (setting, temperature)
                weight = "bold" if holds else "normal"
                axes.text(column, row, ", ".join(after), ha="center", va="center", fontsize=9, weight=weight)
        axes.set(xticks=range(3), yticks=range(3), xlim=(-0.5, 2.5), ylim=(2.5, -0.5), xlabel="room", title=kind)
        axes.set_xticklabels(temperatures)
        axes.set_yticklabels(settings)
        axes.grid(False)
    panels[0].set_ylabel("thermostat")
    return figure


@_drawing
def feedback_loop() -> Any:
    paths = {}
    for name, gain in (("held by the controller", -0.8), ("left alone", 0.0)):
        loop = tw.systems.feedback_loop(([[1.3]], [[1.0]], [[1.0]]), ([[0.0]], [[1.0]], [[gain]], [[0.0]]))
        start = loop.init(plant=[1.0], controller=[0.0])
        steps = 30 if gain else 6
        paths[name] = tw.simulate(loop, start, steps, record=lambda s, w, after: after["plant"][0]).record
    return _lines(paths, "plant")


@_drawing
def cart_pole() -> Any:
    process = tw.systems.cart_pole()
    start = process.init(position=0, velocity=0, angle=0.1, angular_velocity=0)
    path = tw.simulate(process, start, 400, record=lambda s, w, after: after).record
    return _lines({"position [m]": path["position"], "angle [rad]": path["angle"]}, "", "time [s]", scale=0.02)


@_drawing
def curie_weiss() -> Any:
    figure, axes = plt.subplots(figsize=(8, 3))
    for beta in (0.5, 1.0, 1.5):
        magnet = tw.systems.curie_weiss(100, beta)
        axes.plot(magnet.magnetisation, magnet.distribution, label=f"beta = {beta}")
    axes.set(xlabel="magnetisation", ylabel="probability", title="100 spins", ylim=(-0.002, 0.085))
    axes.legend(loc="upper center", ncols=3)
    return figure


@_drawing
def digits() -> Any:
    data = tw.systems.digits()
    return _pictures(data.images[:20], data.shape, 10)


@_drawing
def bars_and_stripes() -> Any:
    patterns = tw.systems.bars_and_stripes(3)
    return _pictures(patterns.data, patterns.shape, 7)


@_drawing
def shifter() -> Any:
    patterns = tw.systems.shifter(4)
    rows = [np.flatnonzero(patterns.labels == label)[9] for label in range(3)]
    figure, panels = plt.subplots(1, 3, figsize=(8, 1.4))
    for axes, row, shift in zip(panels, rows, (-1, 0, 1), strict=True):
        axes.imshow(patterns.data[row][:8].reshape(2, 4), cmap="gray_r", vmin=-0.2, vmax=1.2)
        axes.set(xticks=[], yticks=[0, 1], title=f"shift {shift:+d}" if shift else "no shift")
        axes.set_yticklabels(["a row", "shifted"])
        axes.grid(False)
    return figure


@_drawing
def gaussian_mixture() -> Any:
    figure, axes = plt.subplots(figsize=(8, 3.4))
    points = tw.systems.gaussian_mixture().draw(2000)
    axes.scatter(points[:, 0], points[:, 1], s=4, alpha=0.5, linewidth=0)
    axes.set(xlabel="x1", ylabel="x2", aspect="equal", title="two thousand draws")
    return figure


@_drawing
def perceptron() -> Any:
    figure, axes = plt.subplots(figsize=(8, 3))
    data, model = tw.systems.digits(), tw.systems.perceptron((64, 30, 10), loss="xent")
    images, labels = jnp.asarray(data.images), jnp.asarray(data.labels)
    learner = tw.processes.sgd(model.loss, (images, labels), 0.05)
    shares, state = [], learner.init(model.init(0))
    for start in range(0, 4000, 200):
        state = tw.simulate(learner, state, 200, key=0, start=start).state
        shares.append(float(model.accuracy(state.params, images, labels)))
    axes.plot(np.arange(200, 4001, 200), shares)
    axes.set(xlabel="step of SGD, one image each", ylabel="share recognised", ylim=(0, 1), title="digits by 30 units")
    return figure


@_drawing
def softmax_classifier() -> Any:
    data, model = tw.systems.digits(), tw.systems.softmax_classifier(64, 10)
    learner = tw.processes.sgd(model.loss, (jnp.asarray(data.images), jnp.asarray(data.labels)), 0.05)
    learned = tw.simulate(learner, learner.init(model.init(0)), 4000, key=0).state.params["W1"]
    return _pictures(np.asarray(learned).T, data.shape, 10, cmap="RdBu_r", vmin=-2.5, vmax=2.5)


@_drawing
def planted() -> Any:
    figure, axes = plt.subplots(figsize=(8, 2.2))
    system = tw.systems.planted("routing", routed=1.0)
    start = system.init(0)
    run = tw.simulate(system.process, system.process.init(start), 1500, key=0)
    moved = np.abs(np.asarray(run.state.params["W1"] - start["W1"])).sum(axis=0)
    axes.bar(np.arange(40), moved, color=np.where(system.truth, "C1", "C0"))
    axes.set(xlabel="hidden unit (the first 8 are the region)", ylabel="moved by", title="1,500 steps of routing")
    return figure


def _lines(paths: dict[str, Any], up: str = "", across: str = "step", scale: float = 1, title: str = "") -> Any:
    figure, axes = plt.subplots(figsize=(8, 3))
    for name, path in paths.items():
        axes.plot(scale * np.arange(1, len(path) + 1), path, label=name)
    axes.set(xlabel=across, ylabel=up, title=title)
    axes.legend()
    return figure


def _pictures(rows: np.ndarray, shape: tuple[int, int], across: int, **colours: Any) -> Any:
    colours = colours or {"cmap": "gray_r", "vmin": -0.15, "vmax": 1}
    down = -(-len(rows) // across)
    figure, panels = plt.subplots(down, across, figsize=(8, 0.95 * down * 8 / across))
    for axes in np.ravel(panels):
        axes.axis("off")
    for axes, row in zip(np.ravel(panels), rows, strict=False):
        axes.imshow(np.reshape(row, shape), **colours)
    return figure
