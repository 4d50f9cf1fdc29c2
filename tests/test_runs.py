"""Runs: records, folds, arrivals, shared noise, sweeps, forks, checkpoints, interruptions."""

import math
import os
import pathlib
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg import noise, processes, systems

KEY = jax.random.key(11)
WALK = tw.Process(lambda x, w: x + 2.0 * w - 1.0, noise.Choice(2))


def after(state, w, next_state):
    return next_state


def test_a_run_is_its_steps():
    run = tw.simulate(WALK, 0.0, 50, key=KEY, record=after)
    x, path = 0.0, []
    for i in range(50):
        x += 2 * int(WALK.noise.sample(KEY, i)) - 1
        path.append(x)
    assert run.record.tolist() == path
    assert float(run.state) == path[-1]
    assert (run.start, run.steps, run.status, run.ok) == (0, 50, tw.Status.OK, True)


def test_records_keep_the_last_of_every_so_many():
    whole = tw.simulate(WALK, 0.0, 40, key=KEY, record=after)
    for options in (None, tw.Options(chunk=12), tw.Options(chunk=3)):
        thin = tw.simulate(WALK, 0.0, 40, key=KEY, record=after, every=7, options=options)
        assert thin.record.tolist() == whole.record[6::7].tolist()


def test_no_steps_at_all():
    run = tw.simulate(WALK, 3.0, 0, key=KEY)
    assert float(run.state) == 3.0 and run.steps == 0


def test_folds_of_members_and_of_the_ensemble():
    mean = tw.Fold(init=lambda s: 0.0, update=lambda c, s, w, n: c + n, result=lambda c: c / 30)
    spread = tw.Fold(
        init=lambda s: jnp.zeros(()), update=lambda c, s, w, n: jnp.var(n), over="ensemble", result=jnp.sqrt
    )
    runs = tw.ensemble(WALK, jnp.zeros(200), 30, key=KEY, record=after, folds={"mean": mean, "spread": spread})
    assert runs.record.shape == (200, 30)
    assert np.allclose(runs.folds["mean"], runs.record.mean(axis=1))
    assert float(runs.folds["spread"]) == pytest.approx(runs.record[:, -1].std())


def test_a_fold_must_keep_its_shape():
    grows = tw.Fold(init=lambda s: jnp.zeros(1), update=lambda c, s, w, n: jnp.zeros(2))
    with pytest.raises(ValueError, match=r"fold 'g' must keep its shapes: init gave \(1,\), update \(2,\)"):
        tw.simulate(WALK, 0.0, 5, key=KEY, folds={"g": grows})


def test_the_walk_arrives_as_the_gambler_does():
    """From 0, the first exit from (-3, 7) takes 21 steps in the mean and is at 7 with probability 3/10."""
    runs = tw.ensemble(WALK, jnp.zeros(20_000), 2000, key=KEY, until=lambda x: (x <= -3) | (x >= 7))
    assert bool(jnp.all(runs.arrived))
    steps, won = np.asarray(runs.steps, float), np.asarray(runs.state) == 7
    assert abs(steps.mean() - 21) < 4 * steps.std() / math.sqrt(len(steps))
    assert abs(won.mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / len(won))


def test_members_freeze_where_they_arrive():
    runs = tw.ensemble(WALK, jnp.array([0.0, 5.0]), 100, key=KEY, until=lambda x: x >= 5, record=after)
    assert int(runs.steps[1]) == 0 and np.all(runs.record[1] == 5.0)
    first = int(runs.steps[0])
    assert np.all(runs.record[0, first - 1 :] == 5.0) and np.all(runs.record[0, : first - 1] < 5)


def test_shared_noise_moves_all_members_alike():
    runs = tw.ensemble(WALK, jnp.array([0.0, 10.0, -4.0]), 64, key=KEY, noise="shared")
    moved = np.asarray(runs.state) - [0.0, 10.0, -4.0]
    assert len(set(moved.tolist())) == 1
    alone = tw.ensemble(WALK, jnp.zeros(64), 64, key=KEY)
    assert len(set(np.asarray(alone.state).tolist())) > 5


