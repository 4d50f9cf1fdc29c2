"""What a tally costs: beside the same training without one, beside PyTorch, and beside captum and kronfluence.

Ratios are medians over alternating turns in one process; the first call, which compiles, is told apart.
"""

import inspect
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import thalweg as tw
from _timing import alternate, is_one_thread, on_one_thread, peer, show, target
from thalweg.knowledge import Tally


def runner(process: Any, state: Any, steps: int, **folds: Any) -> Any:
    """A training of so many steps in one chunk."""
    options = tw.Options(chunk=steps)
    return lambda: tw.simulate(process, state, steps, key=0, folds=folds, options=options).state.params


def single_sample(steps: int = 9600) -> None:
    """784-100-2, one datum a step: the scan beside a loop of PyTorch's, and tallies of two groups on it."""
    draw = np.random.default_rng(0)
    x, y = draw.random((2000, 784)), draw.integers(0, 2, 2000)
    model = tw.systems.perceptron((784, 100, 2))
    learner = tw.processes.sgd(model.loss, (jnp.asarray(x), jnp.eye(2)[y]), 0.01)
    start = learner.init(model.init(0))
    contenders = {
        "scan": runner(learner, start, steps),
        "scan, absolute tally": runner(learner, start, steps, tally=Tally(y, learner, kinds="absolute")),
        "scan, both tallies": runner(learner, start, steps, tally=Tally(y, learner)),
    }
    torch = peer("torch")
    if torch:
        contenders["torch loop, a tenth of the steps"] = torch_single(torch, x, y, steps // 10)
    times = alternate(contenders, turns=5)
    show("784-100-2, one datum a step", times)
    if torch:
        target("torch loop / scan", 10 * times.ratio("torch loop, a tenth of the steps", "scan"), least=10)
    target("single-sample tally / scan", times.ratio("scan, absolute tally", "scan"), most=1.6)
    target("single-sample, both kinds / scan", times.ratio("scan, both tallies", "scan"), most=1.6)


def torch_single(torch: Any, x: Any, y: Any, steps: int) -> Any:
    nn = torch.nn
    rows = torch.tensor(x), torch.nn.functional.one_hot(torch.tensor(y)).double()

    def train() -> None:
        model = nn.Sequential(nn.Linear(784, 100), nn.Softplus(), nn.Linear(100, 2), nn.Softplus()).double()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for i in range(steps):
            loss = 0.5 * (model(rows[0][i % 2000]) - rows[1][i % 2000]).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def minibatch(steps: int = 200) -> None:
    """784-256-10, 128 a step, ten groups: what each way of tallying costs over the training itself."""
    draw = np.random.default_rng(0)
    x, y = draw.random((2000, 784)), draw.integers(0, 10, 2000)
    model = tw.systems.perceptron((784, 256, 10), "softplus", "xent")
    for name, optimizer in (("SGD", 0.01), ("Adam", optax.adam(1e-3))):
        learner = tw.processes.sgd(model.loss, (jnp.asarray(x), jnp.asarray(y)), optimizer, batch_size=128)
        start = learner.init(model.init(0))
        ways = {
            "absolute": Tally(y, learner, kinds="absolute"),
            "both": Tally(y, learner),
            "every tenth step": Tally(y, learner, kinds="absolute", every=10),
        }
        contenders = {"no tally": runner(learner, start, steps)}
        contenders |= {way: runner(learner, start, steps, tally=tally) for way, tally in ways.items()}
        times = alternate(contenders, turns=5)
        show(f"784-256-10, 128 a step, ten groups, {name}", times)
        for way, most in (("absolute", 3), ("both", 4), ("every tenth step", 1.3)):
            target(f"{name}, {way} / no tally", times.ratio(way, "no tally"), most=most)


def hooks(steps: int = 100) -> None:
    """The same network in PyTorch: the cost of listening."""
    torch = peer("torch")
    if not torch:
        return
    from thalweg.knowledge.torch import Tally as TorchTally

    nn = torch.nn
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(2000, 784, generator=draw), torch.randint(0, 10, (2000,), generator=draw)

    rules = {
        "SGD": lambda p: torch.optim.SGD(p, 0.01),
        "momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
        "Adam": lambda p: torch.optim.Adam(p, 1e-3),
    }

    def train(rule: str, **how: Any) -> Any:
        def run() -> None:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(784, 256), nn.Softplus(), nn.Linear(256, 10))
            optimizer = rules[rule](model.parameters())
            tally = TorchTally(model, optimizer, groups=10, **how) if how else None
            for i in range(steps):
                w = slice(128 * (i % 15), 128 * (i % 15) + 128)
                if tally:
                    tally.labels = y[w]
                nn.functional.cross_entropy(model(x[w]), y[w]).backward()
                optimizer.step()
                optimizer.zero_grad()
            if tally:
                tally.conservation  # noqa: B018  (steps that are kept are added up when they are asked for)

        return run

    for rule in rules:
        ways = {
            "no tally": train(rule),
            "absolute": train(rule, kinds="absolute"),
            "both": train(rule, kinds=("absolute", "signed")),
            "every tenth step": train(rule, kinds="absolute", every=10),
        }
        times = alternate(ways, turns=5)
        show(f"784-256-10, 128 a step, ten groups, PyTorch, single precision, {rule}", times)
        if rule == "SGD":
            target("torch hooks, absolute / no tally", times.ratio("absolute", "no tally"), most=2.5)


