"""Runs the studies one after the other and writes the page, whatever becomes of a single study."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from thalweg._progress import progress
from thalweg._saving import versions
from thalweg.report._page import write_page
from thalweg.studies._discover import list_studies, made_from
from thalweg.studies._run import SIZES, describe, run_study, write_json
from thalweg.studies._study import Study


def make_report(
    size: str = "quick",
    out: str | Path = "report",
    studies: Sequence[Study] | None = None,
    workers: int = 1,
    *,
    resume: bool = False,
    progress: bool = False,
) -> tuple[Path, dict[str, str]]:
    """Run all studies (or the given ones) into the folder `out` and write `out`/index.html.

    With several `workers`, so many studies run side by side, each worker a process of its own. `progress` is a bar on a
    terminal, and elsewhere a line a minute. A study that fails is shown on the page with its error and does not stop
    the rest; Ctrl-C skips what is left and still writes the page. With `resume`, studies that the folder holds already,
    finished in this size, are not run again, unless their code, that of thalweg or a package behind it has changed
    since; with `progress` that is told.

    Returned: the page, and the studies that did not finish with a sentence each.
    """
    if size not in SIZES:
        raise ValueError(f"size must be 'quick' or 'full', got {size!r}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"out must be a folder, but {out} is a file")
    studies = list_studies() if studies is None else list(studies)
    out.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    held = {study.name: told for study in studies if (told := _finished(study, size, out))} if resume else {}
    left = [study for study in studies if study.name not in held or _has_changed(study, held[study.name])]
    again = [study.name for study in left if study.name in held]
    if progress and again:
        print(f"run again, since the code behind them has changed: {', '.join(again)}", file=sys.stderr)
    with (_Bar if sys.stderr.isatty() else _Lines)(progress, left) as shown:
        try:
            for study, took, error in _side_by_side(left, size, out, workers, shown.begin):
                left.remove(study)
                if error:
                    failed[study.name] = error
                    _write_failure(study, size, took, error, out)
                shown.end(study)
        except KeyboardInterrupt:
            for study in left:
                failed[study.name] = "interrupted by hand"
                _write_failure(study, size, 0.0, failed[study.name], out)
    return write_page(out, [study.name for study in studies], size), failed


def _side_by_side(
    studies: Sequence[Study], size: str, out: Path, workers: int, begin: Callable[[Study], None]
) -> Iterator[tuple[Study, float, str]]:
    """Each study, the seconds it took, and what went wrong, in the order in which they end."""
    if workers == 1:
        for study in list(studies):
            begin(study)
            yield study, *_attempt(study, size, out)
        return
    longest_first = sorted(studies, key=lambda study: -study.seconds)
    # A fresh interpreter each: JAX's threads do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_attempt, study, size, out): study for study in longest_first}
        try:
            for done in as_completed(running):
                study = running[done]
                begin(study)
                try:
                    yield study, *done.result()
                except BrokenExecutor:
                    yield study, 0.0, "its process ended, perhaps for want of memory: run it alone with thalweg run"
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _attempt(study: Study, size: str, out: Path) -> tuple[float, str]:
    """The seconds that a study took, and what went wrong, if anything did."""
    start = time.perf_counter()
    try:
        run_study(study, size, out=out)
    except Exception as problem:
        if os.environ.get("THALWEG_DEBUG", "0") not in ("", "0"):
            raise
        return time.perf_counter() - start, sentence(problem)
    return time.perf_counter() - start, ""


def sentence(problem: BaseException) -> str:
    """An error as one line: its kind, unless it is a refusal in words of our own, and what it says."""
    text = " ".join(str(problem).split()) or "no reason given"
    text = text if len(text) <= 500 else f"{text[:497]}..."
    return text if isinstance(problem, ValueError) else f"{type(problem).__name__}: {text}"


def _write_failure(study: Study, size: str, took: float, error: str, out: Path) -> None:
    folder = out / study.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "claims.json").unlink(missing_ok=True)  # of an earlier run: it would pass for this one's
    write_json(folder / "study.json", describe(study, size, took) | {"error": error})


def _finished(study: Study, size: str, out: Path) -> dict[str, Any] | None:
    """What the folder tells of this study, if it was finished there in this size."""
    try:
        told = json.loads((out / study.name / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = told.get("size") == size and "error" not in told and (out / study.name / "claims.json").exists()
    return told if whole else None


def _has_changed(study: Study, told: dict[str, Any]) -> bool:
    return told.get("made_from") != made_from(study) or told.get("versions") != versions()


class _Lines:
    """A line a minute, for a log."""

    def __init__(self, wanted: bool, studies: Sequence[Study]) -> None:
        self.line = progress(wanted, len(studies), "studies")
        self.done = 0

    def __enter__(self) -> "_Lines":
        self.tell = self.line.__enter__()
        return self

    def __exit__(self, *why: Any) -> None:
        self.line.__exit__(*why)

    def begin(self, study: Study) -> None:
        self.tell(self.done, f"now {study.name}")

    def end(self, study: Study) -> None:
        self.done += 1
        self.tell(self.done, f"{study.name} ended")


class _Bar:
    """A bar that advances by the seconds the studies state."""

    def __init__(self, wanted: bool, studies: Sequence[Study]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self.total = sum(study.seconds for study in studies)
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} s"),
            TimeElapsedColumn(),
            console=console,
            disable=not wanted,
            transient=True,
        )

    def __enter__(self) -> "_Bar":
        self.bar.start()
        self.task = self.bar.add_task("starting", total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, study: Study) -> None:
        self.bar.update(self.task, description=f"{study.room}: {study.name}")

    def end(self, study: Study) -> None:
        self.bar.advance(self.task, study.seconds)
