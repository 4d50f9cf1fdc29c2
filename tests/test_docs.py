"""The parts of the site that can be tried without building it. `make docs` runs its examples and looks at the rest."""

import ast
import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

import thalweg

ROOT = Path(__file__).parents[1]
PACKAGE = Path(thalweg.__file__).parent


def load(path: str):
    """A module of docs/_ext or .ci, which are no packages."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module


@pytest.fixture(scope="module")
def to_latex():
    return load("docs/_ext/formulas.py").to_latex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("log p~(v) - log Z", r"\log \tilde{p}(v) - \log Z"),
        ("W' = W - learning_rate * g_j(W)", r"W^{\prime} = W -\ \text{learning rate}\ \cdot g_{j}(W)"),
        ("(F + ridge I)^{-1} v", r"(F +\ \text{ridge}\ I)^{-1} v"),
        ("grad = <d log p~>_data", r"\nabla = \langle d \log \tilde{p}\rangle _{\text{data}}"),
        ("rate = sqrt(det Z_B / |det Z_S|)", r"\text{rate}\ = \sqrt{\det Z_{B} / |\det Z_{S}|}"),
        ("E[H_i S H_i] <= 1e-3", r"E[H_{i} S H_{i}] \le 1 \cdot 10^{-3}"),
        ("sum_{i<j} v(r_ij)", r"\sum_{i < j} v(r_{ij})"),
    ],
)
def test_a_formula_becomes_latex(to_latex, text, latex):
    assert to_latex(text) == latex


@pytest.mark.parametrize(
    "text",
    ["tw.simulate(process, 1.0)", "resume=True", '"every"', "target > start", "log_free", "make test",
     "path/to/file.py", "lambda s: s.room", "NO_CUSP", "s = rule.init(params)", "on_chunk(step, scalars)", "(n, d)"],
)  # fmt: skip
def test_code_stays_code(to_latex, text):
    assert to_latex(text) is None


def test_a_docstring_becomes_a_page():
    to_myst = load("docs/_ext/docstrings.py").to_myst
    text = """A sentence with `x^2` and `k`.

    - `k`: one. - `other`: two, minus `a - b`.
    **Returns** `Run`.

    >>> 1 + 1
    2
    """
    assert to_myst(text, ["k"], {"Run": "tw.Run"}.get) == (
        "A sentence with $x^{2}$ and `k`.\n\n- `k`: one.\n- `other`: two, minus $a - b$.\n\n"
        "**Returns** {py:obj}`Run <tw.Run>`.\n\n```pycon\n>>> 1 + 1\n2\n```"
    )


def test_every_public_name_stands_once_in_the_reference():
    found = []
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for module, names in re.findall(r"^```\{api\} (\S+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            found += [f"{module}.{name}" for name in names.split()]
    assert len(found) == len(set(found)), sorted(name for name in found if found.count(name) > 1)
    assert set(found) == _public_names()


def _public_names() -> set[str]:
    wanted = set()
    for module in ("", ".noise", ".processes", ".stats", ".flow", ".steering", ".knowledge", ".energy", ".systems"):
        loaded = importlib.import_module(f"thalweg{module}")
        values = {name: getattr(loaded, name) for name in loaded.__all__}
        wanted |= {f"thalweg{module}.{name}" for name, value in values.items() if callable(value)}
    # Without PyTorch its door can be read, but not opened.
    door = ast.parse((PACKAGE / "knowledge" / "torch" / "__init__.py").read_text())
    table = next(node.value for node in door.body if isinstance(node, ast.Assign) and node.targets[0].id == "_NAMES")
    wanted |= {f"thalweg.knowledge.torch.{name}" for names in ast.literal_eval(table).values() for name in names}
    for module in ("plot", "loggers", "testing"):
        tree = ast.parse((PACKAGE / f"{module}.py").read_text())
        wanted |= {
            f"thalweg.{module}.{node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        }
    for module in ("studies", "report"):
        loaded = importlib.import_module(f"thalweg.{module}")
        wanted |= {f"thalweg.{module}.{name}" for name in loaded.__all__ if callable(getattr(loaded, name))}
    return wanted


def test_what_is_broken_in_a_site_is_found(tmp_path):
    problems = load(".ci/check_site.py").problems
    (tmp_path / "index.html").write_text(
        '<a href="there.html#here">x</a><a href="https://example.org">a link that one may follow</a><img src="a.png">'
    )
    (tmp_path / "there.html").write_text('<p id="here">x</p><img src="data:image/png;base64,">')
    (tmp_path / "a.png").write_bytes(b"")
    assert problems(tmp_path) == []
    (tmp_path / "there.html").write_text('<script src="https://cdn.example.org/x.js"></script><img src="b.png">')
    (tmp_path / "style.css").write_text("@import url(https://fonts.example.org/a);")
    assert [sentence.split()[-1] for sentence in problems(tmp_path)] == ["place", "network", "exist", "network"]


def test_benchmarks_are_kept_with_date_and_machine(tmp_path):
    import json

    record = load("benchmarks/_record.py").record
    good, bad, results = tmp_path / "quick.py", tmp_path / "wrong.py", tmp_path / "results.json"
    good.write_text(
        '"""What is timed."""\nimport subprocess, sys, warnings\nwarnings.warn("of this machine")\n'
        'subprocess.run([sys.executable, "-c", "raise RuntimeWarning"])\n'
        'print("a / b: 1.1 (target at most 2: met)")'
    )
    bad.write_text('"""Nothing."""\nraise SystemExit(3)')
    assert (record(good, results), record(bad, results)) == (0, 3)
    kept = json.loads(results.read_text())
    assert list(kept) == ["quick"]
    assert kept["quick"]["output"] == "a / b: 1.1 (target at most 2: met)"
    assert kept["quick"]["about"] == "What is timed." and "jax" in kept["quick"]["versions"]


def test_cold_starts_are_timed_with_bytecode_as_an_installed_package_has_it(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    child = load("benchmarks/cold_start.py").python("-c", "import sys; print(sys.dont_write_bytecode)")
    assert child.stdout.strip() == "False"


def test_a_page_becomes_a_notebook():
    as_notebook = load("docs/_ext/notebooks.py").as_notebook
    page = (
        "---\nkernelspec: x\n---\n\n# Title\n\nSee [there](there.md), [far](https://far.org).\n\n"
        "```{code-cell} ipython3\n:tags: [hide-cell]\n\nx = 1\n```\n\nEnd.\n"
    )
    first, code, last = as_notebook(page)["cells"]
    assert (
        first["source"].startswith("# Title\n\n*All that") and "See there, [far](https://far.org)." in first["source"]
    )
    assert (code["source"], code["metadata"]) == ("x = 1", {"tags": ["hide-cell"]}) and last["source"] == "End."


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "tutorials").glob("[!i]*.md")), ids=lambda page: page.stem)
def test_a_tutorial_reads_as_a_notebook(page):
    """Its code parses, and its words are plain: what only Sphinx understands would be left standing in a notebook."""
    cells = load("docs/_ext/notebooks.py").as_notebook(page.read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            ast.parse(cell["source"])
        else:
            assert not re.search(r"```\{|\{[a-z-]+\}`|^:::", cell["source"], re.MULTILINE), cell["source"]
    assert sum("assert" in cell["source"] for cell in cells if cell["cell_type"] == "code") >= 1