@pytest.mark.parametrize("over", ["process", "both", "selector"])
def test_ensembles_over_the_process(over):
    rates = jnp.array([0.01, 0.02, 0.05])
    many = eqx.filter_vmap(systems.pit)(rates)
    if over == "selector":
        one = eqx.tree_at(lambda p: p.step.learning_rate, systems.pit(0.3), rates)
        runs = tw.ensemble(one, 1.007, 40, key=KEY, over=lambda p: p.step.learning_rate)
    else:
        states = jnp.full(3, 1.007) if over == "both" else 1.007
        runs = tw.ensemble(many, states, 40, key=KEY, over=over)
    for m, rate in enumerate(rates):
        own = tw.simulate(systems.pit(float(rate)), 1.007, 40, key=runs.key[m])
        assert own.state == runs.state[m]


def test_a_learning_rate_compiles_nothing_again():
    traced = []

    class Counted(eqx.Module):
        rate: float

        def __call__(self, x, w):
            traced.append(1)
            return x - self.rate * x

    def ask(rate):
        return tw.simulate(tw.Process(Counted(rate)), 1.0, 100).state

    ask(0.1)
    before = len(traced)
    ask(0.1)
    again = len(traced) - before  # looking at a process traces it; compiling traces it more
    table = tw.sweep(ask, rate=[0.2, 0.3, 0.4])
    assert len(traced) - before == 4 * again < 4 * before
    assert np.allclose(table.value, 0.8 ** np.array([100.0]) * [1, (0.7 / 0.8) ** 100, (0.6 / 0.8) ** 100])


def test_sweeps_label_estimates():
    table = tw.sweep(lambda a, b: tw.Estimate(a + b, 0.1 * a, tw.Status.OK), a=[1.0, 2.0], b=[10.0, 20.0, 30.0])
    assert table.value.dims == ("a", "b") and float(table.value.sel(a=2, b=30)) == 32
    assert float(table.error.sel(a=2, b=10)) == 0.2
    with pytest.raises(ValueError, match="at least one value"):
        tw.sweep(lambda a: a, a=[])


def test_on_chunk_sees_means_and_stops():
    seen = []

    def look(step, scalars):
        seen.append((step, scalars))
        return len(seen) < 3

    record = lambda s, w, n: {"x": n, "moved": jnp.abs(n - s)}  # noqa: E731
    run = tw.simulate(WALK, 0.0, 1000, key=KEY, record=record, on_chunk=look, options=tw.Options(chunk=100))
    assert [step for step, _ in seen] == [100, 200, 300]
    assert seen[0][1]["moved"] == 1.0 and seen[1][1]["x"] == pytest.approx(run.record["x"][100:200].mean())
    assert run.status == tw.Status.STOPPED and run.steps == 300 and "step 300" in run.message
    assert run.record["x"].shape == (300,)


def test_ctrl_c_leaves_what_was_done():
    def interrupt(step, scalars):
        if step == 200:
            raise KeyboardInterrupt

    run = tw.simulate(WALK, 0.0, 1000, key=KEY, record=after, on_chunk=interrupt, options=tw.Options(chunk=100))
    assert run.status == tw.Status.INTERRUPTED and run.steps == 200 and run.record.shape == (200,)
    assert run.state == tw.simulate(WALK, 0.0, 200, key=KEY).state


def test_divergence_is_said():
    explodes = tw.Process(lambda x, w: x**2)
    run = tw.simulate(explodes, 10.0, 5000)
    assert run.status == tw.Status.NOT_FINITE and not run.ok
    assert "not finite" in run.message and "smaller step size" in run.message
    some = tw.ensemble(explodes, jnp.array([10.0, 0.5]), 5000)
    assert some.status.tolist() == [tw.Status.NOT_FINITE, tw.Status.OK]


