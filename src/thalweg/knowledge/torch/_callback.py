"""`callback`: a tally inside the Trainer of Hugging Face's transformers."""

from collections.abc import Callable
from typing import Any

from thalweg.knowledge.torch._tally import Tally


def callback(groups: int, labels: Callable[[dict[str, Any]], Any], **how: Any) -> Any:
    """A `TrainerCallback` that tallies, for `Trainer(..., callbacks=[callback(10, lambda inputs: inputs["topic"])])`.

    - `groups`: G. - `labels`: a function of the model's keyword inputs that gives the group of each datum (-1: none).
    - `how`: passed to `Tally`.

    After training, `callback.tally.result()` holds the tallies. A column that only `labels` uses has to reach the
    model: set `remove_unused_columns=False` and let `forward` accept it, or look the group up by something that does.

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

            def set_labels(module: Any, positional: tuple, inputs: dict[str, Any]) -> None:
                if module.training:
                    tally.labels = labels(inputs)

            self._handle = model.register_forward_pre_hook(set_labels, with_kwargs=True)

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.tally is not None:
                self.tally.remove()
                self._handle.remove()

    return TallyCallback()
