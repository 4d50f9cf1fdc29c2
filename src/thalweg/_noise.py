"""The noise of a process: laws that draw the randomness of step `i`, and integrate over it.

A law is not a random key. `law.sample(key, i)` is a pure function of the key and the number of
the step, so that two runs can share their noise, a run can be replayed from any step, and an
operator can integrate over the noise instead of sampling it.
"""

import abc
import itertools
import math
import zlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from thalweg._edge import check_arrays, check_function, check_truth, is_whole, shown
from thalweg._precision import use_float64

use_float64()

MOST_ATOMS = 2**20  # an expectation that needs more terms than this is refused
ROUNDS = 12  # of the keyed permutation: with 6, chi-square told the permutations of 5 from uniform


class Law(eqx.Module):
    """What every law of noise can do; subclass it to bring your own.

    - `sample(key, i)`: the draw of step `i`. It must depend on `key` and `i` only.
    - `atoms()`: every value the noise can take with its probability, or a `ValueError`.

    Laws combine: a dict or a tuple of laws is the law of independent draws.
    """

    @abc.abstractmethod
    def sample(self, key: Any, i: Any) -> Any:
        """The draw of step `i`."""

    @abc.abstractmethod
    def atoms(self) -> tuple[Any, Float[Array, " atoms"]]:
        """Draws along a leading axis, and their probabilities."""

    def expectation(self, f: Callable[[Any], Any]) -> Any:
        """The mean of `f(w)`: exact for finite laws, Gauss-Hermite quadrature for `Normal`.

        Raises `ValueError` for a law that cannot be integrated (`Uniform`, `Shuffle`, `Key`).

        >>> import thalweg as tw
        >>> float(tw.noise.Choice(3).expectation(lambda w: w**2))  # (0 + 1 + 4) / 3
        1.6666666666666665
        """
        check_function(f, "f", "w")
        draws, probabilities = self.atoms()
        if not jax.tree.leaves(draws):
            return f(draws)

        def one(w):
            value = f(w)
            check_arrays(value, "f")
            return value

        values = jax.vmap(one)(draws)
        return jax.tree.map(lambda v: jnp.tensordot(probabilities, v, axes=1), values)


class Nothing(Law):
    """No noise: the draw is `None`, and the process is deterministic."""

    def sample(self, key: Any, i: Any) -> None:
        return None

    def atoms(self) -> tuple[None, Float[Array, " atoms"]]:
        return None, jnp.ones(1)


class Key(Law):
    """A fresh random key a step, for foreign kernels that draw for themselves."""

    def sample(self, key: Any, i: Any) -> Any:
        return jax.random.fold_in(key, i)

    def atoms(self) -> tuple[Any, Float[Array, " atoms"]]:
        raise ValueError(_no_atoms("Key", "the kernel draws for itself"))


class Normal(Law):
    """Independent standard normal numbers, mean 0 and variance 1.

    **Arguments**

    - `shape`: the shape of a draw, `()` for a single number.
    - `order`: quadrature nodes per number in `expectation` and `atoms`: polynomials of degree
      below `2 order` are integrated exactly. By default 64 for one number, 32 for two, 16 for more.

    >>> import thalweg as tw
    >>> round(float(tw.noise.Normal().expectation(lambda w: w**4)), 12)
    3.0
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    order: int | None = eqx.field(static=True)

    def __init__(self, shape: int | tuple[int, ...] = (), order: int | None = None):
        self.shape = _shape(shape)
        if order is not None and (not is_whole(order) or not 1 <= order <= MOST_ATOMS):
            raise ValueError(f"order must be a whole number of nodes from 1 to {MOST_ATOMS}, got {shown(order)}")
        self.order = order

    def sample(self, key: Any, i: Any) -> Float[Array, "..."]:
        return jax.random.normal(jax.random.fold_in(key, i), self.shape)

    def atoms(self) -> tuple[Float[Array, "atoms ..."], Float[Array, " atoms"]]:
        count = math.prod(self.shape)
        order = self.order or {1: 64, 2: 32}.get(count, 16)
        if order**count > MOST_ATOMS:
            raise ValueError(
                f"quadrature over Normal({self.shape}) needs {order}^{count} nodes, wanted at most {MOST_ATOMS}: "
                "pass a smaller order, or ask by Monte Carlo"
            )
        nodes, weights = np.polynomial.hermite_e.hermegauss(order)
        grid = np.array(list(itertools.product(nodes, repeat=count))).reshape(-1, *self.shape)
        product = np.array([math.prod(w) for w in itertools.product(weights / weights.sum(), repeat=count)])
        return jnp.asarray(grid), jnp.asarray(product)


class Uniform(Law):
    """Independent numbers, uniform on [0, 1).

    Accept/reject steps use them, which jump: quadrature over them would be silently wrong,
    so `expectation` refuses.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: int | tuple[int, ...] = ()):
        self.shape = _shape(shape)

    def sample(self, key: Any, i: Any) -> Float[Array, "..."]:
        return jax.random.uniform(jax.random.fold_in(key, i), self.shape)

    def atoms(self) -> tuple[Any, Float[Array, " atoms"]]:
        raise ValueError(_no_atoms("Uniform", "steps that compare with it jump"))