def test_checkpoints_hold_arrays_and_go_on():
    kept = []
    options = tw.Options(chunk=30, checkpoint=kept.append)
    fold = {"sum": tw.Fold(init=lambda s: 0.0, update=lambda c, s, w, n: c + n)}
    whole = tw.ensemble(WALK, jnp.zeros(4), 100, key=KEY, record=after, folds=fold, options=options)
    assert [c.step for c in kept] == [30, 60, 90, 100]
    assert all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(kept[1][1:]))
    again = tw.ensemble(
        WALK, jnp.zeros(4), 100, key=KEY, record=after, folds=fold, options=tw.Options(chunk=30), resume=kept[1]
    )
    assert np.array_equal(again.state, whole.state) and np.array_equal(again.record, whole.record)
    assert np.array_equal(again.folds["sum"], whole.folds["sum"])


def test_a_step_that_gives_a_weak_type_is_compiled_once(caplog):
    """`jnp.where(..., 1.0, -1.0)` is weakly typed: the second chunk would be another program than the first."""
    flip = tw.Process(lambda x, w: jnp.where(x > 0, -1.0, 1.0))
    with jax.log_compiles():
        run = tw.simulate(
            flip, 1.0, 40, folds={"last": tw.Fold(lambda x: 0, lambda c, x, w, y: 1)}, options=tw.Options(chunk=10)
        )
    assert float(run.state) == 1.0 and not run.state.weak_type
    assert sum("compilation of jit(advance)" in line for line in caplog.messages) == 1


def test_many_states_are_stacked_at_once_and_to_the_types_of_a_few():
    """100,000 small states: one program with an operand each would take minutes to compile."""
    states = [{"x": np.full(2, i, np.float32), "n": i} for i in range(100_000)]
    began = time.process_time()
    many = tw.stack(states)
    assert time.process_time() - began < 3  # some 0.3 s; with an operand each, beyond a minute
    assert many["x"].dtype == jnp.float32 and many["n"].dtype == jnp.int64
    assert np.array_equal(many["x"][:, 1], np.arange(100_000)) and np.array_equal(many["n"], np.arange(100_000))
    for items in ([1.0, np.float32(2)], [jnp.float32(1), 2, True], [jnp.asarray(1.0), jnp.int32(3)], [1j, 2]):
        expected, found = jnp.stack([jnp.asarray(item) for item in items]), tw.stack(items)
        assert found.dtype == expected.dtype and np.array_equal(found, expected)
    keys = list(jax.random.split(KEY, 3))
    assert np.array_equal(jax.random.key_data(tw.stack(keys)), jax.random.key_data(jnp.stack(keys)))
    assert jax.jit(lambda a, b: tw.stack([a, b]))(1.0, 2.0).tolist() == [1.0, 2.0]


def test_forks_of_members_and_of_data():
    x = jnp.array([1.0, 3.0, 8.0])
    loss = lambda p, d: (p - d) ** 2 / 2  # noqa: E731
    learner = processes.sgd(loss, x, 0.1)
    runs = tw.ensemble(learner, tw.stack([learner.init(0.0)] * 3), 50, key=KEY)
    twin = tw.fork(runs, 20, members=[2, 0])
    assert np.array_equal(twin.state.params, runs.state.params[np.array([2, 0])])
    # Without the third datum its steps are skipped, and every other step keeps its datum.
    without = processes.sgd(loss, x, 0.1, weights=[1, 1, 0])
    single = tw.simulate(learner, learner.init(0.0), 50, key=KEY, record=lambda s, w, n: w)
    p = 0.0
    for w in single.record:
        p = p if w == 2 else p - 0.1 * (p - float(x[w]))
    forked = tw.fork(single, 0, process=without)
    assert float(forked.state.params) == pytest.approx(p, abs=1e-14)


def test_a_batch_of_weight_zero_skips_the_optimizer_too():
    learner = processes.sgd(lambda p, d: p * d, jnp.array([1.0, 2.0]), optax.adam(0.1), weights=[0.0, 1.0])
    run = tw.simulate(learner, learner.init(0.0), 40, key=KEY, record=lambda s, w, n: (w, n.opt_state[0].count))
    w, count = run.record
    assert 0 < (w == 0).sum() < 40 and count[-1] == (w == 1).sum()


