"""What the README shows is run, as a reader would run it."""

import re
import shlex
import subprocess
import sys

import pytest

from readme import README, commands, files, python_example
from thalweg.cli import main


def test_the_python_example_runs(tmp_path):
    done = subprocess.run([sys.executable, "-c", python_example()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("line", commands())
def test_the_commands_run(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as left:
        main(shlex.split(line)[1:])
    assert left.value.code == 0
    assert capsys.readouterr().out.strip()


def test_the_page_on_long_runs_runs(tmp_path):
    """Its examples are one program; the part for several processes needs no second one to be tried."""
    text = (README.parent / "docs" / "running.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    code = "\n".join(block for block in blocks if "tw.connect()" not in block)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run").is_dir() and (tmp_path / "sweep" / "0.nc").is_file()


def test_the_files_it_points_to_exist():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (README.parent / target).is_file(), f"the README points to {target}, which does not exist"
