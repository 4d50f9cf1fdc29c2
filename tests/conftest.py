"""What all tests share. Shapes and types in signatures are checked in tests only (see pyproject.toml)."""

import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def as_installed():
    """thalweg as a user has it, without the tests' type checks: for tests of what it says to bad input."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