class Choice(Law):
    """Whole numbers drawn from 0, ..., n-1, such as the datum of an SGD step.

    **Arguments**

    - `n`: how many values there are.
    - `p`: their probabilities, shape `(n,)`; equal if not given.
    - `shape`: the shape of a draw, `()` for a single number.
    - `replace`: whether a draw may hold a value twice; if not, a draw is an ordered sample
      without replacement, and draws of different steps are independent.

    Raises `ValueError` for probabilities that are negative or do not sum to 1.

    >>> import jax, thalweg as tw
    >>> draw = tw.noise.Choice(5, shape=(5,), replace=False).sample(jax.random.key(0), 7)
    >>> sorted(draw.tolist())
    [0, 1, 2, 3, 4]
    """

    n: int = eqx.field(static=True)
    p: Float[Array, " n"] | None
    shape: tuple[int, ...] = eqx.field(static=True)
    replace: bool = eqx.field(static=True)

    def __init__(self, n: int, p: Any = None, shape: int | tuple[int, ...] = (), replace: bool = True):
        self.n = _count("n", n)
        self.shape = _shape(shape)
        check_truth(replace, "replace")
        self.replace = replace
        if not replace and math.prod(self.shape) > n:
            raise ValueError(f"shape {self.shape} asks for more than n = {n} values without replacement")
        if p is not None:
            try:
                p = np.asarray(p, dtype=float)
            except (TypeError, ValueError):
                raise TypeError(f"p must be {n} probabilities, got {shown(p)}") from None
            if p.shape != (n,):
                raise ValueError(f"p must have shape ({n},), got {p.shape}")
            if not np.all(p >= 0) or abs(p.sum() - 1) > 1e-8:
                raise ValueError(f"p must be probabilities (>= 0, sum 1), got sum {p.sum():.6g}, least {p.min():.6g}")
            if not replace and np.count_nonzero(p) < math.prod(self.shape):
                raise ValueError(
                    f"p must be > 0 for at least {math.prod(self.shape)} values to draw so many without replacement, "
                    f"got {np.count_nonzero(p)}"
                )
            p = jnp.asarray(p / p.sum())
        self.p = p

    def sample(self, key: Any, i: Any) -> Int[Array, "..."]:
        if self.draws_per_word > 1:
            return self.unpack(self.word(key, i), i)
        key = jax.random.fold_in(key, i)
        count = math.prod(self.shape)
        if not self.replace and self.p is None:
            return keyed_permutation(key, self.n, jnp.arange(count)).reshape(self.shape)
        if not self.replace:
            return jax.random.choice(key, self.n, self.shape, replace=False, p=self.p).astype(jnp.int32)
        u = jax.random.uniform(key, self.shape)
        if self.p is None:
            return jnp.minimum(jnp.floor(u * self.n).astype(jnp.int32), self.n - 1)
        return jnp.minimum(jnp.searchsorted(jnp.cumsum(self.p), u, side="right").astype(jnp.int32), self.n - 1)

    # A fair choice among 2^b values needs b random bits, so one random word of 32 bits serves
    # many steps. It is the draw of random bits that a cheap step spends its time on.

    @property
    def bits(self) -> int:
        """Random bits in one value, for the packed draws."""
        return max(1, (self.n - 1).bit_length())

    @property
    def draws_per_word(self) -> int:
        """How many steps one random word serves; 1 if the law does not pack."""
        packs = self.p is None and self.replace and self.n & (self.n - 1) == 0 and self.shape == ()
        return 32 // self.bits if packs else 1

    def word(self, key: Any, i: Any) -> Any:
        """The random word that serves step `i` and its neighbours."""
        return jax.random.bits(jax.random.fold_in(key, i // self.draws_per_word), (), jnp.uint32)

    def unpack(self, word: Any, i: Any) -> Int[Array, ""]:
        """The draw of step `i` out of its word."""
        shift = jnp.asarray((i % self.draws_per_word) * self.bits).astype(jnp.uint32)
        return ((word >> shift) & jnp.uint32(self.n - 1)).astype(jnp.int32)

    def atoms(self) -> tuple[Int[Array, "atoms ..."], Float[Array, " atoms"]]:
        count = math.prod(self.shape)
        total = self.n**count if self.replace else math.perm(self.n, count)
        if total > MOST_ATOMS:
            raise ValueError(
                f"a draw of {count} from {self.n} has {total} outcomes, wanted at most {MOST_ATOMS}: "
                "use a smaller batch, or ask by Monte Carlo"
            )
        p = np.full(self.n, 1 / self.n) if self.p is None else np.asarray(self.p)
        if self.replace:
            draws = np.array(list(itertools.product(range(self.n), repeat=count)), dtype=np.int32)
            probabilities = np.prod(p[draws], axis=1)
        else:
            draws = np.array(list(itertools.permutations(range(self.n), count)), dtype=np.int32)
            drawn = p[draws]
            left = 1 - np.concatenate([np.zeros((total, 1)), np.cumsum(drawn, axis=1)[:, :-1]], axis=1)
            probabilities = np.prod(drawn / np.where(left > 0, left, 1), axis=1)
        return jnp.asarray(draws.reshape(-1, *self.shape)), jnp.asarray(probabilities)


class Shuffle(Law):
    """Epochs without replacement: each of 0, ..., n-1 once an epoch, in a new order every epoch.

    The order is a keyed permutation that is evaluated only at the positions of step `i`, so that
    a step costs O(batch) whatever `n`, and a run can be resumed anywhere. A batch that straddles
    two epochs takes its last part from the next one; nothing is dropped.

    **Arguments**

    - `n`: how many values there are.
    - `batch`: how many a step takes; `None` for a single number.

    >>> import jax, thalweg as tw
    >>> law = tw.noise.Shuffle(6, 2)
    >>> sorted(int(w) for i in range(3) for w in law.sample(jax.random.key(1), i))
    [0, 1, 2, 3, 4, 5]
    """

    n: int = eqx.field(static=True)
    batch: int | None = eqx.field(static=True)

    def __init__(self, n: int, batch: int | None = None):
        self.n = _count("n", n)
        self.batch = None if batch is None else _count("batch", batch)
        if self.batch is not None and self.batch > n:
            raise ValueError(f"batch must be at most n = {n}, got {batch}")

    def sample(self, key: Any, i: Any) -> Int[Array, "..."]:
        i = jnp.asarray(i, dtype=jnp.result_type(int))
        positions = i if self.batch is None else i * self.batch + jnp.arange(self.batch)

        def at(position):
            return keyed_permutation(jax.random.fold_in(key, position // self.n), self.n, position % self.n)

        return at(positions) if self.batch is None else jax.vmap(at)(positions)

    def atoms(self) -> tuple[Any, Float[Array, " atoms"]]:
        raise ValueError(
            "Shuffle cannot be integrated step by step, since its draws depend on one another: "
            "use Choice(n, shape=(batch,), replace=False), or ask by Monte Carlo"
        )


class Together(Law):
    """Independent draws from several laws: what a dict or a tuple of laws becomes."""

    laws: dict[str, Law] | tuple[Law, ...]

    def sample(self, key: Any, i: Any) -> Any:
        return self._each(lambda law, name: law.sample(_key_of(key, name), i))

    def atoms(self) -> tuple[Any, Float[Array, " atoms"]]:
        parts = [law.atoms() for law in self._flat()]
        counts = [len(p) for _, p in parts]
        if math.prod(counts) > MOST_ATOMS:
            raise ValueError(
                f"the laws together have {math.prod(counts)} outcomes, wanted at most {MOST_ATOMS}: ask by Monte Carlo"
            )
        index = np.indices(counts).reshape(len(counts), -1)
        draws = iter([jax.tree.map(lambda d, at=at: d[at], part) for (part, _), at in zip(parts, index, strict=True)])
        probabilities = jnp.ones(index.shape[1])
        for (_, p), at in zip(parts, index, strict=True):
            probabilities = probabilities * p[at]
        return self._each(lambda law, name: next(draws)), probabilities

    def _each(self, f: Callable[[Law, Any], Any]) -> Any:
        if isinstance(self.laws, dict):
            return {name: f(law, name) for name, law in self.laws.items()}
        return tuple(f(law, position) for position, law in enumerate(self.laws))

    def _flat(self) -> list[Law]:
        return list(self.laws.values()) if isinstance(self.laws, dict) else list(self.laws)


def as_law(noise: Any) -> Law:
    """`noise` as a law: `None` is `Nothing()`, a dict or tuple of laws is their independent draw."""
    if noise is None:
        return Nothing()
    if isinstance(noise, dict):
        return Together({str(name): as_law(noise[name]) for name in sorted(noise)})
    if isinstance(noise, tuple | list):
        return Together(tuple(as_law(law) for law in noise))
    if isinstance(noise, Law):
        return noise
    raise TypeError(f"noise must be a law such as tw.noise.Choice(2), or a dict or tuple of laws, got {shown(noise)}")


def as_key(key: Any) -> Any:
    """A typed random key from a key, an old-style key array, or a whole number (a seed)."""
    if isinstance(key, bool) or key is None:
        raise TypeError(f"key must be a random key or a seed, got {shown(key)}: pass key=jax.random.key(0)")
    if isinstance(key, int | np.integer):
        if not -(2**63) <= key < 2**63:
            raise ValueError(f"key must be a random key or a seed below 2^63, got {key}")
        return jax.random.key(int(key))
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if hasattr(key, "dtype") and key.dtype == jnp.uint32 and key.shape[-1:] == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(f"key must be a random key or a seed, got {shown(key)}: pass key=jax.random.key(0)")


# Streams: the same draws as `law.sample(key, i)` for i, i+1, ..., with random words kept from one
# step to the next. The number of the step is not batched in an ensemble whose members start
# together, so that the refresh is a real branch and is taken once in a word.


def open_stream(law: Law, key: Any, i: Any) -> Any:
    """What must be carried from step to step to draw with `next_draw` from step `i` on."""
    if isinstance(law, Together):
        return law._each(lambda part, name: open_stream(part, _key_of(key, name), i))
    if isinstance(law, Choice) and law.draws_per_word > 1:
        return law.word(key, i)
    return ()


def next_draw(law: Law, key: Any, i: Any, carried: Any) -> tuple[Any, Any]:
    """The draw of step `i`, equal to `law.sample(key, i)`, and what is carried on."""
    if isinstance(law, Together):
        pairs = law._each(lambda part, name: next_draw(part, _key_of(key, name), i, carried[name]))
        return _halves(pairs, 0), _halves(pairs, 1)
    if isinstance(law, Choice) and law.draws_per_word > 1:
        word = lax.cond(i % law.draws_per_word == 0, lambda: law.word(key, i), lambda: carried)
        return law.unpack(word, i), word
    return law.sample(key, i), ()


def _halves(pairs: Any, which: int) -> Any:
    if isinstance(pairs, dict):
        return {name: pair[which] for name, pair in pairs.items()}
    return tuple(pair[which] for pair in pairs)


def keyed_permutation(key: Any, n: int, position: Int[Array, "..."]) -> Int[Array, "..."]:
    """Where a random permutation of 0, ..., n-1, named by `key`, sends `position`; no table is made.

    A Feistel network on pairs (left, right) in Z_a x Z_b, ab >= n, whose halves are added modulo a
    and b in turn, followed until it lands below n (Black and Rogaway, "Ciphers with arbitrary
    finite domains", 2002). `a` is even, so that odd permutations are reached too.
    """
    a = 2 * math.ceil(math.sqrt(n) / 2)
    b = math.ceil(n / a)
    words = jax.random.bits(key, (2,), jnp.uint32)

    def scatter(half, salt):
        x = half * np.uint32(0x9E3779B1) + words[0] + salt
        x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * np.uint32(0x846CA68B) + words[1]
        x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
        return x ^ (x >> 15)

    def one_round(number, halves):
        left, right = halves
        salt = lax.convert_element_type(number, np.uint32) * np.uint32(0x85EBCA6B)
        left = (left + scatter(right, salt) % np.uint32(a)) % np.uint32(a)
        right = (right + scatter(left, ~salt) % np.uint32(b)) % np.uint32(b)
        return left, right

    def follow(walk):
        x, arrived = walk
        left, right = lax.fori_loop(0, ROUNDS, one_round, (x // np.uint32(b), x % np.uint32(b)))
        x = jnp.where(arrived, x, left * np.uint32(b) + right)
        return x, x < n

    x = jnp.asarray(position).astype(jnp.uint32)
    walk = (x, jnp.zeros_like(x, dtype=bool))
    return lax.while_loop(lambda walk: ~jnp.all(walk[1]), follow, walk)[0].astype(jnp.int32)


def _key_of(key: Any, name: str | int) -> Any:
    # The name, not the position, picks the key: adding a law to a dict leaves the others' draws alone.
    return jax.random.fold_in(key, zlib.crc32(name.encode()) if isinstance(name, str) else name)


def _shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    sizes: tuple[Any, ...] = (
        (shape,) if is_whole(shape) else tuple(shape) if isinstance(shape, tuple | list) else (None,)
    )
    if not all(is_whole(size) and 0 < size < 2**31 for size in sizes):
        raise ValueError(f"shape must be a positive whole number or a tuple of them, got {shown(shape)}")
    return tuple(int(size) for size in sizes)


def _count(name: str, value: Any) -> int:
    if not is_whole(value) or not 0 < value < 2**31:
        raise ValueError(f"{name} must be a whole number from 1 to 2^31 - 1, got {shown(value)}")
    return int(value)


def _no_atoms(law: str, why: str) -> str:
    return (
        f"{law} cannot be integrated exactly ({why}): give the process a `transition`, or ask by Monte Carlo "
        "(tw.flow.monte_carlo)"
    )
