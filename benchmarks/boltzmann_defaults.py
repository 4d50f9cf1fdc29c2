"""How the defaults of training were chosen: on a validation part of the digits, never on the test part.

Of the 1,500 training digits, 1,200 train and 300 are held out; the 297 test digits are not read here. Every setting
is tried with several seeds and two sizes of machine, and judged by the likelihood of the held-out part, with its error
over seeds. `benchmarks/boltzmann.py` looks at the test set, once, with what was chosen.
"""

import itertools
import sys
import time

import numpy as np

import thalweg as tw
from _digits import training_digits, validation_split

RATES = (0.1, 0.2, 0.3, 0.5, 1.0)
BATCHES = (25, 50, 100)
EPOCHS = (100, 200, 400)
SEEDS = (0, 1, 2)


def judge(hidden, seeds=SEEDS, **settings):
    """(mean held-out likelihood over seeds, its standard error, seconds a fit, compilation included once)."""
    train, held_out = validation_split(training_digits())
    found, seconds = [], []
    for seed in seeds:
        began = time.perf_counter()
        fitted = tw.energy.fit(tw.energy.RBM.start(train, hidden, seed), train, key=seed, **settings)
        seconds.append(time.perf_counter() - began)
        likelihood = tw.energy.log_likelihood(fitted.model, held_out, steps=1000, chains=100, key=seed)
        found.append(float(likelihood) if likelihood.ok else np.nan)
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found)), np.median(seconds)


def main(hidden_sizes=(16, 64), centrings=(True, False)):
    for hidden, centred in itertools.product(hidden_sizes, centrings):
        print(f"\n{hidden} hidden units, centred={centred}: held-out nats an image, mean of {len(SEEDS)} seeds")
        print(f"{'rate':>6}{'batch':>7}{'epochs':>8}{'nats':>10}{'error':>8}{'seconds':>9}", flush=True)
        for epochs, batch_size, rate in itertools.product(EPOCHS, BATCHES, RATES):
            settings = {"optimizer": rate, "batch_size": batch_size, "epochs": epochs, "centred": centred}
            mean, error, seconds = judge(hidden, **settings)
            print(f"{rate:>6}{batch_size:>7}{epochs:>8}{mean:>10.3f}{error:>8.3f}{seconds:>9.2f}", flush=True)
    for hidden in hidden_sizes:
        print(f"\n{hidden} hidden units, the defaults but for one setting")
        for name, value in (
            *[("chains", n) for n in (50, 200)],
            ("sweeps", 3),
            ("weight_decay", 1e-4),
            ("method", "cd"),
        ):
            mean, error, seconds = judge(hidden, **{name: value})
            print(f"  {name}={value}: {mean:.3f} ± {error:.3f}, {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main(tuple(int(size) for size in sys.argv[1:]) or (16, 64))
