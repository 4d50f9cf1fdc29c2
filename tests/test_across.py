"""One ensemble on several devices and on several processes."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import pytest

import thalweg as tw

_RUN = """
import os, signal, sys, numpy as np, thalweg as tw
index, count, port, killed_at = map(int, sys.argv[1:5])
folder = sys.argv[5] or None
if count > 1:
    tw.connect(f"127.0.0.1:{port}", count, index)
import jax.numpy as jnp
fold = {"sum": tw.Fold(init=lambda s: 0.0, update=lambda c, s, w, n: c + n)}
def look(step, scalars):
    if index == 1 and step == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
options = tw.Options(shard=True, chunk=50, checkpoint=folder, checkpoint_every=0)
run = tw.ensemble(tw.systems.pit(0.02), jnp.full(7, 1.0075), 400, key=3, record=lambda s, w, n: n, every=10,
                  until=lambda s: s >= 1.9, folds=fold, options=options, on_chunk=look, resume=folder is not None)
print("answer", run.record.shape, np.asarray(run.state).tobytes().hex(), run.record.sum().hex(),
      np.asarray(run.folds["sum"]).tobytes().hex(), run.steps.tolist(), run.arrived.tolist(), run.status.tolist())
"""


_WALKERS = """
import os, signal, sys, numpy as np, thalweg as tw
index, count, port, killed_at = map(int, sys.argv[1:5])
folder = sys.argv[5] or None
if count > 1:
    tw.connect(f"127.0.0.1:{port}", count, index)
def look(step, scalars):
    if index == 1 and step == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
options = tw.Options(shard=True, checkpoint=folder, checkpoint_every=0)
found = tw.energy.ground_state(tw.energy.HarmonicTrap(2, 2, 1.0), jastrow=True, key=1, walkers=128, moves=3, steps=60,
                               tol=1e-3, on_stride=look, options=options, resume=folder is not None)
print("answer", float(found.energy).hex(), found.energy.error, float(found.history["energy"][-1]).hex(),
      np.asarray(found.measurement.samples).tobytes().hex()[:4000])
"""


def start(count, folder="", killed_at=-1, devices=1, run=_RUN):
    """The processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(pathlib.Path(tw.__file__).parents[1]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", run, str(index), str(count), str(port), str(killed_at), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def answers(processes):
    printed = [process.communicate(timeout=240) for process in processes]
    found = [[line for line in out.splitlines() if line.startswith("answer")] for out, _ in printed]
    assert all(len(lines) == 1 for lines in found), printed
    return [lines[0] for lines in found]


@pytest.fixture(scope="module")
def undisturbed():
    (answer,) = answers(start(1))
    return answer


def test_two_processes_give_the_numbers_of_one(undisturbed):
    assert answers(start(2, devices=2)) == [undisturbed] * 2


def test_a_lost_process_is_told_in_the_same_words_wherever_it_is_noticed(monkeypatch):
    """At a barrier of all processes, and within a run whose walkers are spread."""
    from jax._src import distributed

    from thalweg import _across, _strides

    def lost(*_, **__):
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: Task 1 heartbeat timeout. More of that.")

    process, state, key = tw.systems.pit(0.02), jnp.ones(2), jax.random.key(0)
    monkeypatch.setattr(distributed.global_state, "client", types.SimpleNamespace(wait_at_barrier=lost))
    monkeypatch.setattr(_strides, "simulate", lost)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    over = lambda s, place: place(s)  # noqa: E731
    spread = lambda folder: _strides.spread_run(process, state, 1, key, over, folder=folder)  # noqa: E731
    for wait in (lambda folder: _across.all_say(True, folder), spread):
        with pytest.raises(RuntimeError) as told:
            wait("there")
        assert str(told.value) == (
            "another process of this run was lost (process 1 gives no sign of life); the checkpoints are in there: "
            "go on with resume=True on those that are left"
        )
        with pytest.raises(RuntimeError, match=r"no sign of life\)$"):
            wait(None)


@pytest.mark.slow
def test_when_a_process_is_killed_the_other_says_so_and_one_process_goes_on(undisturbed, tmp_path):
    both = start(2, folder=tmp_path, killed_at=200)
    began = time.monotonic()
    _, told = both[0].communicate(timeout=240)
    both[1].communicate()
    assert both[1].returncode == -signal.SIGKILL
    assert time.monotonic() - began < 75, "a minute from the kill, and the start before it"
    assert both[0].returncode != 0
    assert "another process of this run was lost (process 1 gives no sign of life)" in told
    assert f"the checkpoints are in {tmp_path}: go on with resume=True" in told
    assert answers(start(1, folder=tmp_path)) == [undisturbed]


@pytest.mark.slow
def test_walkers_over_two_processes_as_over_two_devices_and_on_after_one_is_killed(tmp_path):
    """The same two devices, in one process or one in each of two: equal bits. One is killed: the other says so."""
    (whole,) = answers(start(1, devices=2, run=_WALKERS))
    assert answers(start(2, run=_WALKERS)) == [whole] * 2
    both = start(2, folder=tmp_path, killed_at=40, run=_WALKERS)
    began = time.monotonic()
    _, told = both[0].communicate(timeout=240)
    both[1].communicate()
    assert both[1].returncode == -signal.SIGKILL and both[0].returncode != 0
    assert time.monotonic() - began < 90, "a minute from the kill, and the start before it"
    assert "another process of this run was lost" in told and "go on with resume=True" in told
    assert answers(start(1, folder=tmp_path, devices=2, run=_WALKERS)) == [whole]
