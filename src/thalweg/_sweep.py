"""`sweep`: the same question over a grid of settings."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from thalweg._checkpoints import digest
from thalweg._edge import check_function, shown
from thalweg._items import each_of
from thalweg._loop import Options
from thalweg._results import Estimate, Status


def sweep(
    f: Callable[..., Any], *, options: Options | None = None, resume: bool = False, **values: Iterable[Any]
) -> Any:
    """Ask `f` at every combination of settings, and label the answers.

    Numbers that reach a process as leaves (a learning rate, a temperature) cause no new compilation.

    **Arguments**

    - `f`: takes the settings by name; gives a number, an array, an `Estimate`, or a dict of these.
    - `values`: for each setting, the values to try.
    - `options`: `Options`: `progress`, `checkpoint` (a folder, from which `resume=True` goes on), `shard` (over all
      devices, a thread each, so that `f` must bear being called from several; and over the processes of `tw.connect`).

    **Returns** an `xarray.Dataset` with a dimension for each setting. The variable is called `value`, or as
    in the dict; an `Estimate` adds `error` and `status` (`name_error`, `name_status` in a dict).

    >>> import thalweg as tw
    >>> table = tw.sweep(lambda a, b: a * b, a=[1, 2, 3], b=[10, 20])
    >>> float(table.value.sel(a=3, b=20))
    60.0
    """
    import xarray

    if not callable(f):
        raise TypeError(f"f must be a function of the settings, got {shown(f)}")
    if not values:
        raise ValueError("a sweep needs at least one setting with its values, such as learning_rate=[0.1, 0.2]")
    check_function(f, "f", ", ".join(values), by_name=True)
    for name, choices in values.items():
        if not isinstance(choices, Iterable):
            raise TypeError(f"{name} must be a list of values to try, got {shown(choices)}")
    grid = {name: list(choices) for name, choices in values.items()}
    for name, choices in grid.items():
        if not choices:
            raise ValueError(f"{name} must have at least one value to try, got none")
    settings = [dict(zip(grid, choice, strict=True)) for choice in itertools.product(*grid.values())]
    answers, status = each_of(
        len(settings),
        lambda number: _named(f(**settings[number])),
        "settings",
        options,
        identity={"settings": digest(repr(grid)), "function": getattr(f, "__qualname__", type(f).__name__)},
        resume=resume,
    )
    if status != Status.OK:
        raise KeyboardInterrupt(f"the sweep was stopped after {len(answers)} of {len(settings)} settings")
    if any(answer.keys() != answers[0].keys() for answer in answers):
        raise ValueError("f must give the same quantities for every setting")
    shape = tuple(len(choices) for choices in grid.values())
    variables = {}
    for name in answers[0]:
        parts = [np.asarray(answer[name]) for answer in answers]
        if any(part.shape != parts[0].shape for part in parts):
            raise ValueError(f"f must give {name} in the same shape for every setting, got {[p.shape for p in parts]}")
        axes = (*grid, *(f"{name}_axis{axis}" for axis in range(parts[0].ndim)))
        variables[name] = (axes, np.stack(parts).reshape(*shape, *parts[0].shape))
    return xarray.Dataset(variables, coords=grid)


def _named(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        return _spelled(answer, "value", "")
    return {name: value for key, item in answer.items() for name, value in _spelled(item, str(key), f"{key}_").items()}


def _spelled(item: Any, name: str, prefix: str) -> dict[str, Any]:
    if isinstance(item, Estimate):
        return {name: item.value, f"{prefix}error": item.error, f"{prefix}status": item.status}
    return {name: item}
