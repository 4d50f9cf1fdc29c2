"""Real handwriting: the digits that ship with scikit-learn, or MNIST-style files of the user's own."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Digits(NamedTuple):
    """Images of digits.

    - `images`: (n, pixels), grey values in [1/256, 1]. - `labels`: (n,), the digit written.
    - `shape`: rows and columns of an image. - `source`: where they come from.
    """

    images: Float[np.ndarray, "n pixels"]
    labels: Int[np.ndarray, " n"]
    shape: tuple[int, int]
    source: str

    def one_hot(self) -> Float[np.ndarray, "n classes"]:
        """The labels as unit vectors, one place for each class that occurs, in increasing order."""
        classes = np.unique(self.labels)
        return (self.labels[:, None] == classes).astype(float)

    def split(self, fraction: float, seed: int = 0) -> "tuple[Digits, Digits]":
        """Two parts, the first holding `fraction` of every class, chosen at random by `seed`."""
        if isinstance(fraction, bool) or not isinstance(fraction, float | np.floating) or not 0 < fraction < 1:
            raise ValueError(f"fraction must be a number between 0 and 1, got {fraction!r}")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"seed must be a whole number >= 0, got {seed!r}")
        rng = np.random.default_rng(seed)
        first = np.zeros(len(self.labels), dtype=bool)
        for label in np.unique(self.labels):
            of_class = rng.permutation(np.flatnonzero(self.labels == label))
            first[of_class[: round(fraction * len(of_class))]] = True
        return self._take(first), self._take(~first)

    def _take(self, which: Any) -> "Digits":
        return self._replace(images=self.images[which], labels=self.labels[which])


def digits(path: str | Path | None = None, keep: tuple[int, ...] | None = None, frame: int = 8) -> Digits:
    """Handwritten digits: 1,797 images of 8 x 8 pixels from scikit-learn, or IDX files (MNIST) from `path`.

    **Arguments**

    - `path`: a folder that holds `*images-idx3-ubyte` and `*labels-idx1-ubyte` files (plain or `.gz`; the
      `train` pair if there are several), or an images file whose labels lie beside it.
    - `keep`: the digits to keep; all by default.
    - `frame`: 8, or 28: the small images enlarged 2.5 times by cubic splines, in the middle of 28 x 28 zeros,
      as MNIST frames its digits. Not used with `path`.

    Grey values are `p/16` clipped to [1/256, 1]; from files, `(p + 1)/256`.

    **Raises** `ValueError` (or `FileNotFoundError`) for files that are missing, truncated, or not what they say.

    >>> import thalweg as tw
    >>> data = tw.systems.digits(keep=(1, 7))
    >>> data.images.shape, data.source
    ((361, 64), 'scikit-learn digits')
    """
    if path is not None and not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a folder or a file, got {path!r}: leave it out for scikit-learn's digits")
    if keep is not None and not isinstance(keep, list | tuple | range | set | np.ndarray):
        raise TypeError(f"keep must be a tuple of digits such as (1, 7), got {keep!r}")
    if path is None:
        found = _shipped(frame)
    else:
        found = _from_files(Path(path))
    if keep is None:
        return found
    missing = sorted(set(keep) - set(found.labels.tolist()))
    if missing or not keep:
        raise ValueError(f"keep must name digits that occur in {found.source}, got {tuple(keep)!r}")
    return found._take(np.isin(found.labels, keep))


def _shipped(frame: int) -> Digits:
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    if frame not in (8, 28):
        raise ValueError(f"frame must be 8 or 28, got {frame!r}")
    raw, labels = load_digits(return_X_y=True)
    images = raw.reshape(-1, 8, 8) / 16
    if frame == 28:
        framed = np.zeros((len(images), 28, 28))
        framed[:, 4:24, 4:24] = zoom(images, (1, 2.5, 2.5), order=3)
        images = framed
    images = np.clip(images, 1 / 256, 1).reshape(len(images), -1)
    return Digits(images, labels, (frame, frame), "scikit-learn digits")


def _from_files(path: Path) -> Digits:
    from thalweg._files import read_idx

    images_file = _images_file(path)
    labels_file = images_file.with_name(images_file.name.replace("images", "labels").replace("idx3", "idx1"))
    if not labels_file.exists():  # one of the pair may be compressed and the other not
        other = labels_file.with_suffix("") if labels_file.suffix == ".gz" else Path(f"{labels_file}.gz")
        if not other.exists():
            raise FileNotFoundError(f"no labels beside {images_file}: expected {labels_file.name}")
        labels_file = other
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(f"{images_file} must hold bytes in 3 dimensions, got {images.dtype} in {images.ndim}")
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"{labels_file} must hold one label an image: {len(images)} images, labels {labels.shape}")
    grey = (images.reshape(len(images), -1).astype(float) + 1) / 256
    return Digits(grey, labels.astype(int), images.shape[1:], str(images_file))


def _images_file(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(
            f"path must exist, but there is nothing at {path}: give a folder of IDX files, or an images file"
        )
    if path.is_file():
        if "images" not in path.name:
            raise ValueError(f"path must be called *images*, got {path}, so that its labels can be found beside it")
        return path
    found = sorted(file for file in path.iterdir() if "images" in file.name and "idx3" in file.name)
    if not found:
        raise FileNotFoundError(
            f"path must hold an *images-idx3-ubyte file (plain or .gz), but there is none in {path}"
        )
    return next((file for file in found if file.name.startswith("train")), found[0])
