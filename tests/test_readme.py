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


def test_the_files_it_points_to_exist():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (README.parent / target).is_file(), f"the README points to {target}, which does not exist"
