"""Runs that last: checkpoints, kills, divergence, records on disk, memory, progress, loggers."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import thalweg as tw
from thalweg import loggers, noise
from thalweg._items import each_of
from thalweg._progress import progress

WALK = tw.Process(lambda x, w: x + 2.0 * w - 1.0, noise.Choice(2))
SUM = {"sum": tw.Fold(init=lambda s: 0.0, update=lambda c, s, w, n: c + n)}


def after(state, w, next_state):
    return next_state


def ask(
    folder=None, *, resume=None, steps=60, stop_at=None, process=WALK, key=3, record=after, single=False, **options
):
    """A run with a checkpoint after every chunk of 10, stopped after a step by its own `on_chunk`."""
    options = tw.Options(**{"chunk": 10, "checkpoint": folder, "checkpoint_every": 0} | options)
    start = 0.5 if single else jnp.array([0.0, 1.0, 2.0])
    how = {"key": key, "record": record, "folds": SUM, "every": 5, "options": options, "resume": resume}
    look = None if stop_at is None else lambda step, scalars: step < stop_at
    return (tw.simulate if single else tw.ensemble)(process, start, steps, on_chunk=look, **how)


def same(a, b):
    assert np.array_equal(a.state, b.state) and np.array_equal(a.record, b.record)
    assert np.array_equal(a.folds["sum"], b.folds["sum"]) and np.array_equal(a.steps, b.steps)


@pytest.mark.parametrize("single", [False, True])
def test_a_stopped_run_goes_on_from_its_folder_to_equal_numbers(tmp_path, single):
    whole = ask(single=single)
    half = ask(tmp_path / "run", stop_at=30, single=single)
    assert int(np.max(half.steps)) == 30 and np.all(np.asarray(half.status) == tw.Status.STOPPED)
    same(ask(tmp_path / "run", resume=True, single=single), whole)
    same(ask(tmp_path / "run", resume=True, single=single), whole)  # a finished run is finished
    longer = ask(tmp_path / "run", resume=True, steps=80, single=single)
    same(longer, ask(steps=80, single=single))


def test_the_last_two_checkpoints_are_kept_and_nothing_else(tmp_path):
    ask(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir() if file.name != ".lock") == [
        "checkpoint-000000000000050.npz",
        "checkpoint-000000000000060.npz",
    ]


def test_without_a_checkpoint_resume_begins_and_with_one_a_new_run_is_refused(tmp_path):
    same(ask(tmp_path / "new", resume=True), ask())
    with pytest.raises(ValueError, match=r"holds a checkpoint of step 60: pass resume=True"):
        ask(tmp_path / "new")
    with pytest.raises(ValueError, match="resume=True needs a folder"):
        tw.simulate(WALK, 0.0, 5, key=0, resume=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"process": tw.Process(lambda x, w: x + 3.0 * w - 1.0, noise.Choice(2))},
            "folds something else|another process",
        ),
        (
            {"process": tw.Process(lambda x, w: x + 2.0 * w - 1.0, noise.Choice(3))},
            "folds something else|another process",
        ),
        ({"key": 4}, "another key"),
        ({"record": lambda s, w, n: 2 * n}, "records or folds something else"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, sentence):
    ask(tmp_path, stop_at=30)
    with pytest.raises(ValueError, match=sentence):
        ask(tmp_path, resume=True, **change)


def test_settings_tell_runs_apart(tmp_path):
    """A learning rate is a leaf of the process: the same code, another run."""
    run = lambda rate, resume: tw.simulate(  # noqa: E731
        tw.systems.pit(rate), 1.0, 20, key=0, options=tw.Options(chunk=10, checkpoint=tmp_path), resume=resume
    )
    run(0.02, None)
    with pytest.raises(ValueError, match="another process: its step or its settings differ"):
        run(0.03, True)


def test_another_version_is_refused(tmp_path, monkeypatch):
    ask(tmp_path, stop_at=30)
    monkeypatch.setattr(tw, "__version__", "9.9.9")
    with pytest.raises(ValueError, match=r"another version of thalweg \(.+, not 9\.9\.9\)"):
        ask(tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_torn_file_is_passed_over_or_refused(tmp_path, damage):
    whole = ask()
    ask(tmp_path, stop_at=40)
    older, newer = sorted(tmp_path.glob("checkpoint-*.npz"))

    def spoil(file):
        content = file.read_bytes()
        middle = len(content) // 2
        flipped = (
            content[:middle] + bytes(255 ^ byte for byte in content[middle : middle + 500]) + content[middle + 500 :]
        )
        file.write_bytes({"cut": content[:middle], "flip": flipped, "empty": b"", "text": b"hello"}[damage])

    spoil(newer)
    with pytest.warns(RuntimeWarning, match=r"going on from step 30 in its place"):
        same(ask(tmp_path, resume=True), whole)
    for file in tmp_path.glob("checkpoint-*.npz"):
        spoil(file)
    with pytest.raises(ValueError, match="no whole checkpoint is left"):
        ask(tmp_path, resume=True)
    assert older.name != newer.name


def test_two_runs_do_not_share_a_folder(tmp_path):
    def second(step, scalars):
        with pytest.raises(ValueError, match=rf"another run \(process {os.getpid()}\) writes into"):
            ask(tmp_path, resume=True)

    tw.simulate(WALK, 0.0, 20, key=0, on_chunk=second, options=tw.Options(chunk=10, checkpoint=tmp_path))


def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match="checkpoint must be a folder that can be written"):
        ask(tmp_path / "file")


def test_a_full_disk_stops_nothing_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    ask(tmp_path, stop_at=30)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(
        RuntimeWarning, match=r"step 60 could not be written .*No space left.* last checkpoint is of step 30"
    ):
        same(ask(tmp_path, resume=True, checkpoint_every=1e9), ask())
    monkeypatch.undo()
    assert not list(tmp_path.glob(".*.part"))
    same(ask(tmp_path, resume=True), ask())


@pytest.fixture
def minds_ctrl_c():
    """A shell that starts a job in the background has it ignore Ctrl-C, and the tests may be such a job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_and_sigterm_leave_a_checkpoint_and_a_partial_result(tmp_path, minds_ctrl_c):
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / str(int(number))

        def knock(step, scalars, number=number):
            if step == 20:
                signal.raise_signal(number)

        run = tw.simulate(
            WALK, 0.0, 100, key=0, on_chunk=knock, options=tw.Options(chunk=10, checkpoint=folder), record=after
        )
        assert run.status == tw.Status.INTERRUPTED and run.steps == 20 and run.record.shape == (20,)
        rest = tw.simulate(WALK, 0.0, 100, key=0, options=tw.Options(checkpoint=folder), record=after, resume=True)
        assert np.array_equal(rest.record, tw.simulate(WALK, 0.0, 100, key=0, record=after).record)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_divergence_names_the_step_and_the_quantity_and_keeps_the_last_good_state():
    def step(s, w):
        return {"fine": s["fine"] + 1.0, "grows": s["grows"] ** 2}

    run = tw.simulate(
        tw.Process(step),
        {"fine": 0.0, "grows": 10.0},
        5000,
        record=lambda s, w, n: n["grows"],
        options=tw.Options(chunk=64),
    )
    # 10^(2^8) is the last power that a float64 holds.
    assert run.status == tw.Status.NOT_FINITE and run.steps == 8
    assert float(run.state["grows"]) == pytest.approx(1e256) and float(run.state["fine"]) == 8.0
    assert run.record.shape == (8,) and np.all(np.isfinite(run.record))
    assert "state['grows'] is not finite" in run.message and "after step 8" in run.message


