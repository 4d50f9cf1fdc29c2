"""Float64 is thalweg's default; it is switched on when the numerical part is first used."""

import os

import jax


def use_float64() -> None:
    """Switch JAX to float64, unless the environment variable `JAX_ENABLE_X64` says otherwise.

    Every numerical module calls this once. To keep float32, set `JAX_ENABLE_X64=0` before
    thalweg is first used.
    """
    if "JAX_ENABLE_X64" not in os.environ:
        jax.config.update("jax_enable_x64", True)
