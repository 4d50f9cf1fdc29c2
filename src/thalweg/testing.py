"""Laws that every process obeys, to check one's own with, and hypothesis strategies for laws of noise.

>>> import thalweg as tw
>>> from thalweg.testing import check_process
>>> check_process(tw.systems.pit(0.02), 1.0)  # raises AssertionError where a law is broken
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import thalweg._loop as loop
from thalweg._clamp import clamp
from thalweg._node import node_names
from thalweg._noise import next_draw, open_stream
from thalweg._process import Options, Process, ensemble, fork, settle, simulate
from thalweg._response import response

STEPS = 23  # not a multiple of any chunk below, and short enough for chaos
WORST_Z = 5.0  # standard errors that a sampled mean may lie from an exact one


def check_process(process: Process, state: Any, key: Any = 0) -> None:
    """Check every law of `LAWS` on a process and a state it can start from.

    Raises `AssertionError`, with the name of the law, where one is broken.
    """
    for name, law in LAWS.items():
        try:
            law(process, state, key)
        except AssertionError as broken:
            raise AssertionError(f"{name.replace('_', ' ')}: {broken}") from None


def same_key_same_numbers(process: Process, state: Any, key: Any) -> None:
    """A run is a function of its arguments, and leaves them alone."""
    before = jax.tree.map(np.array, _plain(loop.as_arrays(state)))
    first, second = simulate(process, state, STEPS, key=key), simulate(process, state, STEPS, key=key)
    _same(first.state, second.state, "two runs with one key differ: the step is not pure")
    _same(before, loop.as_arrays(state), "the run changed the state that it was given")


def streams_equal_samples(process: Process, state: Any, key: Any) -> None:
    """Noise drawn step after step equals the noise of each step drawn by its number."""
    law, key = process.noise, jax.random.key(7)
    first, count = 3, 40

    @jax.jit
    def draws():
        def one(carried, i):
            w, carried = next_draw(law, key, i, carried)
            return carried, w

        steps = first + jnp.arange(count)
        return jax.lax.scan(one, open_stream(law, key, steps[0]), steps)[1], jax.vmap(lambda i: law.sample(key, i))(
            steps
        )

    streamed, sampled = draws()
    _same(streamed, sampled, "the stream of draws and the draws by number differ")


def chunks_equal_the_whole(process: Process, state: Any, key: Any) -> None:
    """A run in chunks ends where a run in one piece does, and records the states where shorter runs end."""
    pieces = simulate(process, state, STEPS, key=key, record=lambda s, w, n: n, options=Options(chunk=5))
    for steps in (1, 5, 6, 14, STEPS):
        whole = simulate(process, state, steps, key=key).state
        recorded = jax.tree.map(lambda leaf, steps=steps: leaf[steps - 1], pieces.record)
        _same(whole, recorded, f"what is recorded after step {steps} is not where a run of so many steps ends")
    _same(whole, pieces.state, "chunks change where the run ends")


def a_resumed_run_equals_the_whole(process: Process, state: Any, key: Any) -> None:
    """Going on from where a run stopped, by its state or by a checkpoint, gives what one run gives."""
    whole = simulate(process, state, STEPS, key=key)
    half = simulate(process, state, 9, key=key)
    _same(whole.state, simulate(process, half.state, STEPS - 9, key=key, start=9).state, "going on from step 9 differs")
    kept: list[Any] = []
    simulate(process, state, STEPS, key=key, options=Options(chunk=10, checkpoint=kept.append))
    again = simulate(process, state, STEPS, key=key, options=Options(chunk=10), resume=kept[0])
    _same(whole.state, again.state, "going on from a checkpoint differs")


def a_fork_equals_its_original(process: Process, state: Any, key: Any) -> None:
    """A fork with nothing changed ends where the run did, replayed from the start or from a stored state."""
    for store in (None, 4):
        run = simulate(process, state, STEPS, key=key, options=Options(store=store))
        _same(run.state, fork(run, 10).state, f"a fork at step 10 (states stored every {store}) differs")


def a_member_equals_its_own_run(process: Process, state: Any, key: Any) -> None:
    """Each member of an ensemble is the run with its key, bit for bit."""
    state = settle(process, state, jax.random.key(0), loop.Batch())
    members = 5
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), state)
    runs = ensemble(process, states, STEPS, key=key)
    for m in (0, members - 1):
        own = simulate(process, state, STEPS, key=runs.key[m])
        _same(own.state, jax.tree.map(lambda leaf, m=m: leaf[m], runs.state), f"member {m} is not its own run")
    late = ensemble(process, states, STEPS, key=key, start=np.array([0, 1, 2, 30, 31]))
    own = simulate(process, state, STEPS, key=late.key[3], start=30)
    _same(own.state, jax.tree.map(lambda leaf: leaf[3], late.state), "a member with a start of its own differs")
    shared = ensemble(process, states, STEPS, key=key, noise="shared")
    _same(
        simulate(process, state, STEPS, key=key).state, jax.tree.map(lambda leaf: leaf[2], shared.state), "shared noise"
    )


def a_clamp_changes_nothing_by_itself(process: Process, state: Any, key: Any) -> None:
    """Clamped but unperturbed, a run equals the free run bit for bit, by names and by parts of the state."""
    state = settle(process, state, jax.random.key(0), loop.Batch())
    free = simulate(process, state, STEPS, key=key)
    w = process.noise.sample(jax.random.key(0), 0)
    first, last = (lambda s: jax.tree.leaves(s)[0]), (lambda s: jax.tree.leaves(s)[-1])
    names = tuple(sorted(node_names(process.step, state, w))[-2:])
    for part in (names, (first, last) if len(jax.tree.leaves(state)) > 1 else (first,)):
        if part:
            held = simulate(clamp(process, part), state, STEPS, key=key)
            _same(free.state, held.state, f"holding {part!r} changes the unperturbed run")


def response_is_the_derivative(process: Process, state: Any, key: Any) -> None:
    """A tangent is the limit of a difference, and `vjp` is the transpose of `jvp`."""
    if not process.smooth:
        with contextlib.suppress(ValueError):
            response(process, state, 3, key=key)
            raise AssertionError("a process that jumps must be refused")
        return
    state = settle(process, state, jax.random.key(0), loop.Batch())
    steps = 4
    r = response(process, state, steps, key=key)
    v = _directions(r.source.get(process, state), 1)
    unit, log_norm = r.jvp(v)
    c = _directions(unit, 2)
    back, log_back = r.vjp(c)
    forwards, backwards = _dot(unit, c) * np.exp(log_norm), _dot(back, v) * np.exp(log_back)
    scale = np.exp(log_norm) * np.sqrt(_dot(c, c)) + 1e-300
    assert abs(forwards - backwards) <= 1e-9 * scale, f"vjp is not the transpose of jvp: {forwards}, {backwards}"
    if np.finfo(jax.tree.leaves(unit)[0].dtype).eps > 1e-10 or np.isneginf(log_norm):
        return
    step = 1e-6

    def end(sign):
        moved = jax.tree.map(lambda a, b: a + sign * step * b, r.source.get(process, state), v)
        return r.read(simulate(process, r.source.selection.put(state, moved), steps, key=key).state)

    difference = jax.tree.map(lambda a, b: (a - b) / (2 * step), end(+1), end(-1))
    miss = jax.tree.map(lambda d, u: d - u * np.exp(log_norm), difference, unit)
    size = max(np.exp(float(log_norm)), np.sqrt(_dot(difference, difference)))
    assert np.sqrt(_dot(miss, miss)) <= 1e-4 * size, (
        f"the tangent is not the limit of a difference: {difference}, {unit}"
    )


def expectation_equals_the_mean(process: Process, state: Any, key: Any) -> None:
    """Where the noise can be integrated, the mean of many single steps agrees with the exact mean."""
    state = settle(process, state, jax.random.key(0), loop.Batch())

    def flat(s):
        leaves = [leaf for leaf in jax.tree.leaves(s) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]) if leaves else jnp.zeros(1)

    try:
        exact = process.noise.expectation(lambda w: flat(process.step(state, w)))
    except ValueError:
        return  # this law cannot be integrated, and says so
    members = 4000
    keys = jax.vmap(lambda m: jax.random.fold_in(jax.random.key(11), m))(jnp.arange(members))
    after = jax.jit(jax.vmap(lambda k: flat(process.step(state, process.noise.sample(k, 0)))))(keys)
    error = np.asarray(after).std(axis=0, ddof=1) / np.sqrt(members)
    z = np.abs(np.asarray(after).mean(axis=0) - exact) / np.maximum(error, 1e-12 * (1 + np.abs(exact)))
    assert np.all(z < WORST_Z), f"the exact mean of a step lies {z.max():.1f} standard errors from the sampled one"


LAWS: dict[str, Callable[[Process, Any, Any], None]] = {
    law.__name__: law
    for law in (
        same_key_same_numbers,
        streams_equal_samples,
        chunks_equal_the_whole,
        a_resumed_run_equals_the_whole,
        a_fork_equals_its_original,
        a_member_equals_its_own_run,
        a_clamp_changes_nothing_by_itself,
        response_is_the_derivative,
        expectation_equals_the_mean,
    )
}


def noise_laws() -> Any:
    """A hypothesis strategy: laws of noise of every kind, also combined."""
    from hypothesis import strategies as st

    from thalweg import noise

    whole = st.integers(1, 40)
    single = st.one_of(
        whole.map(noise.Choice),
        st.tuples(whole, st.integers(1, 4)).map(lambda a: noise.Choice(a[0], shape=a[1])),
        whole.flatmap(lambda n: st.integers(1, n).map(lambda b: noise.Choice(n, shape=b, replace=False))),
        whole.flatmap(lambda n: st.integers(1, n).map(lambda b: noise.Shuffle(n, b))),
        probabilities().map(lambda p: noise.Choice(len(p), p=p)),
        st.integers(1, 5).map(noise.Normal),
        st.integers(1, 5).map(noise.Uniform),
        st.just(noise.Nothing()),
    )
    return st.one_of(single, st.tuples(single, single), st.dictionaries(st.sampled_from("abc"), single, min_size=1))


def probabilities(most: int = 12) -> Any:
    """A hypothesis strategy: arrays of probabilities that sum to 1, zeros included."""
    from hypothesis import strategies as st

    weights = st.lists(st.floats(0, 1), min_size=1, max_size=most).filter(lambda w: sum(w) > 1e-3)
    return weights.map(lambda w: np.asarray(w) / np.sum(w))


def _plain(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf, tree
    )


def _same(a: Any, b: Any, message: str) -> None:
    a, b = _plain(loop.as_arrays(a)), _plain(loop.as_arrays(b))
    assert jax.tree.structure(a) == jax.tree.structure(b), f"{message} (in structure)"
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.array_equal(np.asarray(x), np.asarray(y), equal_nan=np.asarray(x).dtype.kind == "f"), message


def _directions(like: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), like)


def _dot(a: Any, b: Any) -> float:
    return float(sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))