def test_a_record_that_does_not_fit_is_refused_before_the_run():
    with pytest.raises(ValueError, match=r"record of 1000 rows needs 48 kB of memory, more than the 10 kB allowed"):
        tw.ensemble(WALK, jnp.zeros(3), 1000, key=0, record=after, options=tw.Options(memory=10_000))
    with pytest.raises(ValueError, match=r"at hand: record every so many steps"):
        tw.ensemble(WALK, jnp.zeros(10**4), 10**12, key=0, record=after)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("single", [False, True])
def test_records_stream_to_disk_and_go_on_after_a_stop(tmp_path, suffix, single):
    if suffix == ".zarr":
        pytest.importorskip("zarr", reason="zarr is not installed")
    whole, target = ask(single=single), tmp_path / f"record{suffix}"
    half = ask(tmp_path / "run", stop_at=30, single=single, record_to=target)
    assert half.record.sizes["step"] == 6
    half.record.close()
    # More rows than the checkpoint knows of: what a kill leaves.
    run = ask(tmp_path / "run", resume=True, single=single, record_to=target)
    assert np.array_equal(run.record["record"], whole.record)
    assert run.record["step"].values.tolist() == list(range(5, 61, 5))
    run.record.close()
    with pytest.raises(ValueError, match="exists: name another file"):
        ask(single=single, record_to=target)


