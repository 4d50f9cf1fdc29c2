"""The infinitesimal fork: what a small change of the data's weights does, along the run or at the optimum."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._conjugate_gradient import Solution, conjugate_gradient
from thalweg._edge import (
    check_choice,
    check_finite,
    check_function,
    check_number,
    check_truth,
    one_a_datum,
    one_number,
    shown,
)
from thalweg._fisher import Fisher
from thalweg._loop import as_arrays
from thalweg._process import Process, Run
from thalweg._response import response


def small_fork(run: Run, change: Any) -> Any:
    """How the end of an SGD run moves with the weights of its data: `d params_T / d e` at weights `1 + e change`.

    The derivative is carried along the whole run, exactly: no optimum is assumed, and the order of the data counts.
    A fork with datum n removed is, to first order, `-small_fork(run, e_n)`.

    **Arguments**

    - `run`: a `Run` of `tw.processes.sgd`. - `change`: (n,), a number for each datum.

    **Returns** a pytree like the parameters.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> learner = tw.processes.sgd(lambda p, x: (p - x) ** 2 / 2, jnp.array([4.0]), 0.5)
    >>> run = tw.simulate(learner, learner.init(0.0), 2, key=0)  # p = 4 - 4 (1 - w/2)^2 with the weight w
    >>> float(tw.knowledge.small_fork(run, [1.0]))
    2.0
    """
    if not isinstance(run, Run):
        raise TypeError(f"run must be a Run, as tw.simulate gives it back, got {shown(run)}")
    step = run.process.step
    if not hasattr(step, "data") or not hasattr(step, "weights") or step.data is None:
        raise ValueError("run must be one of tw.processes.sgd, whose data have weights, got another process")
    change = _as_change(change, jax.tree.leaves(step.data)[0].shape[0])
    weights = jnp.ones(len(change)) if step.weights is None else step.weights
    weighted = eqx.tree_at(lambda s: s.weights, step, weights, is_leaf=lambda leaf: leaf is None)
    process = Process(weighted, run.process.noise, run.process.init, coordinates=run.process.coordinates)
    found = response(
        process,
        run.initial,
        int(run.steps),
        key=run.key,
        start=int(run.start),
        wrt=lambda p: p.step.weights,
        read=lambda state: state.params,
    ).jvp(change)
    size = jnp.exp(found.log_norm)
    return jax.tree.map(lambda leaf: leaf * size, found.unit)


def influence(
    loss: Callable[[Any, Any], Any],
    data: Any,
    params: Any,
    change: Any,
    ridge: Any = 0.0,
    *,
    curvature: str = "hessian",
    newton: bool = False,
    tolerance: float = 1e-10,
    iterations: int = 1000,
) -> Solution:
    """The influence function: how the optimum of a mean loss moves with the weights of its data.

    ```
    d params = -(H + ridge)^-1 (1/N) sum_n change_n grad loss(params, datum_n)
    ```

    H is the curvature of the mean loss, known by its products only and inverted by conjugate gradients. A removed datum
    has change -1, so `params` moves by `+H^-1 grad loss_n / N`.

    **Arguments**

    - `loss`: `loss(params, datum)`. - `data`: a pytree whose arrays lead with the N data. - `params`: where the loss is
      (nearly) stationary. - `change`: (N,).
    - `ridge`: >= 0, added to the diagonal of H: needed where the loss has flat or falling directions.
    - `curvature`: `"hessian"`, or `"fisher"`: the empirical Fisher, which is never negative.
    - `newton`: take H at the changed weights: one Newton step, exact for quadratic losses.
    - `tolerance`, `iterations`: of the solve.

    **Returns** a `Solution` with the change of the parameters; its status is `UNDEFINED` where a direction of curvature
    <= 0 was met and `NOT_CONVERGED` where the tolerance was not.

    **When not to trust it.** Far from an optimum, and where the loss is not convex: the ridge then decides.

    **Source.** Koh and Liang, ICML 2017 (arXiv:1703.04730).

    **Example**: a mean of three numbers; without the last it moves by -1.5.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> loss = lambda p, x: (p - x) ** 2 / 2
    >>> x = jnp.array([0.0, 1.0, 5.0])
    >>> gone = [0.0, 0.0, -1.0]
    >>> move = tw.knowledge.influence(loss, x, 2.0, gone).value
    >>> newton = tw.knowledge.influence(loss, x, 2.0, gone, newton=True).value
    >>> round(float(move), 9), round(float(newton), 9)
    (-1.0, -1.5)
    """
    check_function(loss, "loss", "params, datum")
    check_choice(curvature, "curvature", ("hessian", "fisher"))
    check_truth(newton, "newton")
    ridge = check_number(ridge, "ridge", least=0)
    tolerance = float(check_number(tolerance, "tolerance", above=0))
    data, params = as_arrays(data), jax.tree.map(lambda p: jnp.asarray(p, float), as_arrays(params))
    check_finite(params, "params")
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        raise ValueError(f"every array of data must lead with the same number of data, got shapes {sorted(sizes)}")
    n = sizes.pop()[0]
    change = _as_change(change, n)
    weights = jnp.ones(n) + (change if newton else 0)
    if curvature == "fisher" and not bool(jnp.all(weights >= 0) & (jnp.sum(weights) > 0)):
        raise ValueError("change must leave weights >= 0 that are not all 0 for a Newton step with the Fisher")
    return _solve(loss, data, params, change, weights, ridge, curvature, tolerance, iterations)


@eqx.filter_jit
def _solve(
    loss: Any,
    data: Any,
    params: Any,
    change: Any,
    weights: Any,
    ridge: Any,
    curvature: str,
    tolerance: float,
    iterations: int,
) -> Solution:
    n = len(change)

    def weighted(params: Any, weights: Any) -> Any:
        return jnp.sum(weights * jax.vmap(lambda datum: one_number(loss(params, datum), "loss"))(data)) / n

    gradient = jax.grad(weighted)
    if curvature == "hessian":

        def product(v: Any) -> Any:
            return jax.jvp(lambda p: gradient(p, weights), (params,), (v,))[1]

    else:
        back = jax.flatten_util.ravel_pytree(params)[1]
        fisher = Fisher.of(loss, params, data, weights)  # whose weights sum to 1
        scale = jnp.sum(weights) / n

        def product(v: Any) -> Any:
            return back(scale * fisher.matvec(jax.flatten_util.ravel_pytree(v)[0]))

    push = jax.tree.map(jnp.negative, gradient(params, change))
    return conjugate_gradient(product, push, ridge, tolerance=tolerance, iterations=iterations)


def _as_change(change: Any, n: int) -> Any:
    array = one_a_datum(change, n, "change")
    if not np.all(np.isfinite(array)):
        raise ValueError("change must be finite, got NaN or infinity in it")
    return jnp.asarray(array)
