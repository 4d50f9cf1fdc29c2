"""Foreign kernels: anything that takes a random key and a state."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from thalweg._edge import check_arrays, check_function, check_truth, shown
from thalweg._noise import Key
from thalweg._process import Process


def kernel(
    kernel: Callable[[Any, Any], Any],
    init: Callable[..., Any] | None = None,
    *,
    info: bool = False,
    smooth: bool = False,
) -> Process:
    """A kernel that draws for itself, as a process: `state' = kernel(key, state)`.

    **Arguments**

    - `kernel`: takes a key and a state, such as a blackjax kernel.
    - `init`: makes a state.
    - `info`: whether it gives back `(state, info)`, as blackjax kernels do; the information is dropped.
    - `smooth`: whether a tangent through it means anything; not where it accepts and rejects.

    >>> import jax, thalweg as tw
    >>> walk = tw.processes.kernel(lambda key, x: x + jax.random.rademacher(key, (), float))
    >>> abs(float(tw.simulate(walk, 0.0, 2, key=0).state)) in (0.0, 2.0)
    True
    """
    check_function(kernel, "kernel", "key, state")
    check_truth(info, "info")
    return Process(_Kernel(kernel, info), Key(), init, smooth=smooth)


class _Kernel(eqx.Module):
    kernel: Callable[[Any, Any], Any]
    info: bool = eqx.field(static=True)

    def __call__(self, state: Any, w: Any) -> Any:
        after = self.kernel(w, state)
        if self.info:
            if not isinstance(after, tuple | list) or len(after) != 2:
                raise ValueError(f"kernel must give (state, info) where info=True, got {shown(after)}: pass info=False")
            after = after[0]
        check_arrays(after, "kernel")
        return after
