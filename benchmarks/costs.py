"""What is paid for chunks, records, folds, clamps and tangents, as ratios to the plain run."""

import contextlib
import io
import tempfile

import jax
import jax.numpy as jnp

import thalweg as tw
from _timing import alternate, is_one_thread, on_one_thread, show, target

CHUNKS = 20
LASTING = "progress and checkpoints"


def _contenders(run, response, steps, every):
    """`run(**watch)` gives a Run; `response()` a tangent carried along one, of the same length."""
    largest = tw.Fold(lambda s: _first(s), lambda m, s, w, n: jnp.maximum(m, _first(n)))
    folds = {"largest": largest}
    chunks = tw.Options(chunk=steps // CHUNKS)
    return {
        "plain": lambda: run(options=tw.Options(chunk=steps)).state,
        f"{CHUNKS} chunks": lambda: run(options=chunks).state,
        "until (never met)": lambda: run(options=tw.Options(chunk=steps), until=_never).state,
        "a fold": lambda: run(options=tw.Options(chunk=steps), folds=folds).state,
        "a record of every step": lambda: run(options=tw.Options(chunk=steps), record=_kept).record,
        f"a record of every {every}th": lambda: run(options=tw.Options(chunk=steps), record=_kept, every=every).record,
        "response.jvp": response,
    }


def _lasting(run):
    """With a progress line (to nowhere), and a folder of checkpoints that is due once in the run and at its end."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        return run(options=tw.Options(progress=True, checkpoint=folder)).state


def _first(state):
    return jax.tree.leaves(state)[0]


def _kept(state, w, after):
    return _first(after)


def _never(state):
    return _first(state) > 1e6


def pit(members=4096, steps=2000, every=50):
    process, key, states = tw.systems.pit(0.02), jax.random.key(0), jnp.full(members, 1.00745)
    keys = jax.vmap(lambda m: jax.random.fold_in(key, m))(jnp.arange(members))
    tangents = jax.jit(jax.vmap(lambda W, k: tw.response(process, W, steps, key=k).jvp(1.0)))
    run = lambda **watch: tw.ensemble(process, states, steps, key=key, **watch)  # noqa: E731
    return f"The pit, {members} members, {steps} steps", _contenders(run, lambda: tangents(states, keys), steps, every)


def lorenz(steps=100_000, every=50):
    process = tw.systems.lorenz(28.0)
    state = process.init(a=1, b=1, c=1)
    run = lambda **watch: tw.simulate(process, state, steps, **watch)  # noqa: E731
    tangent = lambda: tw.response(process, state, steps).jvp(1.0)  # noqa: E731
    clamped = lambda: tw.response(process, state, steps, clamp="a").jvp(1.0)  # noqa: E731
    contenders = {**_contenders(run, tangent, steps, every), "response.jvp, part a held": clamped}
    return f"Lorenz, one run of {steps} steps", contenders


def lasting():
    """Progress and checkpoints on runs of seconds: some 20 ms a run and a few a visit, whatever its length."""
    pit, lorenz = tw.systems.pit(0.02), tw.systems.lorenz(28.0)
    states, state = jnp.full(4096, 1.00745), lorenz.init(a=1, b=1, c=1)
    runs = {
        "The pit, 4096 members, 200,000 steps": lambda **watch: tw.ensemble(pit, states, 200_000, key=0, **watch),
        "Lorenz, one run of 60,000,000 steps": lambda **watch: tw.simulate(lorenz, state, 60_000_000, **watch),
    }
    for title, run in runs.items():
        times = alternate({"plain": lambda run=run: run().state, LASTING: lambda run=run: _lasting(run)}, turns=5)
        show(title, times)
        target(f"{LASTING} / plain", times.ratio(LASTING, "plain"), most=1.03)


def main() -> None:
    for title, contenders in (pit(), lorenz()):
        times = alternate(contenders)
        show(f"{title}, {'one thread' if is_one_thread() else 'all threads'}", times)
        for name in list(contenders)[1:]:
            print(f"  {name} / plain: {times.ratio(name, 'plain'):.2f}")
        each = 1e3 * (times.median(f"{CHUNKS} chunks") - times.median("plain")) / (CHUNKS - 1)
        print(f"  a chunk more costs {each:.2g} ms, whatever its length")
        target(f"{CHUNKS} chunks / plain", times.ratio(f"{CHUNKS} chunks", "plain"), most=1.05)
    lasting()


if __name__ == "__main__":
    if is_one_thread():
        main()
    else:
        on_one_thread(__file__)
