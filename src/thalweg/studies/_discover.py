"""Finds studies and systems by reading their files without importing them: `thalweg list` answers at once."""

import ast
import difflib
import hashlib
import re
from pathlib import Path
from typing import Any

from thalweg.studies._study import ROOMS, Study

_HERE = Path(__file__).parent


def list_studies() -> list[Study]:
    """All studies of the package: by room, the headline first, then by name."""
    studies = [study for path in sorted(_HERE.glob("[!_]*.py")) if (study := _read(path)) is not None]
    rooms = list(ROOMS)
    return sorted(studies, key=lambda study: (rooms.index(study.room), not study.headline, study.name))


def find(name: str) -> Study:
    """The study of this name, or the one in this file if `name` ends in `.py`.

    **Raises** `ValueError` naming the nearest study if there is none of that name.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"there is no study file {name}")
        study = _read(path)
        if study is None:
            raise ValueError(f"{name} is not a study: it needs ROOM, SECONDS and a function run(size, ...)")
        return study
    studies = {study.name: study for study in list_studies()}
    if name in studies:
        return studies[name]
    raise ValueError(f"there is no study {name!r}; {nearest(name, studies)}")


def nearest(name: str, known: Any) -> str:
    """The end of a sentence that helps with a name that is not known."""
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are: {', '.join(sorted(known))}" if known else "there are none yet"


def list_systems() -> list[tuple[str, str]]:
    """Name and first docstring line of every system in `thalweg.systems`.

    What goes with a system and bears its name (`pit_losses` with `pit`) is left out, unless it is a Process itself.
    """
    folder = _HERE.parent / "systems"
    if not (folder / "__init__.py").is_file():
        return []
    table = _constants(_tree(folder / "__init__.py")).get("_NAMES", {})
    found = []
    for module, names in table.items():
        tree = _tree(folder / f"{module}.py")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                belongs = any(node.name.startswith(f"{name}_") for name in names)
                if not belongs or _returns_process(node):
                    found.append((node.name, _first_line(node)))
    return sorted(found)


def made_from(study: Study) -> str:
    """A digest of the code behind a study: its file, the studies that it imports from, and the package without them."""
    package = _HERE.parent
    files = [path for path in sorted(package.rglob("*.py")) if path.parent != _HERE or path.name.startswith("_")]
    own = [study.path]
    for path in own:  # grows on the way
        named = re.findall(r"^from thalweg\.studies\.(\w+) import", path.read_text(encoding="utf-8"), re.MULTILINE)
        imported = [_HERE / f"{name}.py" for name in named]
        own += [other for other in imported if other not in [*own, *files] and other.is_file()]
    found = hashlib.sha256()
    for path in [*own, *files]:
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)} ".encode() + content)
    return found.hexdigest()[:16]


def _read(path: Path) -> Study | None:
    """The description of the study in a file, or None if the file is no study."""
    tree = _tree(path)
    constants = _constants(tree)
    runs = any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body)
    if not (runs and "ROOM" in constants):
        return None
    if constants["ROOM"] not in ROOMS:
        raise ValueError(f"ROOM of {path.name} must be one of {', '.join(ROOMS)}, got {constants['ROOM']!r}")
    if not isinstance(constants.get("SECONDS"), int | float):
        raise ValueError(f"{path.name} must state SECONDS, its time for the quick size as a number")
    title = _first_line(tree)
    if not title:
        raise ValueError(f"{path.name} must open with a docstring: its first line is what `thalweg list` prints")
    return Study(
        name=path.stem,
        title=title,
        room=constants["ROOM"],
        seconds=float(constants["SECONDS"]),
        headline=bool(constants.get("HEADLINE", False)),
        path=path,
    )


def _returns_process(node: ast.FunctionDef | ast.ClassDef) -> bool:
    returns = getattr(node, "returns", None)
    return returns is not None and "Process" in ast.unparse(returns)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _constants(tree: ast.Module) -> dict[str, Any]:
    """The module's names that are set to plain literals."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def _first_line(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    lines = (ast.get_docstring(node) or "").splitlines()
    return lines[0].strip().rstrip(".") if lines else ""
