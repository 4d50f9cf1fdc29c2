"""Imports run one way: core -> processes -> rooms -> systems -> plot, testing, studies -> report, cli."""

import ast
import subprocess
import sys
from pathlib import Path

import thalweg

PACKAGE = Path(thalweg.__file__).parent
HERE = {path.stem for path in PACKAGE.iterdir()}
ROOMS = ("flow", "knowledge", "steering", "energy")
LAYERS = [
    ("stats", "noise", "loggers"),
    ("processes",),
    ROOMS,
    ("systems",),
    ("plot", "testing", "studies"),
    ("report", "cli", "__main__"),
]
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}


def _part(dotted: str) -> str:
    """The folder or file directly under the package that a dotted name lies in."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


def _layer(part: str) -> int:
    """The underscored files, stats and noise are the core."""
    return 0 if part.startswith("_") and part != "__main__" else LAYER[part]


def _imports() -> list[tuple[Path, str, str]]:
    """(file, its part, the part it imports), for every import in the package, at the top or inside a function."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if file == PACKAGE / "__init__.py":
            continue
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "thalweg":
                names = [f"thalweg.{alias.name}" for alias in node.names if alias.name in HERE]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [(file, own, _part(name)) for name in names if name.startswith("thalweg.")]
    return found


def test_no_import_runs_against_the_arrows():
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {part}" for file, own, part in _imports() if _layer(part) > _layer(own)
    ]
    assert not wrong, wrong


def test_rooms_do_not_import_one_another():
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {part}"
        for file, own, part in _imports()
        if own in ROOMS and part in ROOMS and part != own
    ]
    assert not wrong, wrong


def test_nothing_but_the_report_and_the_command_imports_studies():
    wrong = [
        f"{file.relative_to(PACKAGE)}"
        for file, own, part in _imports()
        if part == "studies" and own not in ("studies", "report", "cli")
    ]
    assert not wrong, wrong


def test_every_import_was_seen():
    """The test above would hold for an empty list too."""
    assert ("report", "studies") in {(own, part) for _, own, part in _imports()}


def test_importing_thalweg_is_light():
    """The whole package costs less than jax alone, because it loads on first use."""
    code = "import sys, thalweg; print({'jax', 'numpy', 'scipy', 'xarray', 'matplotlib', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