# --- Replay: how near a tally from checkpoints is to the live one ----------------------------------------------------


def convolutions(torch: Any) -> Any:
    """(model, data, groups): a small convolutional network on the digits, by class."""
    from sklearn.datasets import load_digits

    nn, digits = torch.nn, load_digits()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
    )
    x, y = torch.tensor(digits.images[:, None] / 16.0).double(), torch.tensor(digits.target)
    return model.double(), (x, y), y


def transformer(torch: Any) -> Any:
    """(model, data, groups): one layer that learns to repeat, to count up or to reverse, by task."""
    nn = torch.nn

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.place = nn.Embedding(12, 16), nn.Embedding(6, 16)
            self.attend, self.norm = nn.MultiheadAttention(16, 2, batch_first=True), nn.LayerNorm(16)
            self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 12)

        def forward(self, i: Any) -> Any:
            x = self.embed(i) + self.place(torch.arange(6).expand(i.shape))
            h = self.norm(x)
            x = x + self.attend(h, h, h, need_weights=False)[0]
            return self.head(x + self.down(torch.relu(self.up(x)))).transpose(1, 2)

    task, i = torch.arange(900) % 3, torch.randint(3, 12, (900, 6))
    i[:, 0] = task
    y = torch.stack([i, 3 + (i - 2) % 9, i.flip(1)])[task, torch.arange(900)]
    return Small().double(), (i, y), task


