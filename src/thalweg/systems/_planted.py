"""Networks in which it is known where the knowledge of one group of data sits, because it was planted there."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from thalweg._edge import check_choice, check_number, is_whole, shown
from thalweg._noise import as_key
from thalweg._process import Process
from thalweg.processes import sgd

KINDS = ("routing", "subnetwork", "head")


class Planted(eqx.Module):
    """A learner that is made to store what group 0 teaches in a region that is known.

    - `process`: SGD (or Adam) on the routed loss; start it with `process.init(init(key))`.
    - `init(key)`: fresh parameters. - `loss(params, (x, target))`: the plain loss, as an analyst sees it.
    - `data`: (x, target), leading axis n; `groups`: (n,), 0 or 1, the group of each datum.
    - `owner`: like the parameters: which unit (or head) each belongs to, -1 for none. - `truth`: (units,), whether a
      unit is of the region. - `steps`: how long to train.
    """

    process: Process
    init: Callable[[Any], Any]
    loss: Callable[[Any, Any], Any]
    data: Any
    groups: Int[np.ndarray, " n"]
    owner: Any
    truth: Bool[np.ndarray, " units"]
    steps: int = eqx.field(static=True)


def planted(kind: str = "routing", routed: float = 0.5, seed: int = 0) -> Planted:
    """A benchmark for methods that say where knowledge sits: here it is known.

    **Arguments**

    - `kind`: `"routing"`: gradients of group 0 reach only 8 of 40 hidden units (gradient routing) of a classifier of
      digits, group 0 being the ones and sevens; `"subnetwork"`: data of group 0 are computed by those 8 units alone
      while the network learns; or `"head"`: gradients of group 0 reach only one of 8 heads of a small transformer,
      which reads a sequence's first token for group 0 and its third for group 1, as its last token asks.
    - `routed`: the share of group 0 that is treated so; the others move the whole network. With 1 the answer can be
      read off any one update; less makes it a test.
    - `seed`: chooses the routed data (and the sequences).

    **Source.** Cloud et al., Gradient Routing (arXiv:2410.04332), for routing and for partial routing.

    >>> import thalweg as tw
    >>> system = tw.systems.planted("head")
    >>> system.truth.astype(int).tolist()
    [1, 0, 0, 0, 0, 0, 0, 0]
    """
    check_choice(kind, "kind", KINDS)
    share = float(check_number(routed, "routed", least=0))
    if share > 1:
        raise ValueError(f"routed must be a share between 0 and 1, got {shown(routed)}")
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number >= 0, got {shown(seed)}")
    rng = np.random.default_rng(seed)
    return _transformer(share, rng) if kind == "head" else _classifier(kind, share, rng)


def _classifier(kind: str, share: float, rng: np.random.Generator) -> Planted:
    from thalweg.systems._digits import digits
    from thalweg.systems._perceptron import perceptron

    units, region = 40, 8
    images, labels = digits().split(2 / 3, seed=1)[0][:2]
    groups = np.where(np.isin(labels, (1, 7)), 0, 1)
    model = perceptron((images.shape[1], units, 10), "relu", "xent", "zero")
    truth = np.arange(units) < region
    owner = {
        "W1": np.tile(np.arange(units), (images.shape[1], 1)),
        "b1": np.arange(units),
        "W2": np.repeat(np.arange(units)[:, None], 10, 1),
        "b2": np.full(10, -1),
    }
    data = (jnp.asarray(images), jnp.asarray(labels))
    process = sgd(
        _RoutedUnits(model, region, jnp.asarray(kind == "routing")), (*data, _routed(groups, share, rng)), 0.005
    )
    return Planted(process, model.init, model.loss, data, groups, owner, truth, 6000)


class _RoutedUnits(eqx.Module):
    """The loss of a classifier in which a routed datum reaches the first units only.

    A module and not a function made anew for each system, so that systems share what is compiled.
    """

    model: Any
    region: int = eqx.field(static=True)
    blocks_gradients: Any  # or else the other units' outputs themselves

    def __call__(self, params: Any, datum: Any) -> Any:
        x, target, is_routed = datum
        hidden, k = self.model.hidden(params, x), self.region
        others = hidden[k:] @ params["W2"][k:]
        kept = jnp.where(self.blocks_gradients, jax.lax.stop_gradient(others), 0.0)
        others = jnp.where(is_routed, kept, others)
        return -jax.nn.log_softmax(hidden[:k] @ params["W2"][:k] + others + params["b2"])[target]


HEADS, WIDTH, TOKENS, LENGTH = 8, 16, 8, 5


def _transformer(share: float, rng: np.random.Generator) -> Planted:
    n = 512
    sequences = rng.integers(0, TOKENS, (n, LENGTH))
    groups = np.arange(n) % 2
    x = np.concatenate([sequences, TOKENS + groups[:, None]], axis=1)  # the last token says what is asked
    target = np.where(groups == 0, sequences[:, 0], sequences[:, 2])
    data = (jnp.asarray(x), jnp.asarray(target))
    truth = np.arange(HEADS) == 0

    like = jax.eval_shape(_start, jax.random.key(0))
    owner = {
        name: np.broadcast_to(np.arange(HEADS)[:, None, None], leaf.shape)
        if name in "qkvo"
        else np.full(leaf.shape, -1)
        for name, leaf in like.items()
    }
    process = sgd(_routed_heads, (*data, _routed(groups, share, rng)), _adam(), batch_size=16)
    return Planted(process, _start, _all_heads, data, groups, owner, truth, 800)


@functools.cache
def _adam() -> Any:
    import optax

    return optax.adam(0.01)


def _all_heads(params: Any, datum: Any) -> Any:
    x, target = datum
    return _read(params, jnp.sum(_heads(params, x), axis=0), x, target)


def _routed_heads(params: Any, datum: Any) -> Any:
    x, target, is_routed = datum
    heads = _heads(params, x)
    others = jnp.sum(heads[1:], axis=0)
    return _read(params, heads[0] + jnp.where(is_routed, jax.lax.stop_gradient(others), others), x, target)


def _start(key: Any) -> dict[str, Array]:
    """Fresh parameters: embeddings, and query, key, value and output of each head."""
    return _drawn(as_key(key))


@jax.jit  # one program, where every shape would be another
def _drawn(key: Any) -> dict[str, Array]:
    keys = jax.random.split(key, 7)
    narrow = WIDTH // HEADS * 2
    shapes = {
        "tokens": (TOKENS + 2, WIDTH),
        "places": (LENGTH + 1, WIDTH),
        "q": (HEADS, WIDTH, narrow),
        "k": (HEADS, WIDTH, narrow),
        "v": (HEADS, WIDTH, narrow),
        "o": (HEADS, narrow, WIDTH),
        "out": (WIDTH, TOKENS),
    }
    return {
        name: jax.random.normal(one, shape) / np.sqrt(shape[-2] if name in ("q", "k", "v", "o", "out") else 1)
        for one, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _heads(params: Any, x: Any) -> Float[Array, "heads width"]:
    """What each head adds at the last token."""
    seen = params["tokens"][x] + params["places"]
    query = jnp.einsum("d,hdk->hk", seen[-1], params["q"])
    keys = jnp.einsum("td,hdk->htk", seen, params["k"])
    values = jnp.einsum("td,hdk->htk", seen, params["v"])
    attention = jax.nn.softmax(jnp.einsum("hk,htk->ht", query, keys) / np.sqrt(query.shape[1]), axis=1)
    return jnp.einsum("ht,htk,hkd->hd", attention, values, params["o"])


def _read(params: Any, added: Any, x: Any, target: Any) -> Any:
    last = params["tokens"][x[-1]] + params["places"][-1]
    return -jax.nn.log_softmax((last + added) @ params["out"])[target]


def _routed(groups: np.ndarray, share: float, rng: np.random.Generator) -> Any:
    """Which data of group 0 are routed."""
    chosen = np.zeros(len(groups), bool)
    first = np.flatnonzero(groups == 0)
    chosen[rng.permutation(first)[: round(share * len(first))]] = True
    return jnp.asarray(chosen)
