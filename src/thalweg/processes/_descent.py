"""Learners: stochastic gradient descent, and any optax optimizer, on per-datum losses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._edge import (
    check_arrays,
    check_choice,
    check_function,
    check_number,
    check_weights,
    is_whole,
    one_number,
    shown,
)
from thalweg._loop import as_arrays
from thalweg._node import node
from thalweg._noise import Choice, Law, Shuffle
from thalweg._process import Process
from thalweg.processes._layers import Layer, given_inputs, layers_of


class Learner(NamedTuple):
    """The state of a learner: its parameters, and the memory of its optimizer."""

    params: Any
    opt_state: Any


def sgd(
    loss: Callable[[Any, Any], Any],
    data: Any,
    optimizer: Any,
    batch_size: int = 1,
    order: str = "replacement",
    weights: Any = None,
) -> Process:
    """Stochastic gradient descent on a mean of per-datum losses.

    A step draws a batch and moves the parameters by the optimizer's update for the gradient
    `sum_b weight_b grad loss(params, datum_b) / batch_size`. The gradient and the update are nodes
    (`"gradient"`, `"update"`), so that a clamp can hold them.

    **Arguments**

    - `loss`: `loss(params, datum)`, a number.
    - `data`: a pytree whose arrays lead with the n data.
    - `optimizer`: a learning rate (a leaf of the process: a sweep compiles once), or an optax optimizer.
    - `batch_size`: data a step. With 1 the noise `w` is an index, else an array of indices.
    - `order`: `"replacement"`: independent draws; `"subset"`: no datum twice in a batch; `"shuffle"`: epochs
      without replacement.
    - `weights`: weights of the data, shape (n,). A batch of total weight 0 skips the whole step, the
      optimizer's memory included: so a fork with data removed keeps every index and all of the noise.

    **Returns** a `Process` whose state is a `Learner`; make it with `process.init(params)`.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> learner = tw.processes.sgd(lambda p, x: (p - x) ** 2 / 2, jnp.array([1.0, 3.0]), 0.1, order="shuffle")
    >>> state = tw.simulate(learner, learner.init(0.0), 2, key=0).state
    >>> round(float(state.params), 6) in (0.39, 0.37)  # 1 then 3, or 3 then 1
    True
    """
    check_function(loss, "loss", "params, datum")
    check_arrays(data, "data")
    data = as_arrays(data)
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(f"every array of data must lead with the same number of data, got shapes {sorted(sizes)}")
    ((n,),) = sizes
    if n == 0:
        raise ValueError("data must hold at least one datum, got none")
    if not is_whole(batch_size) or not 1 <= batch_size < 2**31:
        raise ValueError(f"batch_size must be a whole number from 1 to 2^31 - 1, got {shown(batch_size)}")
    batch = None if batch_size == 1 else int(batch_size)
    laws: dict[str, Callable[[], Law]] = {
        "replacement": lambda: Choice(n, shape=() if batch is None else (batch,)),
        "subset": lambda: Choice(n, shape=() if batch is None else (batch,), replace=False),
        "shuffle": lambda: Shuffle(n, batch),
    }
    check_choice(order, "order", tuple(laws))
    if order != "replacement" and batch_size > n:
        raise ValueError(f"batch_size must be at most the number of data {n} for order {order!r}, got {batch_size}")
    if weights is not None:
        weights = check_weights(weights, n)
    step = _Descent(loss, data, weights, *_optimizer(optimizer))
    return Process(
        step, laws[order](), step.init, coordinates=_params, contributions=step.contributions, layers=step.layers
    )


def gradient_descent(loss: Callable[[Any], Any], optimizer: Any) -> Process:
    """Plain gradient descent on `loss(params)`, without noise: the control for every claim about noise.

    `optimizer` is a learning rate or an optax optimizer. The state is a `Learner`.

    >>> import thalweg as tw
    >>> descent = tw.processes.gradient_descent(lambda p: 2 * p**2, 0.1)  # p -> 0.6 p
    >>> round(float(tw.simulate(descent, descent.init(1.0), 2).state.params), 12)
    0.36
    """
    check_function(loss, "loss", "params")
    step = _Descent(loss, None, None, *_optimizer(optimizer))
    return Process(step, None, step.init, coordinates=_params, contributions=step.contributions)


class _Descent(eqx.Module):
    """One step of a learner."""

    loss: Callable[..., Any]
    data: Any
    weights: Any
    learning_rate: Any
    optimizer: Any

    def init(self, params: Any) -> Learner:
        """The state of a learner that starts from `params`."""
        params = as_arrays(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=_floating(leaf)), params))
        return Learner(params, () if self.optimizer is None else as_arrays(self.optimizer.init(params)))

    def __call__(self, state: Learner, w: Any) -> Learner:
        gradient = node(self.contributions(state, w), "gradient")
        after = self.updated(state, gradient)
        if self.weights is None:
            return after
        skip = self.skips(w)
        return jax.tree.map(lambda a, b: jnp.where(skip, a, b), state, after)

    def skips(self, w: Any) -> Any:
        """Whether a batch has total weight 0, so that its whole step is left out."""
        return jnp.asarray(False) if self.weights is None else jnp.sum(self.weights[w]) == 0

    def rule(self, gradient: Any, memory: Any, params: Any) -> tuple[Any, Any]:
        """The update that a gradient leads to, and the optimizer's new memory."""
        if self.optimizer is None:
            return jax.tree.map(lambda g: -self.learning_rate * g, gradient), memory
        return self.optimizer.update(gradient, memory, params)

    def updated(self, state: Learner, gradient: Any) -> Learner:
        """The state after the optimizer has seen a gradient."""
        update, memory = self.rule(gradient, state.opt_state, state.params)
        update = node(update, "update")
        return Learner(jax.tree.map(lambda p, u: (p + u).astype(p.dtype), state.params, update), memory)

    def contributions(self, state: Learner, w: Any, slot_weights: Any = None) -> Any:
        """The gradient of the batch `w`, each of its slots weighted by `slot_weights` (all 1 by default)."""
        if self.data is None:
            return jax.grad(lambda params: one_number(self.loss(params), "loss"))(state.params)
        datum = jax.tree.map(lambda leaf: leaf[w], self.data)
        scales = None if slot_weights is None else jnp.reshape(slot_weights, jnp.shape(w))

        def batch_loss(params):
            one = lambda datum: self.of_datum(params, datum)  # noqa: E731
            return self.total((jax.vmap(one) if jnp.ndim(w) else one)(datum), w, scales)

        return jax.grad(batch_loss)(state.params)

    def of_datum(self, params: Any, datum: Any) -> Any:
        """The loss of one datum."""
        return one_number(self.loss(params, datum), "loss")

    def total(self, losses: Any, w: Any, scales: Any = None) -> Any:
        """The loss of the batch `w` from those of its data."""
        scales = jnp.ones(jnp.shape(w)) if scales is None else scales
        scales = scales if self.weights is None else scales * self.weights[w]
        return jnp.sum(scales * losses) / len(w) if jnp.ndim(w) else scales * losses

    def layers(self, state: Learner, w: Any) -> list[Layer | None]:
        """The dense layers among the parameters, for the batch `w`: any part of its gradient in one product."""
        data = jax.tree.map(lambda leaf: leaf[w], self.data)
        return layers_of(self.of_datum, state.params, data, lambda losses: self.total(losses, w), jnp.shape(w))

    def inputs(self, params: Any) -> dict[int, tuple[Any, bool]]:
        """What the layers that read the data read: by the number of the array, (n, rows, inputs), and if transposed."""
        return given_inputs(self.of_datum, params, self.data)


def _params(state: Learner) -> Any:
    return state.params


def _optimizer(optimizer: Any) -> tuple[Any, Any]:
    """(learning rate, None) or (None, optax optimizer)."""
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return None, optimizer
    return check_number(optimizer, "learning_rate (or optimizer)", least=0), None


def _floating(leaf: Any) -> Any:
    dtype = jnp.asarray(leaf).dtype
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
