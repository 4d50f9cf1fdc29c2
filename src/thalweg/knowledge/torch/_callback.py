"""`callback`: a tally inside the Trainer of Hugging Face's transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from thalweg.knowledge.torch._tally import Tally

FILE = "tally.pt"


def callback(groups: int, labels: Callable[[dict[str, Any]], Any], **how: Any) -> Any:
    """A `TrainerCallback` that tallies, for `Trainer(..., callbacks=[callback(10, lambda inputs: inputs["topic"])])`.

    - `groups`: G. - `labels`: a function of the model's keyword inputs that gives the group of each datum (-1: none).
    - `how`: passed to `Tally`.

    After training, `callback.tally.result()` holds the tallies. A column that only `labels` uses has to reach the
    model: set `remove_unused_columns=False` and let `forward` accept it, or look the group up by something that does.
    Each checkpoint of the Trainer gets a file `tally.pt`, and `train(resume_from_checkpoint=...)` goes on from it, if
    the checkpoint lies in `output_dir`; otherwise the tally begins anew, and its note says from which step on.

    **Raises** `ImportError` where transformers is not installed.
    """
    if not callable(labels):
        raise TypeError(f"labels must be a function of the model's inputs, got {labels!r}")
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise ImportError(
            "this callback is for transformers, which is not installed: pip install transformers"
        ) from None

    class TallyCallback(TrainerCallback):
        """Attaches a tally when training begins, and sets the labels of every batch."""

        tally: Tally | None = None
        _handle: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            model = given["model"]
            self.tally = tally = Tally(model, given["optimizer"], groups, **how)
            if getattr(state, "global_step", 0):
                self._resume(tally, _folder(args, state) / FILE, state.global_step)

            def set_labels(module: Any, positional: tuple, inputs: dict[str, Any]) -> None:
                if module.training:
                    tally.labels = labels(inputs)

            self._handle = model.register_forward_pre_hook(set_labels, with_kwargs=True)

        def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.tally is not None and getattr(state, "is_world_process_zero", True):
                folder = _folder(args, state)
                folder.mkdir(parents=True, exist_ok=True)
                torch.save(self.tally.state_dict(), folder / FILE)

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.tally is not None:
                self.tally.remove()
                self._handle.remove()

        def _resume(self, tally: Tally, file: Path, step: int) -> None:
            if file.exists():
                tally.load_state_dict(torch.load(file, weights_only=True))
            else:
                tally.notes.add(f"begun at step {step} of the training: there was no {file}")

    return TallyCallback()


def _folder(args: Any, state: Any) -> Path:
    """Where the Trainer keeps the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
