"""Checkpoints in a folder: written whole or not at all, the last two kept, and only the same run goes on from one."""

import contextlib
import hashlib
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import thalweg
from thalweg._edge import shown
from thalweg._files import read_array

KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{15})\.npz")
_ADDRESS = re.compile(r"0x[0-9a-f]+")


def digest(*parts: Any) -> str:
    """A short name of texts, arrays and pytrees of arrays: equal for equal ones, in every process.

    >>> digest("a", np.arange(3)) == digest("a", np.arange(3)), digest("a") == digest("b")
    (True, False)
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            # Where a function stands in memory is not what it does.
            found.update(_ADDRESS.sub("", part).encode())
            continue
        for leaf in jax.tree.leaves(part):
            if hasattr(leaf, "dtype"):
                array = as_plain(leaf)
                found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
            elif isinstance(leaf, bool | int | float | complex | str):
                found.update(repr(leaf).encode())
    return found.hexdigest()[:16]


def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides its arguments."""
    return {"thalweg": thalweg.__version__, "jax": jax.__version__, "machine": platform.machine()}


class Folder:
    """A folder with the checkpoints of one run.

    **Arguments**

    - `path`: the folder; it is made if it is not there.
    - `identity`: what the run is, name by name: a checkpoint that differs in one of these is refused.
    - `seconds`: how long to wait between two checkpoints.
    - `settings`: anything else worth telling a reader of the file.

    Use it as a context: inside, no other run can write there.

    >>> import tempfile
    >>> with Folder(tempfile.mkdtemp(), {"process": "walk"}) as folder:
    ...     folder.keep(7, {"x": np.ones(2)})
    ...     step, found = folder.newest({"x": np.zeros(2)})
    >>> step, found["x"].tolist()
    (7, [1.0, 1.0])
    """

    def __init__(
        self, path: Any, identity: dict[str, Any], seconds: float = 60.0, settings: dict[str, Any] | None = None
    ):
        self.path = Path(path)
        self.identity = identity | versions()
        self.settings = settings or {}
        self.seconds = seconds
        self.written = time.monotonic()
        self._held: contextlib.ExitStack | None = None

    def __enter__(self) -> "Folder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as problem:
            raise ValueError(
                f"checkpoint must be a folder that can be written, got {self.path} "
                f"({problem.strerror or problem}): name another folder"
            ) from None
        self._held = contextlib.ExitStack()
        self._held.enter_context(_alone_in(self.path))
        return self

    def __exit__(self, *problem: Any) -> None:
        if self._held is not None:
            self._held.close()

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, oldest first."""
        return sorted(int(match[1]) for file in self.path.iterdir() if (match := _NAME.fullmatch(file.name)))

    def refuse_old(self) -> None:
        """Refuse to begin anew where an earlier run has left checkpoints."""
        if found := self.steps():
            raise ValueError(
                f"{self.path} holds a checkpoint of step {found[-1]}: pass resume=True to go on from it, "
                "or name another folder"
            )

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self.written >= self.seconds

    def keep(self, step: int, tree: Any) -> None:
        """Write a checkpoint.

        One that cannot be written (a full disk) is a warning: the run goes on, and the last one stays.
        """
        try:
            self._write(step, tree)
        except OSError as problem:
            warnings.warn(
                f"the checkpoint of step {step} could not be written to {self.path} "
                f"({problem.strerror or problem}): the run goes on, and the last checkpoint is of step "
                f"{self.steps()[-1] if self.steps() else 'none'}; make room there",
                RuntimeWarning,
                stacklevel=2,
            )
        self.written = time.monotonic()

    def keep_items(self, answers: list[dict[str, np.ndarray]]) -> None:
        """Write the answers so far of a job of many pieces, all with the same names."""
        self.settings = self.settings | {"names": sorted(answers[0])}
        self.keep(len(answers), [[answer[name] for name in sorted(answer)] for answer in answers])

    def newest_items(self) -> list[dict[str, np.ndarray]]:
        """The answers in the newest whole checkpoint, none where there is none."""

        def read(file: Path, header: dict[str, Any]) -> list[dict[str, np.ndarray]]:
            names = header["settings"]["names"]
            leaves = iter(range(header["step"] * len(names)))
            return [{name: _leaf(file, header, next(leaves)) for name in names} for _ in range(header["step"])]

        found = self._newest(read)
        return [] if found is None else found[1]

    def _write(self, step: int, tree: Any) -> None:
        header: dict[str, Any] = {
            "step": step,
            "identity": self.identity,
            "settings": self.settings,
            "time": time.time(),
        }
        plain = [as_plain(leaf) for leaf in jax.tree.leaves(tree)]
        leaves: dict[str, Any] = {f"leaf{number}": leaf for number, leaf in enumerate(plain)}
        header["empty"] = {str(n): [str(leaf.dtype), leaf.shape] for n, leaf in enumerate(plain) if leaf.size == 0}
        name = f"checkpoint-{step:015d}.npz"
        draft = self.path / f".{name}.part"
        try:
            with draft.open("wb") as file:
                np.savez(file, allow_pickle=False, header=_as_bytes(header), **leaves)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path / name)
            _sync(self.path)
        finally:
            draft.unlink(missing_ok=True)
        for old in self.steps()[:-KEPT]:
            (self.path / f"checkpoint-{old:015d}.npz").unlink(missing_ok=True)

    def newest(self, like: Any) -> tuple[int, Any] | None:
        """The step and the tree of the newest whole checkpoint, in the structure of `like`; `None` without any.

        A torn file is passed over with a warning where the one before it is whole.

        **Raises** `ValueError` for a checkpoint of another run or another version, and where all files are torn.
        """
        return self._newest(lambda file, header: _filled(file, header, like))

    def _newest(self, read: Callable[[Path, dict[str, Any]], Any]) -> tuple[int, Any] | None:
        torn = ""
        for step in reversed(self.steps()):
            file = self.path / f"checkpoint-{step:015d}.npz"
            try:
                header = _header(file)
                self._check(file, header)
                tree = read(file, header)
            except _Torn as problem:
                torn = torn or str(problem)
                continue
            if torn:
                warnings.warn(f"{torn}; going on from step {step} in its place", RuntimeWarning, stacklevel=4)
            return step, tree
        if torn:
            raise ValueError(f"{torn}, and no whole checkpoint is left in {self.path}: start anew in another folder")
        return None

    def _check(self, file: Path, header: dict[str, Any]) -> None:
        found = header.get("identity", {})
        for name, wanted in self.identity.items():
            if found.get(name) != wanted:
                what = _WORDS.get(name, f"another {name} ({shown(found.get(name))}, not {shown(wanted)})")
                raise ValueError(
                    f"{file} is of {what.format(found=found.get(name), wanted=wanted)}: go on with what wrote it, "
                    "or name another folder"
                )


_WORDS = {
    "process": "another process: its step or its settings differ",
    "score": "another score",
    "function": "another function",
    "watch": "a run that records or folds something else",
    "state": "a run from another start",
    "key": "a run with another key",
    "thalweg": "another version of thalweg ({found}, not {wanted})",
    "jax": "another version of jax ({found}, not {wanted}), whose numbers may differ in the last bit",
    "machine": "another kind of machine ({found}, not {wanted}), whose numbers may differ in the last bit",
}


def describe(path: str | os.PathLike) -> str:
    """What a checkpoint is and how it was made, in lines for a reader."""
    header = _header(Path(path))
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(header.get("time", 0))))
    lines = [f"{path}: a checkpoint of step {header.get('step')}, written {made} UTC", "how it was made:"]
    told = header.get("settings", {}) | header.get("identity", {})
    return "\n".join([*lines, *(f"  {name} = {value}" for name, value in told.items())])


class _Torn(ValueError):
    """A file that is cut short or damaged."""


def _header(file: Path) -> dict[str, Any]:
    try:
        header = json.loads(read_array(file, "header").tobytes())
        if not isinstance(header, dict):
            raise ValueError("its header is no table")
        return header
    except ValueError:
        raise _Torn(f"{file} is torn, or no checkpoint") from None


def _leaf(file: Path, header: dict[str, Any], number: int) -> np.ndarray:
    if str(number) in header["empty"]:
        dtype, shape = header["empty"][str(number)]
        return np.zeros(shape, dtype)
    try:
        return read_array(file, f"leaf{number}")
    except ValueError:
        raise _Torn(f"{file} is torn") from None


def _filled(file: Path, header: dict[str, Any], like: Any) -> Any:
    """The leaves of a file in the structure, the shapes and the types of `like`."""
    wanted, structure = jax.tree.flatten(like)
    found = []
    for number, leaf in enumerate(wanted):
        plain, grows = as_plain(leaf), isinstance(leaf, Growing)
        array = _leaf(file, header, number)
        if array.dtype != plain.dtype or (array.shape != plain.shape and not grows):
            raise ValueError(
                f"{file} is of another run: it holds {array.dtype} of shape {array.shape} where "
                f"{plain.dtype} of shape {plain.shape} is wanted; name another folder"
            )
        if is_key(leaf):
            found.append(jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)))
        else:
            found.append(array if isinstance(leaf, np.ndarray) else jax.numpy.asarray(array))
    return jax.tree.unflatten(structure, found)


class Growing(np.ndarray):
    """A leaf whose shape in a checkpoint is not known beforehand: what was recorded so far."""


def growing(tree: Any) -> Any:
    """Marks the leaves of a template as growing."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).view(Growing), tree)


def is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def as_plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _as_bytes(header: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(header, default=shown).encode(), np.uint8)


def _sync(folder: Path) -> None:
    """The new name in the folder reaches the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    import fcntl

    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ValueError(
                f"another run (process {lock.read().strip() or 'unknown'}) writes into {folder}: "
                "give each run a folder of its own"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
