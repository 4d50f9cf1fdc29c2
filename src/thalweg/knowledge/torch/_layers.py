"""Each group's gradient of a layer's parameters, from the layer's input and the gradient of its output.

A layer's parameters meet a datum where the layer is used. There its gradient is a product of what went in and the
gradient of what came out, summed over the rows of the batch: so the rows of each group give the group's gradient, and
the groups' gradients sum to the layer's. One backward pass, the user's own, serves all groups.

Every function here is called as `gradients(layer, inputs, cotangent, rows, add)`: `rows` tells which rows of an array
belong to which group, and `add(parameter, group, gradient)` takes the result, or `add(parameter, parts, a, b)` for
gradients `a^T b`, where `parts` are the groups and their rows of `a` and `b`, or `add(parameter, None, gradients)` for
those of all groups.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Add = Callable[..., None]


class NoBatch(ValueError):
    """The rows of a layer are not those of the labels."""


class Rows:
    """The groups of a batch: labels (batch,), or (batch, tokens), in 0..groups, where `groups` is none."""

    def __init__(self, labels: Tensor, groups: int):
        self.labels = labels
        self.present = torch.unique(labels).tolist()
        self.groups = groups
        self.met = False  # whether a layer has these rows
        self._sorted: dict[Any, tuple[Tensor, list[tuple[int, slice]]]] = {}

    def of(self, array: Tensor, lead: int) -> Tensor:
        """The group of each row of an array, whose first `lead` axes are rows."""
        labels, shape = self.labels.to(array.device), tuple(array.shape[:lead])
        if tuple(labels.shape) != shape[: labels.ndim]:
            raise NoBatch(
                f"labels must lead like the batch: got shape {tuple(labels.shape)}, for a layer whose rows are {shape}"
            )
        return labels.reshape(*labels.shape, *[1] * (lead - labels.ndim)).expand(shape)

    def split(self, lead: int, *arrays: Tensor) -> Any:
        """(group, rows of each array) for each group present; arrays become (rows, ...)."""
        parts, *flat = self.sorted(lead, *arrays)
        for group, part in parts:
            yield group, *(array[part] for array in flat)

    def sorted(self, lead: int, *arrays: Tensor) -> Any:
        """The groups present with their rows, and the arrays as (rows, ...), sorted by group."""
        first = arrays[0]
        flat = [array.flatten(0, lead - 1) if lead > 1 else array for array in arrays]
        if len(self.present) == 1:
            self.of(first, lead)
            return [(self.present[0], slice(0, len(flat[0])))], *flat
        order, parts = self._order(first, lead)
        return parts, *(array.index_select(0, order) for array in flat)

    def sums(self, lead: int, array: Tensor, dtype: torch.dtype) -> Tensor:
        """The sum of each group's rows, (G + 1, ...)."""
        flat = array.flatten(0, lead - 1) if lead > 1 else array
        found = flat.new_zeros((self.groups + 1, *flat.shape[1:]), dtype=dtype)
        return found.index_add_(0, self.of(array, lead).reshape(-1), flat.to(dtype))

    def _order(self, array: Tensor, lead: int) -> tuple[Tensor, list[tuple[int, slice]]]:
        shape = (tuple(array.shape[:lead]), array.device)
        if shape not in self._sorted:
            flat = self.of(array, lead).reshape(-1)
            order = torch.argsort(flat, stable=True)
            counts = torch.bincount(flat, minlength=self.groups + 1).tolist()
            parts, start = [], 0
            for group, count in enumerate(counts):
                if count:
                    parts.append((group, slice(start, start + count)))
                start += count
            self._sorted[shape] = order, parts
        return self._sorted[shape]


