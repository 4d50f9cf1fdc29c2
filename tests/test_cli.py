"""The command: what it prints, how it fails, how fast it answers."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import thalweg as tw
from thalweg.cli import main

TOY = str(Path(__file__).parent / "studies" / "toy.py")


@pytest.fixture
def call(capsys):
    """Calls the command; gives exit status, stdout, stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return call


def test_help_names_every_command(call):
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    for command in ("list", "run", "report", "show", "stats", "flow"):
        assert f" {command} " in out


COMMANDS = ["run", "report", "show", "stats", "list", "flow", "flow escape", "energy train", "energy score"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(call, command):
    status, out, _ = call(*command.split(), "--help")
    assert status == 0
    assert f"Usage: thalweg {command}" in out


def test_help_needs_no_jax():
    code = (
        "import sys\n"
        "from thalweg.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'jax', 'numpy', 'xarray', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_study_is_run_with_a_setting(call, tmp_path):
    status, out, err = call("run", TOY, "--set", "steps=25", "--set", "names=a,b", "--out", str(tmp_path))
    assert (status, err) == (0, "")
    assert "published: 5 (a textbook)" in out
    assert "names: a b" in out
    status, out, _ = call("show", str(tmp_path / "toy" / "walks.nc"))
    assert status == 0
    assert "variable walk (member 200, step 25) position [1]" in out


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["lst"], 2, "there is no command 'lst'; did you mean 'list'?"),
        (["flow", "escpe", "pit"], 2, "there is no command 'escpe'; did you mean 'escape'?"),
        (["run"], 2, "requires an argument"),
        (["run", "nonsense"], 2, "there is no study 'nonsense'"),
        (["run", TOY, "--sise", "quick"], 2, "Did you mean --size?"),
        (["run", TOY, "--size", "huge"], 2, '"huge"'),
        (["run", TOY, "--set", "steps"], 2, "--set wants name=value, got 'steps'"),
        (["run", TOY, "--set", "step=2"], 2, "no setting 'step'; did you mean 'steps'?"),
        (
            ["run", TOY, "--set", "fail=yes"],
            1,
            "RuntimeError: the walk <b>fell</b> over (--debug shows where)",
        ),
        (["show", "nowhere.nc"], 2, "there is no file nowhere.nc"),
        (["flow", "escape", "pit", "--steps", "many"], 2, "many"),
    ],
)
def test_errors_are_one_sentence_on_stderr(call, arguments, status, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left, out, err = call(*arguments)
    assert left == status
    assert out == ""
    assert err.startswith("thalweg: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_debug_shows_the_traceback(by, tmp_path, monkeypatch):
    if by == "environment":
        monkeypatch.setenv("THALWEG_DEBUG", "1")
    flag = ["--debug"] if by == "flag" else []
    with pytest.raises(RuntimeError, match="fell"):
        main(["run", TOY, "--set", "fail=yes", "--out", str(tmp_path), *flag])


def test_a_report_with_a_failing_study_leaves_with_status_one(call, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "thalweg.report.make_report", lambda size, out, **how: (out / "index.html", {"toy": "it fell over"})
    )
    status, out, err = call("report", "--out", str(tmp_path))
    assert status == 1
    assert "index.html" in out
    assert err == "thalweg: study toy did not finish: it fell over\n"


@pytest.mark.skipif(importlib.util.find_spec("thalweg.stats") is None, reason="stats comes next")
def test_a_series_is_analysed_and_drawn(call, tmp_path):
    np.savetxt(tmp_path / "energy.txt", np.random.default_rng(0).normal(3, 0.1, 4000))
    status, out, err = call("stats", str(tmp_path / "energy.txt"), "--plot", str(tmp_path / "blocking.png"))
    assert (status, err) == (0, "")
    assert out.startswith("mean ")
    assert "2.9985 ± 0.0016" in out
    assert (tmp_path / "blocking.png").stat().st_size > 5000


@pytest.mark.skipif(importlib.util.find_spec("thalweg.stats") is None, reason="stats comes next")
def test_a_series_that_is_none_is_refused(call, tmp_path):
    (tmp_path / "words.txt").write_text("no numbers here\n")
    for arguments in ([str(tmp_path / "words.txt")], [str(tmp_path / "missing.csv")]):
        status, out, err = call("stats", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_the_version(call):
    assert call("--version")[1].strip() == tw.__version__
