"""Every outcome of one step from given points, and whether a target holds there."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg._loop import apply_step
from thalweg._process import Process
from thalweg.flow._chart import Chart, Predicate, embed, flatten

MOST_AT_ONCE = 2**22  # outcomes evaluated in one call
LONGEST = 2**16  # lengths are powers of 2 up to this one, and its multiples beyond


class Outcomes(NamedTuple):
    """Where a step can lead: outcome `j` of point `i` is `points[i, j]`, with probability `weights[j]`."""

    points: Float[np.ndarray, "points outcomes axes"]
    weights: Float[np.ndarray, " outcomes"]


def outcomes(process: Process, chart: Chart, points: Float[np.ndarray, "points axes"]) -> Outcomes:
    """All outcomes of a step from each point: exact for finite noise, by quadrature for Gaussian noise.

    Raises `ValueError` for noise that cannot be integrated, and for a step that leads to NaN or infinity.
    """
    draws, weights = process.noise.atoms()
    return Outcomes(at_draws(process, chart, points, draws if jax.tree.leaves(draws) else None), np.asarray(weights))


def at_draws(
    process: Process, chart: Chart, points: Float[np.ndarray, "points axes"], draws: Any
) -> Float[np.ndarray, "points outcomes axes"]:
    """Where a step leads from each point with each of some draws of the noise (`None`: there is no noise)."""
    count = 1 if draws is None else len(jax.tree.leaves(draws)[0])
    at_once = max(1, MOST_AT_ONCE // max(1, len(points)))
    some_points = jnp.asarray(_padded(points))
    parts = []
    for first in range(0, count, at_once):
        some = jax.tree.map(lambda d, first=first: d[first : first + at_once], draws)
        images, strays = _images(process.step, some, chart.selection, chart.template, some_points)
        if bool(strays):
            raise ValueError(
                "a step changes parts of the state that are no coordinates of the grid (such as an optimizer's memory "
                "or a counter): give the grid an axis for each, or ask by Monte Carlo (tw.flow.monte_carlo)"
            )
        parts.append(np.asarray(images)[: len(points)])
    return np.concatenate(parts, axis=1)


def holds(target: Predicate, chart: Chart, points: Float[np.ndarray, "... axes"], name: str = "target") -> np.ndarray:
    """Whether the target holds at each point."""
    if not callable(target):
        raise TypeError(f"{name} must be a predicate of one state, such as lambda s: s > 1.2, got {target!r}")
    count = int(np.prod(points.shape[:-1]))
    flat = jnp.asarray(_padded(np.asarray(points).reshape(-1, points.shape[-1])))
    try:
        answer = _holds(target, chart.selection, chart.template, flat)
    except jax.errors.ConcretizationTypeError:
        raise ValueError(
            f"{name} must be a predicate that works on arrays: use & and | in place of `and` and `or`, and jnp.where "
            "in place of `if`"
        ) from None
    except (TypeError, ValueError) as problem:
        raise TypeError(f"{name} must be a predicate of one state, and failed: {first_line(problem)}") from None
    if answer.ndim != 1:
        raise ValueError(f"{name} must give one truth value for one state, got shape {answer.shape[1:]}")
    return np.asarray(answer, dtype=bool)[:count].reshape(points.shape[:-1])


def first_line(problem: Exception) -> str:
    """What an error says, in at most one line."""
    return str(problem).split("\n")[0][:160]


def _padded(points: Float[np.ndarray, "n axes"]) -> Float[np.ndarray, "m axes"]:
    """Points repeated up to one of a few lengths, so that few shapes are compiled."""
    if not len(points):
        return np.zeros((256, points.shape[1]))
    length = 256
    while length < len(points) and length < LONGEST:
        length *= 2
    length = -(-len(points) // length) * length
    return np.concatenate([points, np.repeat(points[:1], length - len(points), axis=0)])


@eqx.filter_jit
def _images(step: Any, draws: Any, selection: Any, template: Any, points: Any) -> tuple[Any, Any]:

    def one(point, w):
        after = apply_step(step, embed(selection, template, point), w, jnp.asarray(0, jnp.result_type(int)))
        image = flatten(selection.get(after))
        back = embed(selection, template, image)
        pairs = zip(jax.tree.leaves(after), jax.tree.leaves(back), strict=True)
        stray = jnp.any(jnp.stack([jnp.any((a != b) & (a == a)) for a, b in pairs]))
        return image, stray

    if draws is None:
        images, strays = jax.vmap(lambda p: one(p, None))(points)
        return images[:, None, :], jnp.any(strays)
    images, strays = jax.vmap(lambda p: jax.vmap(lambda w: one(p, w))(draws))(points)
    return images, jnp.any(strays)


@eqx.filter_jit
def _holds(target: Any, selection: Any, template: Any, points: Any) -> Any:

    return jax.vmap(lambda p: jnp.asarray(target(embed(selection, template, p))))(points)