def _linear(layer: nn.Module, x: Tensor, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    lead = cotangent.ndim - 1
    transposed = type(layer).__name__ == "Conv1D"  # as GPT-2 of Hugging Face stores it: (inputs, units)
    parts, xs, ds = rows.sorted(lead, x.to(cotangent.dtype)[..., ::stride], cotangent)
    add("weight", parts, *((xs, ds) if transposed else (ds, xs)))
    if layer.bias is not None:
        add("bias", None, rows.sums(lead, cotangent, _wide(cotangent)))


def _wide(array: Tensor) -> torch.dtype:
    return torch.float32 if array.dtype in (torch.bfloat16, torch.float16) else array.dtype


def _convolution(layer: Any, x: Tensor, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    spatial = len(layer.kernel_size)
    if x.ndim == spatial + 1:
        raise ValueError(f"a {type(layer).__name__} without a batch axis cannot be tallied: pass a batch of one")
    transposed = layer.transposed
    padding = layer.padding
    if isinstance(padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x, padding = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode), (0,) * spatial
    wide = _wide(cotangent)
    for group, xs, ds in rows.split(1, x.to(cotangent.dtype), cotangent):
        gradient = torch.ops.aten.convolution_backward(
            ds.to(wide),
            xs.to(wide),
            layer.weight.to(wide),
            None,
            layer.stride,
            padding,
            layer.dilation,
            transposed,
            layer.output_padding,
            layer.groups,
            [False, True, False],
        )[1]
        add("weight", group, gradient[:, ::stride])
        if layer.bias is not None:
            add("bias", group, ds.sum((0, *range(2, ds.ndim)), dtype=wide))


def _embedding(layer: nn.Embedding, index: Tensor, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    if layer.padding_idx is not None:
        cotangent = cotangent * (index != layer.padding_idx).unsqueeze(-1)
    shape = (layer.num_embeddings, cotangent[..., ::stride].shape[-1])
    for group, ids, ds in rows.split(index.ndim, index, cotangent[..., ::stride]):
        found = torch.zeros(shape, dtype=_wide(ds), device=ds.device)
        add("weight", group, found.index_add_(0, ids, ds.to(found.dtype)))


def _normalisation(layer: Any, x: Tensor, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    """Scale and shift: the output is `weight * normalised + bias`."""
    wide = _wide(cotangent)
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        lead = x.ndim - len(layer.normalized_shape)
        by_rows = functional.layer_norm if isinstance(layer, nn.LayerNorm) else functional.rms_norm
        normal = by_rows(x.to(wide), layer.normalized_shape, eps=layer.eps)
        total = lambda array: array.sum(0)  # noqa: E731
    else:
        # Channels are the second axis. In a batch norm a row's part is not one datum's, but the rows still sum.
        lead, wide = 1, torch.promote_types(_wide(cotangent), x.dtype)
        total = lambda array: array.sum((0, *range(2, array.ndim)))  # noqa: E731
        if isinstance(layer, nn.GroupNorm):
            normal = functional.group_norm(x.to(wide), layer.num_groups, eps=layer.eps)
        elif isinstance(layer, nn.modules.instancenorm._InstanceNorm):
            normal = functional.instance_norm(x.to(wide), eps=layer.eps)
        elif layer.training or layer.running_mean is None:
            normal = functional.batch_norm(x.to(wide), None, None, training=True, eps=layer.eps)
        else:
            normal = functional.batch_norm(x.to(wide), layer.running_mean, layer.running_var, eps=layer.eps)
    for group, ns, ds in rows.split(lead, normal, cotangent.to(normal.dtype)):
        if layer.weight is not None:
            add("weight", group, total(ns * ds).reshape(layer.weight.shape))
        if getattr(layer, "bias", None) is not None:
            add("bias", group, total(ds).reshape(layer.bias.shape))


LAYERS: dict[type, Callable[..., None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _convolution,
    nn.ConvTranspose2d: _convolution,
    nn.ConvTranspose3d: _convolution,
    nn.Embedding: _embedding,
    nn.LayerNorm: _normalisation,
    nn.RMSNorm: _normalisation,
    nn.GroupNorm: _normalisation,
    nn.BatchNorm1d: _normalisation,
    nn.BatchNorm2d: _normalisation,
    nn.BatchNorm3d: _normalisation,
    nn.InstanceNorm1d: _normalisation,
    nn.InstanceNorm2d: _normalisation,
    nn.InstanceNorm3d: _normalisation,
}


def rule_for(layer: nn.Module) -> Callable[..., None] | None:
    """How the gradients of a layer divide among groups; `None` for a layer that is not known."""
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):
        return _linear
    known: Any
    for known, rule in LAYERS.items():
        # A subclass that computes something else is another layer.
        if isinstance(layer, known) and getattr(type(layer), "forward", None) is known.forward:
            return rule
    return None


def attention(
    layer: nn.MultiheadAttention, args: tuple, kwargs: dict, cotangent: Tensor, rows: Rows, add: Add, stride: int
) -> None:
    """PyTorch's own attention layer keeps its weights to itself: it is run once more, and differentiated by groups."""
    params = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        detached = [a.detach() if isinstance(a, Tensor) else a for a in args]
        out = nn.MultiheadAttention.forward(layer, *detached, **kwargs)[0]
    batched = out if layer.batch_first or out.ndim == 2 else out.transpose(0, 1)
    groups = rows.of(batched, min(2, batched.ndim - 1))
    groups = groups if layer.batch_first or out.ndim == 2 else groups.transpose(0, 1)
    for group in rows.present:
        mine = cotangent * (groups == group).unsqueeze(-1)
        found = torch.autograd.grad(out, list(params.values()), mine, retain_graph=True, allow_unused=True)
        for name, gradient in zip(params, found, strict=True):
            if gradient is not None:
                add(name, group, gradient[:, ::stride] if gradient.ndim > 1 else gradient)
