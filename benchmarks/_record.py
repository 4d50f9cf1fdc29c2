"""Runs benchmarks and keeps what they print, with the date, the machine and the versions: `_record.py FILE ...`.

The site's page of benchmarks shows `results.json` as it stands in the repository. A benchmark that fails leaves what
was kept before.
"""

import ast
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")
PEERS = (
    "numba", "netket", "deeptime", "fplanck", "py-pde", "dit", "pynamicalsys", "rbms", "torch", "captum", "kronfluence",
    "scikit-learn",
)  # fmt: skip


def record(file: Path, results: Path = RESULTS) -> int:
    """Run one benchmark, show what it prints as it comes, and keep it; its exit status."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    command = [sys.executable, "-u", str(file)]
    lines = []
    # Only what it prints: warnings, which name files of this machine, go past to the terminal.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode == 0:
        kept = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
        kept[file.stem] = {
            "about": ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "",
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine(),
            "load_before": load,
            "versions": versions(),
            "output": "".join(lines).strip("\n"),
        }
        text = json.dumps(dict(sorted(kept.items())), indent=2, ensure_ascii=False)
        results.write_text(text + "\n", encoding="utf-8")
    return process.returncode


def machine() -> str:
    """The processor and how many of its cores may be used."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.is_file() else []  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores, {platform.system()}"


def versions() -> dict[str, str]:
    """Of Python, of thalweg and what it stands on, and of the peers that are installed."""
    found = {"python": platform.python_version()}
    for name in ("thalweg", "jax", "numpy", "scipy", *PEERS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(max([record(Path(name)) for name in sys.argv[1:]], default=0))
