"""How all benchmarks are timed and printed.

Contenders take turns in one process, so that whatever else the machine does meets all of them. A ratio is
the median of the ratios of each turn. The first call, which compiles, is told apart.

    times = alternate({"thalweg": f, "peer": g})
    show("Pit, 1,000 members", times, unit="steps/s", work=1000 * 20_000)
    target("thalweg / peer", times.ratio("thalweg", "peer"), most=1.1)
"""

import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Times:
    """Seconds by contender: `first` of the first call (compilation included), `each` of every later turn."""

    first: dict[str, float]
    each: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.each[name])

    def ratio(self, name: str, to: str) -> float:
        """How many times longer `name` takes than `to`: the median over the turns of their ratio."""
        return statistics.median(a / b for a, b in zip(self.each[name], self.each[to], strict=True))


def alternate(contenders: dict[str, Callable[[], Any]], turns: int = 9) -> Times:
    """Time functions without arguments, turn by turn. What they return is waited for, where JAX made it."""
    first = {name: _seconds(f) for name, f in contenders.items()}
    each: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(turns):
        for name in names if turn % 2 == 0 else reversed(names):
            each[name].append(_seconds(contenders[name]))
    return Times(first, each)


def _seconds(f: Callable[[], Any]) -> float:
    began = time.perf_counter()
    answer = f()
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready(answer)
    return time.perf_counter() - began


def show(title: str, times: Times, unit: str = "", work: float | None = None) -> None:
    """A table: seconds a turn, how long the first call took beyond that, and `work` a second."""
    best = min(times.each, key=times.median)
    print(f"\n{title}")
    print(f"  {'':<34}{'seconds':>10}{'x fastest':>11}{'compiling':>11}{unit or '':>16}")
    for name in times.each:
        seconds = times.median(name)
        compiling = max(0.0, times.first[name] - seconds)
        rate = f"{work / seconds:>16.3g}" if work else ""
        print(f"  {name:<34}{seconds:>10.4f}{times.ratio(name, best):>11.2f}{compiling:>11.2f}{rate}")


def target(what: str, measured: float, *, most: float | None = None, least: float | None = None) -> bool:
    """Print a figure beside its target; whether it is met."""
    met = (most is None or measured <= most) and (least is None or measured >= least)
    wanted = f"at most {most:g}" if most is not None else f"at least {least:g}"
    print(f"  {what}: {measured:.3g} (target {wanted}: {'met' if met else 'MISSED'})")
    return met


def peer(module: str) -> Any:
    """A peer's module, or `None` with a word where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        print(f"  ({module} is not installed: that comparison is skipped)")
        return None


ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}


def is_one_thread() -> bool:
    """Whether this process was started by `on_one_thread`."""
    return os.environ.get("THALWEG_BENCHMARK_THREADS") == "1"


def on_one_thread(file: str) -> None:
    """Run a benchmark once more in a process of its own that has one thread and, where possible, one processor."""
    environment = {**os.environ, **ONE_THREAD, "THALWEG_BENCHMARK_THREADS": "1"}
    pin = None
    if hasattr(os, "sched_setaffinity"):
        processor = max(os.sched_getaffinity(0))
        pin = lambda: os.sched_setaffinity(0, {processor})  # noqa: E731
    sys.stdout.flush()
    subprocess.run([sys.executable, file], env=environment, preexec_fn=pin, check=True)
