"""Each group's gradient of a layer's parameters, from the layer's input and the gradient of its output.

A layer's parameters meet a datum where the layer is used. There its gradient is a product of what went in and the
gradient of what came out, summed over the rows of the batch: so the rows of each group give the group's gradient, and
the groups' gradients sum to the layer's. One backward pass, the user's own, serves all groups.

Every function here is called as `gradients(layer, inputs, cotangent, rows, add, stride)`: `rows` tells which rows of an
array belong to which group, and `add` takes the result, as

    add(parameter, group, gradient)               one group's
    add(parameter, None, gradients)               of all groups, (G + 1, ...)
    add(parameter, parts, a, b)                   a^T b over each group's rows of `a` and `b`
    add(parameter, "entries", index, gradients)   to be added to the entries `index` of all groups' (G + 1) * n
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.knowledge.torch._rows import Rows

Add = Callable[..., None]


def wide(array: Tensor) -> torch.dtype:
    """The precision in which sums over an array are kept."""
    return torch.float32 if array.dtype in (torch.bfloat16, torch.float16) else array.dtype


def precision(layer: nn.Module, cotangent: Tensor) -> torch.dtype:
    """How finely a layer's own gradient is rounded: TF32, in products on a GPU, has the eleven bits of float16."""
    if cotangent.dtype != torch.float32 or not cotangent.is_cuda:
        return cotangent.dtype
    cudnn: Any = torch.backends.cudnn
    convolves = isinstance(layer, nn.modules.conv._ConvNd)
    backend = getattr(cudnn, "conv", cudnn) if convolves else torch.backends.cuda.matmul
    chosen = getattr(backend, "fp32_precision", None)  # since PyTorch 2.9; reading the older switch can then fail
    if chosen == "none":
        chosen = getattr(torch.backends, "fp32_precision", "none")
    rounded = backend.allow_tf32 if chosen is None else chosen == "tf32"
    return torch.float16 if rounded else torch.float32


def _linear(layer: nn.Module, x: Tensor, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    lead = cotangent.ndim - 1
    transposed = type(layer).__name__ == "Conv1D"  # as GPT-2 of Hugging Face stores it: (inputs, units)
    parts, xs, ds = rows.sorted(lead, _thin(x.to(cotangent.dtype), stride), cotangent)
    add("weight", parts, *((xs, ds) if transposed else (ds, xs)))
    if layer.bias is not None:
        add("bias", None, rows.sums(lead, cotangent, wide(cotangent)))


def _thin(array: Tensor, stride: int) -> Tensor:
    return array if stride == 1 else array[..., ::stride]


def _convolution(layer: Any, x: Tensor, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    spatial = len(layer.kernel_size)
    if x.ndim == spatial + 1:
        raise ValueError(f"a {type(layer).__name__} without a batch axis cannot be tallied: pass a batch of one")
    padding = layer.padding
    if isinstance(padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x, padding = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode), (0,) * spatial
    full = wide(cotangent)
    # Under autocast the layer itself saw its input rounded.
    for group, xs, ds in rows.split(1, x.to(cotangent.dtype).to(full), cotangent.to(full)):
        gradient = torch.ops.aten.convolution_backward(
            ds,
            xs,
            layer.weight.to(full),
            None,
            layer.stride,
            padding,
            layer.dilation,
            layer.transposed,
            layer.output_padding,
            layer.groups,
            [False, True, False],
        )[1]
        add("weight", group, gradient[:, ::stride])
    if layer.bias is not None:
        add("bias", None, rows.sums(1, cotangent.sum(tuple(range(2, cotangent.ndim)), dtype=full), full))


def _embedding(layer: nn.Embedding, index: Tensor, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    if layer.padding_idx is not None:
        cotangent = cotangent * (index != layer.padding_idx).unsqueeze(-1)
    entries = index + layer.num_embeddings * rows.of(index, index.ndim)
    add("weight", "entries", entries.reshape(-1), _thin(cotangent, stride).flatten(0, -2))


def _normalisation(layer: Any, x: Tensor, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    """Scale and shift: the output is `weight * normalised + bias`."""
    full = wide(cotangent)
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        lead = x.ndim - len(layer.normalized_shape)
        by_rows = functional.layer_norm if isinstance(layer, nn.LayerNorm) else functional.rms_norm
        normal = by_rows(x.to(full), layer.normalized_shape, eps=layer.eps)
        summed = lambda array: array  # noqa: E731
    else:
        # Channels are the second axis. In a batch norm a row's part is not one datum's, but the rows still sum.
        lead, full = 1, torch.promote_types(full, x.dtype)
        summed = lambda array: array.flatten(2).sum(2) if array.ndim > 2 else array  # noqa: E731
        if isinstance(layer, nn.GroupNorm):
            normal = functional.group_norm(x.to(full), layer.num_groups, eps=layer.eps)
        elif isinstance(layer, nn.modules.instancenorm._InstanceNorm):
            normal = functional.instance_norm(x.to(full), eps=layer.eps)
        elif layer.training or layer.running_mean is None:
            normal = functional.batch_norm(x.to(full), None, None, training=True, eps=layer.eps)
        else:
            normal = functional.batch_norm(x.to(full), layer.running_mean, layer.running_var, eps=layer.eps)
    cotangent = cotangent.to(normal.dtype)
    if layer.weight is not None:
        add("weight", None, rows.sums(lead, summed(normal * cotangent), normal.dtype))
    if getattr(layer, "bias", None) is not None:
        add("bias", None, rows.sums(lead, summed(cotangent), normal.dtype))


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


def why_not(layer: nn.Module) -> str:
    """Why the parameters of a layer cannot be tallied; empty where they can."""
    kind = type(layer).__name__
    if isinstance(layer, nn.MultiheadAttention):
        if layer.dropout:
            return f"{kind} with dropout draws at random inside, and is left out of the tally: use dropout=0"
        return ""
    if rule_for(layer) is None:
        return f"the layer {kind} is not known, and its parameters are left out of the tally"
    if isinstance(layer, nn.Embedding) and (layer.sparse or layer.scale_grad_by_freq):
        return f"{kind} with sparse=True or scale_grad_by_freq=True is left out of the tally"
    return ""
