"""What all tests share. Shapes and types in signatures are checked in tests only (see pyproject.toml)."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
# Tests compile many equal programs, from functions that are made anew each time: what was compiled once is read back
# from disk. Each worker has a folder of its own, since the files are not written in one piece.
CACHE = Path(__file__).parents[1] / ".cache" / "jax" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


@pytest.fixture
def as_installed():
    """thalweg as a user has it, without the tests' type checks: for tests of what it says to bad input."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def own_module():
    """A user's `mine.py` is read anew, and forgotten after: Python would go on with that of another test."""
    import sys

    sys.modules.pop("mine", None)
    yield
    sys.modules.pop("mine", None)


@pytest.fixture(autouse=True, scope="module")
def forget():
    """Compiled programs of one file are of no use to the next, and a worker's memory would grow by gigabytes."""
    yield
    import sys

    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