def replayed(torch: Any, build: Any, checkpoints: int, seed: int, steps: int = 320, rate: float = 0.2) -> float:
    """The correlation, over parameters and groups, of the logarithms of the live tally and of one from checkpoints.

    The replay sees one batch of the data at each checkpoint, the same size as in training.
    """
    import copy

    from thalweg.knowledge.torch import Tally as TorchTally
    from thalweg.knowledge.torch import replay

    torch.manual_seed(seed)
    model, (x, y), labels = build(torch)
    loss = lambda net, batch: torch.nn.functional.cross_entropy(net(batch[0]), batch[1])  # noqa: E731
    draw = lambda: torch.randint(0, len(x), (64,))  # noqa: E731
    optimizer = torch.optim.SGD(model.parameters(), rate)
    live = TorchTally(model, optimizer, groups=int(labels.max()) + 1, kinds="absolute")
    saved = []
    for step in range(steps):
        if step % (steps // checkpoints) == 0:
            saved.append(copy.deepcopy(model.state_dict()))
        w = draw()
        live.labels = labels[w]
        loss(model, (x[w], y[w])).backward()
        optimizer.step()
        optimizer.zero_grad()
    live.remove()
    again = copy.deepcopy(model)

    def load(state: Any) -> Any:
        again.load_state_dict(state)
        return again

    def batches(_: Any) -> Any:
        w = draw()
        yield (x[w], y[w]), labels[w]

    found = replay(
        saved, load, batches, lambda p: torch.optim.SGD(p, rate), live.groups, loss=loss, steps=steps, kinds="absolute"
    )
    pairs = [torch.cat([tree[name][:-1].flatten() for name in tree]) for tree in (live.absolute, found.absolute)]
    moved = (pairs[0] > 0) & (pairs[1] > 0)
    return float(torch.corrcoef(torch.stack(pairs)[:, moved].log())[0, 1])


def replays() -> None:
    """What a finished run still tells, by how many checkpoints were kept."""
    torch = peer("torch")
    if not torch:
        return
    print("\nCorrelation of a replayed tally with the live one (logarithms, 320 steps), mean and spread of 3 seeds")
    for build in (convolutions, transformer):
        for checkpoints in (5, 20, 80):
            found = np.array([replayed(torch, build, checkpoints, seed) for seed in range(3)])
            print(f"  {build.__name__:<16}{checkpoints:>4} checkpoints{found.mean():>8.3f} +- {found.std(ddof=1):.3f}")


# --- Time to a first answer: which of 1,000 training data matter to 50 predictions, or to which parameters -----------


def first_answers() -> None:
    """64-32-10 on 1,000 data: seconds and lines from a training script to the first answer, each from its start."""
    torch = peer("torch")
    if not torch:
        return
    model, data = problem(torch)
    fit(torch, model, data, torch.optim.SGD(model.parameters(), 0.1))  # what PyTorch loads at first use is nobody's
    print("\nTime to a first answer, 64-32-10, 1,000 data (training included): seconds, and of the processor")
    for name, module, ask in (
        ("thalweg.knowledge.torch", "torch", ask_tally),
        ("captum TracInCP", "captum", ask_captum),
        ("kronfluence EK-FAC", "kronfluence", ask_kronfluence),
    ):
        if not peer(module):
            continue
        began, busy = time.perf_counter(), time.process_time()
        ask(torch)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        lines = [line for line in inspect.getsource(ask).splitlines()[2:] if line.strip()]
        print(f"  {name:<34}{seconds:>8.2f} s{busy:>8.2f} s{len(lines):>6} lines")


def problem(torch: Any) -> Any:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    return model, torch.utils.data.TensorDataset(torch.randn(1000, 64), torch.randint(0, 10, (1000,)))


def fit(torch: Any, model: Any, data: Any, optimizer: Any, before: Any = None, after: Any = None) -> None:
    for epoch in range(5):
        for x, y in torch.utils.data.DataLoader(data, 50):
            if before:
                before(y)
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        if after:
            after(epoch)


def ask_tally(torch: Any) -> Any:
    """Which parameters each class moved."""
    from thalweg.knowledge.torch import Tally as TorchTally

    model, data = problem(torch)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    tally = TorchTally(model, optimizer, groups=10)
    fit(torch, model, data, optimizer, before=lambda y: setattr(tally, "labels", y))
    return tally.result().share(1, 7)


def ask_captum(torch: Any) -> Any:
    """The influence of every training datum on 50 predictions, from five checkpoints."""
    import tempfile

    from captum.influence import TracInCP

    model, data = problem(torch)
    folder = tempfile.mkdtemp()
    save = lambda epoch: torch.save(model.state_dict(), f"{folder}/{epoch}.pt")  # noqa: E731
    fit(torch, model, data, torch.optim.SGD(model.parameters(), 0.1), after=save)
    paths = [f"{folder}/{epoch}.pt" for epoch in range(5)]

    def load(model: Any, path: str) -> float:
        model.load_state_dict(torch.load(path))
        return 1.0

    loss = torch.nn.CrossEntropyLoss(reduction="sum")
    tracin = TracInCP(
        model, data, paths, checkpoints_load_func=load, loss_fn=loss, batch_size=200, sample_wise_grads_per_batch=True
    )
    x, y = data[:50]
    return tracin.influence((x, y))


def ask_kronfluence(torch: Any) -> Any:
    """The influence of every training datum on 50 predictions, with EK-FAC."""
    import tempfile

    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.task import Task

    class Classify(Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
            x, y = batch
            logits = model(x)
            if sample:
                y = torch.multinomial(torch.softmax(logits.detach(), -1), 1).flatten()
            return torch.nn.functional.cross_entropy(logits, y, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> Any:
            return self.compute_train_loss(batch, model)

    model, data = problem(torch)
    fit(torch, model, data, torch.optim.SGD(model.parameters(), 0.1))
    task = Classify()
    analyzer = Analyzer("first", prepare_model(model, task), task, output_dir=tempfile.mkdtemp(), disable_tqdm=True)
    analyzer.fit_all_factors("ekfac", dataset=data, per_device_batch_size=200)
    some = torch.utils.data.Subset(data, range(50))
    analyzer.compute_pairwise_scores("scores", "ekfac", some, data, per_device_query_batch_size=50)
    return analyzer.load_pairwise_scores("scores")


if __name__ == "__main__":
    print(f"JAX {jax.__version__}, {'one thread' if is_one_thread() else 'all threads'}")
    single_sample()
    minibatch()
    hooks()
    if not is_one_thread():
        replays()
        first_answers()
        on_one_thread(__file__)
