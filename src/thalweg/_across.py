"""One ensemble on several processes: each runs its part of the members, and all of them get the whole."""

import contextlib
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._checkpoints import Growing, as_plain, is_key

_PART = re.compile(r"members-(\d+)-(\d+)")
PATIENCE = 30  # seconds without a sign of life after which a process counts as lost


def connect(coordinator: str | None = None, processes: int | None = None, index: int | None = None) -> None:
    """Join the processes of one run; call it first in each of them, before anything is computed.

    Under Slurm, Open MPI and on clouds that JAX knows, the arguments are found without being given. It is
    `jax.distributed.initialize` with more impatience: a process that dies is noticed within a minute.

    - `coordinator`: `"host:port"` of process 0; `processes`: how many there are; `index`: which one this is.

    Then `tw.ensemble(..., options=tw.Options(shard=True))` spreads its members over all of them, with equal numbers.
    """
    jax.distributed.initialize(coordinator, processes, index, heartbeat_timeout_seconds=PATIENCE)


def parts_of(members: int, folder: Any, spread: bool) -> list[tuple[int, int]]:
    """Who runs what: as an earlier run left it in its folder of checkpoints, else an equal share a process.

    >>> parts_of(10, None, spread=True)
    [(0, 10)]
    """
    found = sorted(
        (int(match[1]), int(match[2]))
        for file in (Path(folder).iterdir() if folder is not None and Path(folder).is_dir() else ())
        if (match := _PART.fullmatch(file.name))
    )
    if found:
        ends = [0, *(end for _, end in found)]
        if [first for first, _ in found] != ends[:-1] or ends[-1] != members:
            raise ValueError(f"{folder} holds parts {found}, not of {members} members: name another folder")
        return found
    count = min(members, jax.process_count()) if spread else 1
    bounds = [members * number // count for number in range(count + 1)]
    return list(itertools.pairwise(bounds))


def folder_of(folder: Any, part: tuple[int, int]) -> Any:
    """Where a part keeps its checkpoints."""
    return None if folder is None else Path(folder) / f"members-{part[0]}-{part[1]}"


def run_parts(run_part: Callable[[tuple[int, int]], Any], parts: list[tuple[int, int]], folder: Any) -> Any:
    """The outcomes of all parts as one, every array leading with the members, on every process."""
    mine = {part: run_part(part) for part in parts[jax.process_index() :: jax.process_count()]}
    everyones = _exchange(mine, parts, folder) if jax.process_count() > 1 else mine
    return jax.tree.map(_joined, *(everyones[part] for part in parts))


def exchange_items(mine: dict[int, dict[str, Any]], count: int, folder: Any) -> list[dict[str, Any]]:
    """The answers of all processes to the pieces of one job, in order; the first missing one ends the list."""
    from jax.experimental import multihost_utils

    packed = np.frombuffer(
        _savez({f"{n}/{name}": a for n, named in mine.items() for name, a in named.items()}), np.uint8
    )
    found: dict[int, dict[str, Any]] = {}
    for content in _everybodys(packed, folder, multihost_utils):
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            for key in arrays:
                number, name = key.split("/", 1)
                found.setdefault(int(number), {})[name] = arrays[key]
    return [found[n] for n in itertools.takewhile(found.__contains__, range(count))]


def all_say(yes: Any, folder: Any) -> bool:
    """Whether every process says yes, so that all of them go the same way."""
    from jax.experimental import multihost_utils

    _await_all(folder)
    return bool(np.all(multihost_utils.process_allgather(np.array(bool(yes)))))


def from_first(found: tuple[int, Any] | None, like: Any, folder: Any) -> tuple[int, Any] | None:
    """What process 0 found in its folder of checkpoints, a number and a pytree as `like`, on every process."""
    from jax.experimental import multihost_utils

    arrays = {} if found is None else {str(n): as_plain(leaf) for n, leaf in enumerate(jax.tree.leaves(found))}
    content = _everybodys(np.frombuffer(_savez(arrays), np.uint8), folder, multihost_utils)[0]
    leaves, structure = jax.tree.flatten((0, like))
    with np.load(io.BytesIO(content), allow_pickle=False) as theirs:
        if not theirs.files:
            return None
        unpacked = [_unpacked(theirs[str(n)], leaf) for n, leaf in enumerate(leaves)]
    done, state = jax.tree.unflatten(structure, unpacked)
    return int(done), state


def everywhere(tree: Any) -> Any:
    """Arrays that every process holds whole and equal, as arrays of all devices of all processes."""
    return _placed(tree, jax.sharding.PartitionSpec())


def spread_everywhere(tree: Any) -> Any:
    """Arrays that lead with the members and that every process holds, spread over all devices of all processes."""
    return _placed(tree, jax.sharding.PartitionSpec("members"))


def _placed(tree: Any, spec: Any) -> Any:
    devices = jax.devices()
    place = jax.sharding.NamedSharding(jax.sharding.Mesh(np.asarray(devices), ("members",)), spec)
    if spec and any(len(leaf) % len(devices) for leaf in jax.tree.leaves(tree)):
        raise ValueError(
            f"walkers must be a multiple of the {len(devices)} devices that they are spread over, "
            f"got {len(jax.tree.leaves(tree)[0])}"
        )

    def put(leaf: Any) -> Any:
        if is_key(leaf):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        whole = np.asarray(gathered(leaf))
        return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])

    return jax.tree.map(put, tree)


