"""How much memory a run will need: told before it starts, and refused where it cannot be had."""

import math
import os
from pathlib import Path
from typing import Any

import jax


def bytes_of(tree: Any) -> int:
    """What the arrays of a tree (or their shapes) take.

    >>> import numpy as np
    >>> bytes_of({"a": np.zeros((10, 2)), "b": np.zeros(3, np.int32)})
    172
    """
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def available() -> float:
    """Bytes that this machine can still give, infinity where it does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return math.inf


def in_words(count: float) -> str:
    """Bytes as a reader likes them.

    >>> in_words(2.5e9), in_words(300)
    ('2.5 GB', '300 B')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def check_memory(row: Any, rows: int, lanes: bool, limit: float | None) -> None:
    """Refuse a record that would not fit; joining its parts at the end takes it twice."""
    need = 2 * rows * bytes_of(row) / (2 if lanes else 1)
    most = available() if limit is None else float(limit)
    if need > most:
        raise ValueError(
            f"the record of {rows} rows needs {in_words(need)} of memory, more than the {in_words(most)} "
            f"{'at hand' if limit is None else 'allowed'}: record every so many steps (every=), fewer members, "
            "or less of the state"
        )