def test_a_record_on_disk_can_be_read_during_the_run(tmp_path):
    file, seen = tmp_path / "record.nc", []

    def look(step, scalars):
        with xarray.open_dataset(file, engine="h5netcdf") as data:
            seen.append(int(data.sizes["step"]))

    record = lambda s, w, n: {"x": n, "pair": jnp.stack([s, n])}  # noqa: E731
    run = tw.simulate(WALK, 0.0, 40, key=0, record=record, on_chunk=look, options=tw.Options(chunk=10, record_to=file))
    assert seen == [10, 20, 30, 40] and run.record["pair"].dims == ("step", "pair_axis0")
    assert np.array_equal(run.record["pair"][:, 1], run.record["x"])
    with pytest.raises(ValueError, match=r"record_to must be a path that ends in \.zarr or \.nc"):
        tw.Options(record_to="record.txt")


def test_json_lines_hold_each_step_once_also_after_a_kill(tmp_path):
    file = tmp_path / "log" / "run.jsonl"
    steps = lambda: [json.loads(line)["step"] for line in file.read_text().splitlines()]  # noqa: E731
    quiet = tw.simulate(WALK, 0.0, 60, key=0, record=after, options=tw.Options(chunk=10))
    options = tw.Options(chunk=10, checkpoint=tmp_path / "run", checkpoint_every=1e9)
    log = loggers.json_lines(file)
    tw.simulate(WALK, 0.0, 30, key=0, record=after, on_chunk=log, options=options)
    log(40, {"record": 1.0})  # beyond the checkpoint, as a kill may leave it
    with file.open("a") as open_file:
        open_file.write('{"step": 50, "rec')
    run = tw.simulate(
        WALK, 0.0, 60, key=0, record=after, on_chunk=loggers.json_lines(file), options=options, resume=True
    )
    assert steps() == [10, 20, 30, 40, 50, 60]
    assert np.array_equal(run.record, quiet.record)
    (tmp_path / "other.txt").write_text("my notes\n")
    with pytest.raises(ValueError, match="holds something else"):
        loggers.json_lines(tmp_path / "other.txt")


def test_writers_of_others_get_scalars():
    class Writer:
        def __init__(self):
            self.seen, self.step = [], 30

        def add_scalar(self, name, value, step):
            self.seen.append((name, value, step))

        def log(self, scalars, step):
            self.seen.append((scalars, step))

    board, wandb = Writer(), Writer()
    log = loggers.tensorboard(board)
    log(10, {"loss": 1.0})
    log(10, {"loss": 2.0})
    assert board.seen == [("loss", 1.0, 10)]
    log = loggers.weights_and_biases(wandb)
    log(20, {"loss": 1.0})  # sent before the run was resumed
    log(40, {"loss": 2.0})
    assert wandb.seen == [({"loss": 2.0}, 40)]
    for adapter in (loggers.tensorboard, loggers.weights_and_biases):
        with pytest.raises(TypeError, match="must have"):
            adapter(object())


