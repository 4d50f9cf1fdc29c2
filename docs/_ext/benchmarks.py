"""What `make bench` last kept in benchmarks/results.json, with date, machine and versions.

`{benchmark-table}` is the table of all, `{benchmarks}` what each printed.
"""

import json
import re
from pathlib import Path
from typing import Any

from docstrings import to_myst
from referee import _table, _Written

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.json"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("benchmarks", Benchmarks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class BenchmarkTable(_Written):
    """All benchmarks in a table."""

    def text(self) -> str:
        return table(_kept())


class Benchmarks(_Written):
    """A section a benchmark."""

    def text(self) -> str:
        self.env.note_dependency(str(RESULTS))
        return sections(_kept())


def _kept() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def table(kept: dict[str, dict[str, Any]]) -> str:
    """The kept results as one table."""
    if not kept:
        return "No results have been kept yet: `make bench` writes them."
    rows = [
        (f"[{name}](#{name.replace('_', '-')})", each["date"], each["machine"], _targets(each["output"]),
         f"`make bench BENCH={name}`")
        for name, each in kept.items()
    ]  # fmt: skip
    head = ("benchmark", "date", "machine", "targets", "to run it again")
    return _table("benchmarks", head, (15, 17, 28, 15, 25), rows)


def sections(kept: dict[str, dict[str, Any]]) -> str:
    """What each printed, and where."""
    parts = []
    for name, each in kept.items():
        used = ", ".join(f"{package} {version}" for package, version in each["versions"].items())
        load = "" if each.get("load_before") is None else f" Load of the machine before: {each['load_before']:.2f}."
        made = f"{each['date']}, {each['machine']}.{load} {used}."
        label = f"({name.replace('_', '-')})=\n## {name}"
        parts += [label, to_myst(each["about"]), made, f"```text\n{each['output']}\n```"]
    return "\n\n".join(parts)


def _targets(output: str) -> str:
    """How many of the targets that a benchmark states were met."""
    met, missed = len(re.findall(r": met\)", output)), len(re.findall(r": MISSED\)", output))
    return f"{met} of {met + missed} met" if met + missed else "none stated"
