"""Float64 is thalweg's default, from its import on."""

import os
import sys


def use_float64() -> None:
    """Switch JAX to float64, unless the environment variable `JAX_ENABLE_X64` says otherwise.

    `import thalweg` calls this once. JAX is not loaded for it: where it is not loaded yet, it reads the variable when
    it is. To keep float32, set `JAX_ENABLE_X64=0` before thalweg is imported.
    """
    if "JAX_ENABLE_X64" not in os.environ:
        os.environ["JAX_ENABLE_X64"] = "1"
        if "jax" in sys.modules:
            sys.modules["jax"].config.update("jax_enable_x64", True)