def gathered(tree: Any) -> Any:
    """Arrays of all processes as arrays of this one, whole; others as they are."""

    def get(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if is_key(leaf):
            return jax.random.wrap_key_data(get(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        if leaf.is_fully_replicated:
            return jnp.asarray(np.asarray(leaf.addressable_data(0)))
        from jax.experimental import multihost_utils  # here, since every recorded run passes by

        return jnp.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(get, tree)


def _joined(*leaves: Any) -> Any:
    if is_key(leaves[0]):
        return jnp.concatenate(leaves)
    whole = np.concatenate([np.asarray(leaf) for leaf in leaves])
    return whole if isinstance(leaves[0], np.ndarray) else jnp.asarray(whole)


def _exchange(
    mine: dict[tuple[int, int], Any], parts: list[tuple[int, int]], folder: Any
) -> dict[tuple[int, int], Any]:
    """Everybody's outcomes. They travel as bytes, since parts differ in their sizes."""
    from jax.experimental import multihost_utils

    if not mine:
        raise ValueError(f"{folder} holds {len(parts)} parts: go on from it with at most as many processes")
    like = next(iter(mine.values()))
    leaves, structure = jax.tree.flatten(like)
    arrays = {
        f"{part[0]}-{n}": as_plain(leaf)
        for part, outcome in mine.items()
        for n, leaf in enumerate(jax.tree.leaves(outcome))
    }
    found = {}
    for content in _everybodys(np.frombuffer(_savez(arrays), np.uint8), folder, multihost_utils):
        with np.load(io.BytesIO(content), allow_pickle=False) as theirs:
            for part in parts:
                if f"{part[0]}-0" in theirs:
                    unpacked = [_unpacked(theirs[f"{part[0]}-{n}"], leaf) for n, leaf in enumerate(leaves)]
                    found[part] = jax.tree.unflatten(structure, unpacked)
    return found


def _everybodys(packed: np.ndarray, folder: Any, multihost_utils: Any) -> list[bytes]:
    """The bytes of every process. They may differ in number, so the longest sets the size."""
    _await_all(folder)
    sizes = np.ravel(multihost_utils.process_allgather(np.array(packed.size)))
    padded = np.zeros(int(np.max(sizes)), np.uint8)
    padded[: packed.size] = packed
    everyones = multihost_utils.process_allgather(padded)
    return [content[: int(size)].tobytes() for size, content in zip(sizes, everyones, strict=True)]


def _savez(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpacked(array: np.ndarray, like: Any) -> Any:
    if is_key(like):
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))
    if isinstance(like, Growing):
        return array.view(Growing)
    return array if isinstance(like, np.ndarray) else jnp.asarray(array)


_waited = 0


def _await_all(folder: Any) -> None:
    """Wait until every process has come this far; a lost one is a sentence here, not a hang in what follows."""
    global _waited
    from jax._src import distributed  # the barrier has no public name

    _waited += 1
    with told_if_lost(folder):
        distributed.global_state.client.wait_at_barrier(f"thalweg-{_waited}", 1000 * 60 * 60 * 24)


@contextlib.contextmanager
def told_if_lost(folder: Any) -> Iterator[None]:
    """Around what waits for the other processes: the loss of one is one sentence, with the way on."""
    try:
        yield
    except jax.errors.JaxRuntimeError as problem:
        found = re.search(r"Task (\d+) heartbeat timeout", str(problem))
        why = f"process {found[1]} gives no sign of life" if found else str(problem).split(". ")[0][:120]
        told = f"another process of this run was lost ({why})"
        if folder is not None:
            told += f"; the checkpoints are in {folder}: go on with resume=True on those that are left"
        raise RuntimeError(told) from None