def test_progress_tells_rate_time_left_and_estimate(capsys, monkeypatch):
    monkeypatch.setattr("thalweg._progress.QUIET", 0.0)
    tw.simulate(WALK, 0.0, 40, key=0, record=after, options=tw.Options(chunk=20, progress=True))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("steps 20 of 40 (50%), ") and " left" in lines[0] and "record = " in lines[-1]
    assert "±" in lines[-1]
    tw.simulate(WALK, 0.0, 40, key=0, options=tw.Options(chunk=20))
    assert capsys.readouterr() == ("", "")


def test_progress_counts_what_this_run_made(capsys, monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("thalweg._progress.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("thalweg._progress.QUIET", 0.0)
    with progress(True, 200, "seeds", begun=100) as tell:
        tell(150)
    assert capsys.readouterr().err == "seeds 150 of 200 (75%), 5 a second, 10 s left\n"


def test_the_digest_of_a_run_is_the_same_in_another_process(tmp_path):
    """Else no run could be resumed after a kill."""
    code = (
        "import sys, thalweg as tw, jax, optax\n"
        "net = tw.systems.perceptron((4, 3, 2), activation='softplus', loss='mse')\n"
        "data = (jax.random.normal(jax.random.key(1), (8, 4)), jax.random.normal(jax.random.key(2), (8, 2)))\n"
        "p = tw.processes.sgd(net.loss, data, optax.adam(1e-3), batch_size=2)\n"
        "options = tw.Options(chunk=5, checkpoint=sys.argv[1])\n"
        "start = p.init(net.init(jax.random.key(0)))\n"
        "run = tw.simulate(p, start, int(sys.argv[2]), key=0, options=options, resume=True)\n"
        "print(run.steps, sum(float(x.sum()) for x in jax.tree.leaves(run.state.params)).hex())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(tw.__file__).parents[1])}

    def run(folder, steps):
        command = [sys.executable, "-c", code, str(folder), str(steps)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    run(tmp_path / "a", 10)
    assert run(tmp_path / "a", 20) == run(tmp_path / "b", 20)


def test_keys_in_a_state_come_back(tmp_path):
    draws = tw.Process(lambda s, w: {"key": w, "x": s["x"] + jax.random.normal(w)}, noise.Key())
    start = {"key": jax.random.key(5), "x": 0.0}
    options = tw.Options(chunk=10, checkpoint=tmp_path)
    tw.simulate(draws, start, 20, key=1, options=options)
    again = tw.simulate(draws, start, 40, key=1, options=options, resume=True)
    assert again.state["x"] == tw.simulate(draws, start, 40, key=1).state["x"]


def squares(folder=None, *, resume=False, stop_at=None, shift=0, count=6, **options):
    """A job of pieces that is stopped by hand in the middle of one."""
    calls = []

    def one(number):
        if number == stop_at:
            raise KeyboardInterrupt
        calls.append(number)
        return {"square": np.array(number**2 + shift), "row": np.arange(number)}

    options = tw.Options(checkpoint=folder, checkpoint_every=0, **options)
    found, status = each_of(count, one, "pieces", options, identity={"shift": shift}, resume=resume)
    return [int(answer["square"]) for answer in found], [len(answer["row"]) for answer in found], status, calls


def test_a_job_of_pieces_goes_on_where_it_was_stopped(tmp_path):
    found, _, status, _ = squares(tmp_path, stop_at=4)
    assert found == [0, 1, 4, 9] and status == tw.Status.INTERRUPTED
    found, rows, status, calls = squares(tmp_path, resume=True)
    assert found == [0, 1, 4, 9, 16, 25] and rows == list(range(6)) and status == tw.Status.OK and calls == [4, 5]
    with pytest.raises(ValueError, match=r"another shift \(0, not 1\)"):
        squares(tmp_path, resume=True, shift=1)
    with pytest.raises(ValueError, match="resume=True needs a folder"):
        squares(resume=True)


def test_splitting_and_sweeps_go_on_to_equal_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("thalweg._progress.QUIET", 0.0)
    ask = lambda repeats, **how: tw.flow.splitting(  # noqa: E731
        WALK, 0.0, lambda x: x, 10.0, 10, key=0, paths=200, kill=20, repeats=repeats, **how
    )
    options = tw.Options(checkpoint=tmp_path / "splitting", progress=True)
    ask(3, options=options)
    again = ask(5, options=options, resume=True)
    assert np.array_equal(again.details["repeats"], ask(5).details["repeats"]) and again.ok
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("repeats 1 of 3") and "repeats 4 of 5" in told[3] and "P = " in told[-1]
    with pytest.raises(ValueError, match="another score"):
        tw.flow.splitting(WALK, 0.0, lambda x: 2 * x, 10.0, 10, key=0, paths=200, kill=20, options=options, resume=True)

    asked = []

    def f(a, b):
        asked.append((a, b))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return tw.Estimate(a + b, 0.1)

    how = {"a": [1, 2, 3], "b": [10, 20], "options": tw.Options(checkpoint=tmp_path / "sweep")}
    with pytest.raises(KeyboardInterrupt, match="stopped after 3 of 6 settings"):
        tw.sweep(f, **how)
    table = tw.sweep(f, **how, resume=True)
    assert table.value.values.tolist() == [[11, 21], [12, 22], [13, 23]] and len(asked) == 7


def test_a_watched_fit_goes_on_to_equal_numbers(tmp_path, monkeypatch):
    from thalweg.energy.boltzmann import _fit

    data = (np.random.default_rng(0).random((60, 5)) < [0.9, 0.1, 0.5, 0.7, 0.3]).astype(float)

    def ask(**how):
        return tw.energy.fit(
            tw.energy.RBM.start(data, 3), data[:40], epochs=12, every=3, validation=data[40:], batch_size=10, **how
        )

    whole, watched, calls = ask(), _fit.log_likelihood, []

    def interrupted(*given, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return watched(*given, **settings)

    options = tw.Options(checkpoint=tmp_path, checkpoint_every=0)
    monkeypatch.setattr(_fit, "log_likelihood", interrupted)
    assert ask(options=options).status == tw.Status.INTERRUPTED
    monkeypatch.undo()
    again = ask(options=options, resume=True)
    assert again.history["step"].tolist() == [12, 24, 36, 48] and again.steps == whole.steps
    assert again.history["log_likelihood"].tolist() == whole.history["log_likelihood"].tolist()
    assert np.array_equal(again.model.weights, whole.model.weights)
    with pytest.raises(ValueError, match="another process"):
        ask(options=options, resume=True, optimizer=0.1)


def test_a_localization_goes_on_to_equal_numbers(tmp_path, monkeypatch):
    from thalweg.knowledge import _localize

    digits, model = tw.systems.digits(keep=(1, 7, 6, 8)), tw.systems.perceptron((64, 6, 2))
    ask = lambda **how: tw.knowledge.localize(  # noqa: E731
        model, digits, phase1=200, forks=200, seeds=2, permutations=19, key=3, **how
    )
    whole, trained, calls = ask(), _localize._train, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*given)

    options = tw.Options(checkpoint=tmp_path)
    monkeypatch.setattr(_localize, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped after 1 of 2 networks"):
        ask(options=options)
    again = ask(options=options, resume=True)
    assert len(calls) == 3
    for name in ("r", "p", "accuracy", "heatmap", "ablation", "control"):
        assert np.array_equal(getattr(again, name), getattr(whole, name), equal_nan=True), name
