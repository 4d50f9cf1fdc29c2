"""What is said in several places is said alike."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import thalweg as tw

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == tw.__version__
    assert re.search(rf"^## \[({re.escape(tw.__version__)}|Unreleased)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_every_public_name_is_there_when_asked_for():
    for name in tw.__all__:
        assert getattr(tw, name) is not None


def test_every_dependency_that_is_imported_is_declared():
    """A fresh environment has nothing that was not asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[]", line)[0].replace("-", "_") for line in project["dependencies"]}
    declared = {"sklearn" if name == "scikit_learn" else name for name in declared}
    # hypothesis: the strategies of thalweg.testing; transformers: the callback of its trainer.
    optional = {"torch", "zarr", "hypothesis", "transformers"}
    imported = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add((node.module or "").split(".")[0])
    foreign = imported - {"thalweg", *sys.stdlib_module_names}
    # matplotlib brings cycler, and jax its own lower half.
    assert foreign <= declared | optional | {"cycler", "ml_dtypes", "jaxlib"}, foreign - declared
