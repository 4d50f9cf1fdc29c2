"""Each group's gradient of PyTorch's own attention layer, which keeps its parts to itself.

It is run once more, from its inputs. Where the groups are of whole data and the layer attends to one sequence, its
projections are linear layers: the gradients of what came out of them, from one backward pass, divide by rows. Otherwise
a backward pass is made for each group.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.knowledge.torch._layers import Add, wide
from thalweg.knowledge.torch._rows import Rows


def attention(
    layer: nn.MultiheadAttention, args: tuple, kwargs: dict, cotangent: Tensor, rows: Rows, add: Add, stride: int
) -> None:
    """As the functions of `_layers`, with the arguments of the layer's call."""
    given = dict(zip(("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask"), args, strict=False))
    given |= kwargs
    x = given["query"]
    same = given["key"] is x and given["value"] is x and layer.in_proj_weight is not None and layer.bias_k is None
    if same and x.ndim == 3 and rows.labels.ndim == 1:
        _by_rows(layer, given, cotangent, rows, add, stride)
    else:
        _by_groups(layer, args, kwargs, cotangent, rows, add, stride)


def _by_rows(layer: Any, given: dict[str, Any], cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    x, kind = given["query"].detach(), wide(cotangent)
    weight, bias, out = layer.in_proj_weight.detach(), layer.in_proj_bias, layer.out_proj
    x, cotangent = x.to(weight.dtype), cotangent.to(weight.dtype)
    if not layer.batch_first:
        swapped = lambda array: array.transpose(0, 1)  # noqa: E731
        x, cotangent = swapped(x), swapped(cotangent)
    width = layer.embed_dim
    one = torch.eye(width, dtype=weight.dtype, device=weight.device)
    with torch.enable_grad():
        # Projected here; the layer's own function then only attends: its projections are the identity.
        projected = functional.linear(x, weight, None if bias is None else bias.detach()).requires_grad_()
        query, key, value = (part.transpose(0, 1) for part in projected.split(width, -1))
        attended = functional.multi_head_attention_forward(
            query,
            key,
            value,
            width,
            layer.num_heads,
            None,
            None,
            None,
            None,
            layer.add_zero_attn,
            0.0,
            one,
            None,
            training=layer.training,
            key_padding_mask=given.get("key_padding_mask"),
            need_weights=False,
            attn_mask=given.get("attn_mask"),
            use_separate_proj_weight=True,
            q_proj_weight=one,
            k_proj_weight=one,
            v_proj_weight=one,
            is_causal=given.get("is_causal", False),
        )[0].transpose(0, 1)
    back = torch.autograd.grad(attended, projected, cotangent @ out.weight.detach())[0]
    thin = lambda array: array[..., ::stride] if stride > 1 else array  # noqa: E731
    parts, xs, ins, ys, outs = rows.sorted(2, thin(x), back, thin(attended.detach()), cotangent)
    add("in_proj_weight", parts, ins, xs)
    add("out_proj.weight", parts, outs, ys)
    if bias is not None:
        add("in_proj_bias", None, rows.sums(2, back, kind))
    if out.bias is not None:
        add("out_proj.bias", None, rows.sums(2, cotangent, kind))


def _by_groups(layer: Any, args: tuple, kwargs: dict, cotangent: Tensor, rows: Rows, add: Add, stride: int) -> None:
    params = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        detached = [a.detach() if isinstance(a, Tensor) else a for a in args]
        given = {name: a.detach() if isinstance(a, Tensor) else a for name, a in kwargs.items()}
        out = nn.MultiheadAttention.forward(layer, *detached, **given)[0]
    leads = layer.batch_first or out.ndim == 2
    batched = out if leads else out.transpose(0, 1)
    groups = rows.of(batched, min(2, batched.ndim - 1))
    groups = groups if leads else groups.transpose(0, 1)
    for group in rows.present:
        mine = cotangent * (groups == group).unsqueeze(-1)
        found = torch.autograd.grad(out, list(params.values()), mine, retain_graph=True, allow_unused=True)
        for name, gradient in zip(params, found, strict=True):
            if gradient is not None:
                add(name, group, gradient[:, ::stride] if gradient.ndim > 1 else gradient)
