"""Where a run's scalars go: adapters for `on_chunk=`. None of them changes a number of the run.

>>> import pathlib, tempfile, thalweg as tw
>>> walk = tw.Process(lambda x, w: x + 2.0 * w - 1.0, tw.noise.Choice(2))
>>> file = pathlib.Path(tempfile.mkdtemp(), "run.jsonl")
>>> _ = tw.simulate(walk, 0.0, 100, key=0, record=lambda x, w, y: y, on_chunk=tw.loggers.json_lines(file))
>>> file.read_text().splitlines()[-1].startswith('{"step": 100, "record": ')
True
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Logger = Callable[[int, dict[str, float]], None]


def json_lines(path: str | os.PathLike) -> Logger:
    """One line of JSON a chunk: `{"step": 500, "loss": 0.31}`.

    A run that is resumed appends; steps that the file already holds are not written again.

    **Raises** `ValueError` for a path that cannot be written, or a file that holds something else.
    """
    path = Path(path)
    last = _last_step(path)

    def log(step: int, scalars: dict[str, float]) -> None:
        nonlocal last
        if step <= last:
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        last = step

    return log


def tensorboard(writer: Any) -> Logger:
    """Scalars to a TensorBoard writer: anything with `add_scalar(name, value, step)`.

    Such writers come with PyTorch (`torch.utils.tensorboard.SummaryWriter(folder)`) and with tensorboardX.
    Give a resumed run its old folder and, as `purge_step`, the step that it goes on from.
    """
    if not callable(getattr(writer, "add_scalar", None)):
        raise TypeError(f"writer must have add_scalar(name, value, step), got {type(writer).__name__}")
    last = -1

    def log(step: int, scalars: dict[str, float]) -> None:
        nonlocal last
        if step > last:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            last = step

    return log


def weights_and_biases(run: Any) -> Logger:
    """Scalars to a Weights & Biases run, as `wandb.init(...)` gives it.

    For a resumed run, `wandb.init(id=..., resume="must")`: what its server already has is not sent again.
    """
    if not callable(getattr(run, "log", None)):
        raise TypeError(f"run must have log(scalars, step=...), got {type(run).__name__}")
    last = int(getattr(run, "step", 0) or 0) - 1

    def log(step: int, scalars: dict[str, float]) -> None:
        nonlocal last
        if step > last:
            run.log(dict(scalars), step=step)
            last = step

    return log


def _last_step(path: Path) -> int:
    """The last step in a file of JSON lines; a line that a kill cut short is taken off."""
    if path.is_dir():
        raise ValueError(f"path must be a file, but {path} is a folder: name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                file.truncate(len(whole))
    except OSError as problem:
        raise ValueError(f"cannot write {path}: {problem.strerror or problem}") from None
    lines = whole.splitlines()
    if not lines:
        return -1
    try:
        return int(json.loads(lines[-1])["step"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} holds something else than lines of a run: name another file") from None