def test_forks_hold_a_clamp_at_the_values_of_the_run():
    loop = tw.Process(lambda s, w: s - 0.5 * tw.node(s, "control"))
    run = tw.simulate(loop, 1.0, 6, record=after)
    twin = tw.fork(run, 0, process=tw.clamp(loop, "control"), state=lambda s: s + 0.25, record=after)
    assert np.allclose(twin.record - run.record, 0.25)
    free = tw.fork(run, 0, state=lambda s: s + 0.25, record=after)
    assert np.allclose(free.record - run.record, 0.25 * 0.5 ** np.arange(1, 7))


def test_runs_inside_jit_and_vmap():
    def end(x):
        return tw.simulate(WALK, x, 20, key=KEY).state

    assert jax.jit(end)(1.0) == tw.simulate(WALK, 1.0, 20, key=KEY).state
    assert np.allclose(jax.vmap(end)(jnp.arange(3.0)), jnp.arange(3.0) + end(0.0))
    assert jax.grad(lambda x: tw.simulate(systems.linear_noise(0.5), x, 3, key=KEY).state)(1.0) != 0


def test_adam_is_optax_adam():
    target = jnp.array([1.0, -2.0])
    loss = lambda p: jnp.sum((p - target) ** 2)  # noqa: E731
    optimizer = optax.adam(0.05)
    learner = processes.gradient_descent(loss, optimizer)
    ours = tw.simulate(learner, learner.init(jnp.zeros(2)), 30).state.params
    params, memory = jnp.zeros(2), optimizer.init(jnp.zeros(2))
    for _ in range(30):
        updates, memory = optimizer.update(jax.grad(loss)(params), memory, params)
        params = optax.apply_updates(params, updates)
    assert np.allclose(ours, params, rtol=0, atol=1e-15)


def test_float32_stays_where_it_is_asked_for():
    code = (
        "import thalweg as tw; r = tw.simulate(tw.systems.pit(0.02), 1.0, 10, key=0); "
        "print(r.state.dtype); print(float(tw.response(tw.systems.pit(0.02), 1.0, 5, key=0).jvp().log_norm) > -9)"
    )
    for flag, dtype in (("0", "float32"), ("1", "float64")):
        assert _run_python(code, JAX_ENABLE_X64=flag) == [dtype, "True"]


def test_ensembles_spread_over_devices_to_the_same_bits():
    code = (
        "import jax, jax.numpy as jnp, numpy as np, thalweg as tw\n"
        "p = tw.systems.pit(0.02)\n"
        "assert len(jax.devices()) == 4\n"
        "run = lambda shard: tw.ensemble(p, jnp.full(64, 1.0), 100, key=3, options=tw.Options(shard=shard))\n"
        "one, many = run(False), run(True)\n"
        "print(len(many.state.sharding.device_set), np.array_equal(one.state, many.state))"
    )
    assert _run_python(code, XLA_FLAGS="--xla_force_host_platform_device_count=4") == ["4", "True"]


def test_sweeps_and_splitting_spread_over_devices_to_the_same_bits():
    code = (
        "import threading, jax, numpy as np, thalweg as tw\n"
        "walk = tw.Process(lambda x, w: x + 2.0 * w - 1.0, tw.noise.Choice(2))\n"
        "ask = lambda shard: tw.flow.splitting(walk, 0.0, lambda x: x, 5.0, 12, key=0, paths=40, kill=4, repeats=7,\n"
        "                                      options=tw.Options(shard=shard))\n"
        "one, many = ask(False), ask(True)\n"
        "print(np.array_equal(one.details['repeats'], many.details['repeats']) and one.error == many.error)\n"
        "here = []\n"
        "def f(rate):\n"
        "    run = tw.simulate(tw.systems.pit(rate), 1.0, 20, key=0)\n"
        "    here.append(str(next(iter(run.state.devices()))))\n"
        "    return run.state\n"
        "rates = [0.01, 0.02, 0.03, 0.04, 0.05]\n"
        "tables = [tw.sweep(f, rate=rates, options=tw.Options(shard=shard)) for shard in (False, True)]\n"
        "print(len(set(here[5:])), tables[0].equals(tables[1]))"
    )
    assert _run_python(code, XLA_FLAGS="--xla_force_host_platform_device_count=3") == ["True", "3", "True"]


def _run_python(code, **environment):
    """The words that a fresh interpreter prints."""
    source = str(pathlib.Path(tw.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.split()
