"""The test-time check of shapes works, also in modules that load late, and can be switched off."""

import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError, jaxtyped

import thalweg as tw
from shapes import check


@jaxtyped(typechecker=check)
def trace(matrix: Float[np.ndarray, "n n"], scale: float = 1.0) -> Float[np.ndarray, ""]:
    return np.asarray(scale * np.trace(matrix))


def test_a_wrong_shape_is_caught_and_a_plain_type_is_not():
    assert trace(np.eye(2), scale=2) == 4
    with pytest.raises(TypeCheckError, match="matrix"):
        trace(np.ones((2, 3)))


def test_it_is_on_in_the_package():
    """Without this, every shape in a signature would be a comment."""
    assert hasattr(tw.Estimate.short, "__wrapped__")
    assert hasattr(tw.plot.curve, "__wrapped__")


def test_it_is_off_where_bad_input_is_tested(as_installed):
    assert trace(np.ones((2, 3))) == 2
