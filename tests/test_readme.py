"""What the README shows is run, as a reader would run it."""

import re
import shlex
import subprocess
import sys

import pytest

from readme import README, blocks, commands, files
from thalweg.cli import main


def test_each_python_example_runs_by_itself(tmp_path):
    each = "\n".join(f"exec({block!r}, {{}})" for block in blocks("python"))
    done = subprocess.run([sys.executable, "-c", each], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("line", commands())
def test_the_commands_run_and_print_what_is_shown(line, capsys, tmp_path, monkeypatch, own_module):
    monkeypatch.chdir(tmp_path)
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as left:
        main(shlex.split(line)[1:])
    assert left.value.code == 0
    printed, shown = capsys.readouterr().out.strip(), README.read_text(encoding="utf-8")
    assert printed and _without_digits(printed) in _without_digits(shown)


def _without_digits(text):
    """The last digits of a sampled number may be those of another machine."""
    return re.sub(r"[\d.]+", "#", text)


def test_the_files_it_points_to_exist():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (README.parent / target).is_file(), f"the README points to {target}, which does not exist"
