"""The binarised digits that the benchmarks of Boltzmann machines share, in one split for everybody."""

import numpy as np


def split_digits():
    """(1,500 training digits, 297 test digits, and the labels of both): pixels of at least half ink are 1."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw, labels = load_digits(return_X_y=True)
    return train_test_split((raw >= 8).astype(float), labels, test_size=297, random_state=0, stratify=labels)


def training_digits():
    """The training digits and their labels."""
    train, _, labels, _ = split_digits()
    return train, labels


def validation_split(digits):
    """(1,200 to train on, 300 held out) of the training digits."""
    from sklearn.model_selection import train_test_split

    images, labels = digits
    return train_test_split(images, test_size=300, random_state=0, stratify=labels)


def independent_pixels(train, test):
    """The likelihood of independent pixels, one half count added to each value: the least a model must beat."""
    share = (train.sum(axis=0) + 0.5) / (len(train) + 1)
    return float(np.mean(np.sum(test * np.log(share) + (1 - test) * np.log1p(-share), axis=1)))
