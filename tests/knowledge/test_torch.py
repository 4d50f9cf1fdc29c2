"""The door for PyTorch: tallies conserved through layers, optimizers, accumulation, clipping and processes."""

import subprocess
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch installs it and runs these")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from thalweg.knowledge.torch import Tally, callback, memory, replay  # noqa: E402

F64 = torch.float64


class Transformer(nn.Module):
    """A small one, with tied embeddings and PyTorch's own attention layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.last = nn.LayerNorm(8), nn.RMSNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, i):
        x = self.embed(i)
        h = self.norm(x)
        mask = nn.Transformer.generate_square_subsequent_mask(i.shape[1], dtype=x.dtype)
        x = x + self.attend(h, h, h, attn_mask=mask, need_weights=False)[0]
        return self.head(self.last(x + self.down(torch.relu(self.up(x)))))


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 4, 3, padding="same", bias=False)
        self.batch = nn.BatchNorm2d(4)
        self.c2 = nn.Conv2d(4, 6, 3, stride=2, groups=2, padding_mode="circular", padding=1)
        self.norm = nn.GroupNorm(2, 6)
        self.back = nn.ConvTranspose2d(6, 2, 2, dilation=2, output_padding=1)
        self.out = nn.LazyLinear(3)

    def forward(self, x):
        x = torch.relu(self.batch(self.c1(x)))
        return self.out(self.back(torch.tanh(self.norm(self.c2(x)))).flatten(1))


def tokens(draw):
    i, target = (torch.randint(0, 11, (6, 5), generator=draw) for _ in range(2))
    return i, target, torch.randint(-1, 3, (6,), generator=draw)


def images(draw):
    return (
        torch.randn(6, 1, 8, 8, generator=draw, dtype=F64),
        torch.randint(0, 3, (6,), generator=draw),
        torch.randint(-1, 3, (6,), generator=draw),
    )


MODELS = {"transformer": (Transformer, tokens), "convolutions": (Convolutions, images)}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1, dampening=0.2),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, lr_decay=0.1),
}


def made(name, dtype=F64):
    torch.manual_seed(0)
    build, data = MODELS[name]
    model = build().to(dtype)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        x = data(draw)[0]
        model(x.to(dtype) if x.is_floating_point() else x)
    return model, lambda: data(draw)


def cost(model, x, target):
    return functional.cross_entropy(model(x).flatten(0, -2), target.flatten())


def trained(name, optimizer, steps=4, clip=None, accumulate=1, **how):
    """A short training: the tally, and how far each parameter went."""
    model, batch = made(name)
    optimizer = optimizer(model.parameters())
    tally = Tally(model, optimizer, groups=3, **how)
    start = {key: p.detach().clone() for key, p in model.named_parameters()}
    for _ in range(steps):
        for _ in range(accumulate):
            x, target, tally.labels = batch()
            (cost(model, x, target) / accumulate).backward()
        if clip:
            clip(model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    return tally, {key: p.detach() - start[key] for key, p in model.named_parameters()}


def check_sums(tally, moved):
    """The groups' parts sum to the change, in every parameter, beyond what is lost to rounding."""
    result = tally.result()
    assert result.conservation <= 1e-12 and result.ok, result.message
    assert not tally.refused and set(tally.absolute) == set(moved)
    for name, change in moved.items():
        size, off = tally.absolute[name].sum(0), (tally.signed[name].sum(0) - change).abs()
        # A key's bias has no gradient but rounding, which Adam blows up: there the parts need not be the same noise.
        real = size > 1e-6 * size.max()
        if name == "attend.in_proj_bias":
            real[8:16] = False
        assert torch.all(off[real] <= 1e-9 * size[real] + 1e-13), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_the_parts_sum_to_the_change(name, optimizer):
    check_sums(*trained(name, OPTIMIZERS[optimizer]))


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize(
    "clip",
    [lambda p: nn.utils.clip_grad_norm_(p, 0.1), lambda p: nn.utils.clip_grad_value_(p, 0.01)],
    ids=["norm", "value"],
)
def test_accumulated_and_clipped_gradients(optimizer, clip):
    check_sums(*trained("transformer", OPTIMIZERS[optimizer], clip=clip, accumulate=3))


def test_each_groups_part_is_its_own_gradient():
    """Against a backward pass for each group, through momentum; datum by datum."""
    model, batch = made("transformer")
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    tally = Tally(model, optimizer, groups=3)
    momenta = None
    expected = {key: torch.zeros(4, *p.shape, dtype=F64) for key, p in model.named_parameters()}
    for step in range(3):
        x, target, labels = batch()
        labels[0] = step
        tally.labels = labels
        each = functional.cross_entropy(model(x).transpose(1, 2), target, reduction="none").sum(1) / target.numel()
        rows = [
            torch.autograd.grad(each[labels == g].sum(), model.parameters(), retain_graph=True) for g in (0, 1, 2, -1)
        ]
        rows = [[*row] for row in rows]
        for i, p in enumerate(model.parameters()):
            rows[3][i] = rows[3][i] + 0.1 * p.detach()  # decay is nobody's
        if momenta is None:
            momenta = rows
        else:
            momenta = [
                [0.9 * m + 0.8 * g for m, g in zip(*pair, strict=True)] for pair in zip(momenta, rows, strict=True)
            ]
        for g in range(4):
            for i, key in enumerate(expected):
                expected[key][g] -= 0.1 * momenta[g][i]
        cost(model, x, target).backward()
        optimizer.step()
        optimizer.zero_grad()
    for key, rows in expected.items():
        torch.testing.assert_close(tally.signed[key], rows, rtol=1e-9, atol=1e-14)


def test_a_group_that_is_absent_does_not_move():
    """Batches of one group each, with a gap between the groups of a batch: nothing of the batch before is counted."""
    model = nn.Linear(4, 2, dtype=F64)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    tally = Tally(model, optimizer, groups=4)
    draw = torch.Generator().manual_seed(3)
    expected = torch.zeros(5, 2, 4, dtype=F64)
    for labels in ([0, 0, 3], [1, 1, 1], [-1, 1, -1], [3, 3, 3], [0, 2, 2]):
        x = torch.randn(3, 4, generator=draw, dtype=F64)
        tally.labels = torch.tensor(labels)
        model(x).square().sum().backward()
        out = model(x).detach()
        for row, label in enumerate(labels):
            expected[label] -= 0.2 * out[row][:, None] * x[row]
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(tally.signed["weight"], expected, rtol=1e-12, atol=1e-15)
    assert tally.conservation <= 1e-12


def test_the_same_answer_as_in_jax():
    """f = w.x, half squares, both data in every batch, Adam at .1: the numbers of `tw.knowledge.Tally`."""
    model = nn.Linear(2, 1, bias=False, dtype=F64)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    tally = Tally(model, optimizer, groups=2)
    x, t = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=F64), torch.tensor([1.0, 0.0], dtype=F64)
    for _ in range(3):
        tally.labels = torch.tensor([0, 1])
        ((model(x)[:, 0] - t) ** 2).mean().mul(0.5).backward()
        optimizer.step()
        optimizer.zero_grad()
    signed = torch.tensor([[0.32313532, 0.27770086], [-0.12900976, 0.01722425]], dtype=F64)
    torch.testing.assert_close(tally.signed["weight"][:2, 0], signed, atol=6e-9, rtol=0)
    share = tally.result().share(0, 1)["weight"]
    torch.testing.assert_close(share, (tally.absolute["weight"][0] / tally.absolute["weight"][:2].sum(0)))


def test_labels_of_tokens():
    model, batch = made("transformer")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    tally = Tally(model, optimizer, groups=3)
    x, target, _ = batch()
    tally.labels = torch.arange(30).reshape(6, 5) % 4 - 1
    cost(model, x, target).backward()
    before = model.up.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(tally.signed["up.weight"].sum(0), model.up.weight.detach() - before)
    assert tally.counts.tolist() == [8, 7, 7] and tally.result().ok


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_steps_in_between_count_as_other(optimizer):
    for how, steps in (({"every": 2}, 3), ({"window": (3, 5)}, 2)):
        tally, _ = trained("convolutions", OPTIMIZERS[optimizer], steps=6, **how)
        assert tally.tallied == steps and tally.conservation <= 1e-12
        assert all((rows[-1] != 0).any() for rows in tally.absolute.values())


def test_sums_and_strides():
    whole, _ = trained("transformer", OPTIMIZERS["adamw"])
    unit, _ = trained("transformer", OPTIMIZERS["adamw"], per="unit", kinds="absolute")
    module, _ = trained("transformer", OPTIMIZERS["adamw"], per="module")
    strided, _ = trained("transformer", OPTIMIZERS["adamw"], stride=3)
    for name, rows in whole.absolute.items():
        expected = rows if rows.ndim < 3 else rows.flatten(2).sum(2)
        torch.testing.assert_close(unit.absolute[name], expected, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(
            strided.absolute[name], rows if rows.ndim < 3 else rows[:, :, ::3], rtol=1e-6, atol=1e-12
        )
    expected = whole.absolute["up.weight"].sum((1, 2)) + whole.absolute["up.bias"].sum(1)
    torch.testing.assert_close(module.result().absolute["up"], expected)
    torch.testing.assert_close(whole.result().per("module").absolute["up"], expected)
    assert strided.conservation <= 1e-12
    with pytest.raises(AttributeError, match="does not keep signed changes"):
        _ = unit.signed


def test_saved_and_loaded_with_a_checkpoint(tmp_path):
    """Stopped after three steps, saved, and resumed in a new model: the same tally, but for the order of its sums."""
    whole, _ = trained("transformer", OPTIMIZERS["adamw"], steps=6)
    model, batch = made("transformer")
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    tally = Tally(model, optimizer, groups=3)
    for step in range(6):
        if step == 3:
            parts = {"model": model, "optimizer": optimizer, "tally": tally}
            torch.save({key: part.state_dict() for key, part in parts.items()}, tmp_path / "checkpoint")
            tally.remove()
            saved = torch.load(tmp_path / "checkpoint")
            model = Transformer().to(F64)
            optimizer = OPTIMIZERS["adamw"](model.parameters())
            tally = Tally(model, optimizer, groups=3)
            for key, part in (("model", model), ("optimizer", optimizer), ("tally", tally)):
                part.load_state_dict(saved[key])
        x, target, tally.labels = batch()
        cost(model, x, target).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name in whole.absolute:
        torch.testing.assert_close(tally.absolute[name], whole.absolute[name], rtol=1e-14, atol=1e-17)
    assert (tally.counts.tolist(), tally.tallied) == (whole.counts.tolist(), 6)
    with pytest.raises(ValueError, match="state must be of a tally of the same model"):
        Tally(model, optimizer, groups=2).load_state_dict(tally.state_dict())


@pytest.mark.parametrize(("low", "bound"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_autocast(low, bound):
    """In low precision the parts sum to the change to its rounding, and no better."""
    model, batch = made("transformer", torch.float32)
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    tally = Tally(model, optimizer, groups=3)
    start = model.up.weight.detach().clone()
    for _ in range(3):
        x, target, tally.labels = batch()
        with torch.autocast("cpu", dtype=low):
            value = cost(model, x, target)
        (value * 1024).backward()  # as a gradient scaler does, which then divides
        for p in model.parameters():
            p.grad /= 1024
        optimizer.step()
        optimizer.zero_grad()
    result = tally.result()
    assert result.ok and not tally.refused, (result.message, tally.refused)
    assert result.conservation <= bound == result.tolerance
    size = tally.absolute["up.weight"].sum(0)
    off = (tally.signed["up.weight"].sum(0) - (model.up.weight.detach() - start)).abs()
    assert 1e-6 < float((off / size.max()).max()) <= torch.finfo(low).eps


def test_a_skipped_step_leaves_no_trace():
    """As a gradient scaler does on overflow: gradients are thrown away without a step."""
    model, batch = made("transformer")
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    tally = Tally(model, optimizer, groups=3)
    for step in range(4):
        x, target, tally.labels = batch()
        cost(model, x, target).backward()
        if step != 1:
            optimizer.step()
        optimizer.zero_grad(set_to_none=step % 2 == 0)
    assert tally.conservation <= 1e-12 and not tally.refused and tally.tallied == 3


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.gain


def test_what_is_not_known_is_left_out_and_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Unknown(), nn.Linear(4, 4), nn.LSTM(4, 2)).to(F64)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    tally = Tally(model, optimizer, groups=2)
    tally.labels = [0, 1, 1]
    out = model(torch.randn(3, 4, dtype=F64))[0]
    # A penalty on a weight reaches it without passing through its layer.
    (out.square().sum() + model[2].weight.square().sum()).backward()
    optimizer.step()
    assert set(tally.absolute) == {"0.weight", "0.bias", "2.bias"}
    assert tally.refused["1.gain"] == "1: the layer Unknown is not known, and its parameters are left out of the tally"
    assert tally.refused["2.weight"].startswith("2.weight: part of its gradient did not pass through its layer")
    result = tally.result()
    assert result.ok and result.conservation <= 1e-12 and "the layer LSTM is not known" in result.message


def test_refusals():
    model = nn.Linear(4, 3)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    for make, sentence in (
        (
            lambda: Tally(model, torch.optim.NAdam(model.parameters()), 2),
            "optimizer NAdam cannot be tallied: how its update",
        ),
        (
            lambda: Tally(model, torch.optim.RMSprop(model.parameters(), centered=True), 2),
            "optimizer RMSprop with centered",
        ),
        (lambda: Tally(model, 0.1, 2), "optimizer must be a torch optimizer, got float"),
        (lambda: Tally("model", sgd, 2), "model must be a torch module, got str"),
        (lambda: Tally(model, sgd, 0), "groups must be a whole number >= 1, got 0"),
        (lambda: Tally(model, sgd, 2, kinds="both"), "kinds must be"),
        (lambda: Tally(model, sgd, 2, per="layer"), "per must be"),
        (lambda: Tally(model, sgd, 2, window=(2, 1)), "window must be"),
        (
            lambda: Tally(model, sgd, 2, most_bytes=100),
            "this tally would take 5.4e-07 GB, and most_bytes allows 1e-07 GB",
        ),
        (lambda: Tally(nn.LSTM(2, 2), torch.optim.SGD(nn.LSTM(2, 2).parameters(), 0.1), 2), "model has no parameter"),
        (lambda: Tally(model, sgd, 2, most_bytes="4 GB"), "most_bytes must be a number of bytes > 0, got '4 GB'"),
        (lambda: Tally(model, sgd, 2, where=lambda name: False), "model .* trains none of those that where picks"),
        (lambda: replay([], lambda c: model, [], torch.optim.SGD, 2), "checkpoints must hold at least one checkpoint"),
        (
            lambda: replay("runs", lambda c: model, [], torch.optim.SGD, 2),
            "checkpoints must be a list, got one of type",
        ),
        (
            lambda: replay([1], lambda c: model, None, torch.optim.SGD, 2),
            "batches must be a list, got one of type None",
        ),
        (lambda: replay([1], lambda c: model, [], sgd, 2), "optimizer must be a function, got one of type SGD"),
        (lambda: replay([1], lambda c: model, [], torch.optim.SGD, 2, loss=3), "loss must be a function"),
        (
            lambda: replay([1], lambda c: model, [3], lambda p: torch.optim.SGD(p, 0.1), 2),
            r"batches must hold pairs \(batch, labels\), got one of type int",
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{sentence}"):
            make()
    tally = Tally(model, sgd, 2)
    x = torch.ones(3, 4)
    for labels, sentence in (
        (None, "labels must be set before the forward pass"),
        ([0, 1], r"labels must lead like the batch: got shape \(2,\), for a layer whose rows are \(3,\)"),
        ([0, 1, 2], "labels must be from 0 to 1, or -1 for none, got from 0 to 2"),
        ([0.0, 1.0, 1.0], "labels must be whole numbers"),
        ("cat", "labels must be whole numbers, the group of each datum, got 'cat'"),
        ([0, None, 1], "labels must be whole numbers, the group of each datum"),
    ):
        tally.labels = labels
        with pytest.raises((ValueError, TypeError), match=f"^{sentence}"):
            model(x).sum().backward()
    tally.remove()
    model(x).sum().backward()  # no longer listens
    assert tally.tallied == 0


def test_two_processes(tmp_path):
    """Gloo data parallelism: both processes hold one tally, that of the whole batch on one process."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    run = [sys.executable, "-W", "ignore", str(script), str(tmp_path)]
    done = [subprocess.Popen([*run, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    errors = [one.communicate(timeout=240)[1] for one in done]
    assert all(one.returncode == 0 for one in done), errors
    two = [torch.load(tmp_path / f"tally{rank}") for rank in range(2)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5, dtype=F64), nn.Tanh(), nn.Linear(5, 2, dtype=F64))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    tally = Tally(model, optimizer, groups=3)
    draw = torch.Generator().manual_seed(5)
    for _ in range(3):
        x, tally.labels = torch.randn(8, 4, generator=draw, dtype=F64), torch.arange(8) % 4 - 1
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, rows in tally.absolute.items():
        assert torch.equal(two[0]["absolute"][name], two[1]["absolute"][name])
        torch.testing.assert_close(two[0]["absolute"][name], rows, rtol=1e-9, atol=1e-15)
    assert two[0]["conservation"] <= 1e-12
    assert two[0]["counts"].tolist() == tally.counts.tolist() == [6, 6, 6]


WORKER = """
import sys, torch
from torch import nn
from thalweg.knowledge.torch import Tally
folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 5, dtype=torch.float64), nn.Tanh(), nn.Linear(5, 2, dtype=torch.float64))
model = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), 0.01)
tally = Tally(model, optimizer, groups=3)
draw = torch.Generator().manual_seed(5)
for _ in range(3):
    x, labels = torch.randn(8, 4, generator=draw, dtype=torch.float64), torch.arange(8) % 4 - 1
    half = slice(4 * rank, 4 * rank + 4)
    tally.labels = labels[half]
    model(x[half]).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
assert tally.result().ok, tally.result().message
found = {"absolute": tally.absolute, "conservation": tally.conservation, "counts": tally.counts}
torch.save(found, f"{folder}/tally{rank}")
"""


def test_a_callback_of_the_trainer(monkeypatch):
    """With a stand-in for transformers, whose trainer calls what the real one calls."""
    with pytest.raises((ImportError, TypeError), match=r"transformers, which is not installed|labels must be"):
        monkeypatch.setitem(sys.modules, "transformers", None)
        callback(3, labels=lambda inputs: inputs["topic"])
    stand_in = types.ModuleType("transformers")
    stand_in.TrainerCallback = object
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    watching = callback(3, labels=lambda inputs: inputs["topic"], kinds="signed")

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2, dtype=F64)

        def forward(self, x=None, topic=None):
            return types.SimpleNamespace(loss=self.layer(x).square().mean())

    model = Named()
    wrapped = types.SimpleNamespace(optimizer=torch.optim.AdamW(model.parameters(), 0.01))  # as Accelerate does
    watching.on_train_begin(None, None, None, model=model, optimizer=wrapped)
    for _ in range(3):
        model(x=torch.randn(3, 4, dtype=F64), topic=torch.tensor([0, 1, 2])).loss.backward()
        wrapped.optimizer.step()
        wrapped.optimizer.zero_grad()
    watching.on_train_end(None, None, None)
    assert watching.tally.tallied == 3 and watching.tally.counts.tolist() == [3, 3, 3] and watching.tally.result().ok


def test_replay_from_checkpoints():
    """With every step a checkpoint, a replay of plain descent is the live tally; with fewer it is near."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(F64)
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    live = Tally(model, optimizer, groups=3)
    draw = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(9, 6, generator=draw, dtype=F64), torch.randint(0, 3, (9,), generator=draw)) for _ in range(8)
    ]
    loss = lambda net, batch: functional.cross_entropy(net(batch[0]), batch[1])  # noqa: E731
    states = []
    for batch in batches:
        states.append({key: value.clone() for key, value in model.state_dict().items()})
        live.labels = batch[1]
        loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    def load(number):
        again = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(F64)
        again.load_state_dict(states[number])
        return again

    sgd = lambda p: torch.optim.SGD(p, 0.3)  # noqa: E731
    every = replay(range(8), load, lambda c: [(batches[c], batches[c][1])], sgd, 3, loss=loss)
    for name, rows in live.absolute.items():
        torch.testing.assert_close(every.absolute[name], rows, rtol=1e-10, atol=1e-15)
    assert every.note == "estimated from 8 checkpoints, 8 replayed steps" and every.ok
    few = replay([0, 4], load, [(batch, batch[1]) for batch in batches], sgd, 3, loss=loss, steps=8)
    a, b = (torch.cat([rows[:3].flatten() for rows in found.values()]).log() for found in (few.absolute, live.absolute))
    assert few.steps == 16 and torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.8
    adam = replay([0], load, [(batches[0], batches[0][1])], lambda p: torch.optim.Adam(p), 3, loss=loss)
    assert "momenta were not in the checkpoints" in adam.message


def test_memory_at_the_size_of_gpt2_small():
    """124 million parameters: told beforehand, and brought under 4 GB by a coarser resolution and a stride."""
    with torch.device("meta"):
        block = lambda: nn.Sequential(  # noqa: E731
            nn.LayerNorm(768),
            nn.Linear(768, 2304),
            nn.Linear(768, 768),
            nn.LayerNorm(768),
            nn.Linear(768, 3072),
            nn.Linear(3072, 768),
        )
        model = nn.Sequential(
            nn.Embedding(50257, 768), nn.Embedding(1024, 768), *(block() for _ in range(12)), nn.LayerNorm(768)
        )
    assert sum(p.numel() for p in model.parameters()) == 124439808
    whole = memory(model, groups=10)
    assert whole == 4 * 124439808 * 4 * 11  # gradients, momenta, two kinds; single precision; eleven rows
    assert (
        memory(model, groups=10, per="unit", stride=3, kinds="absolute")
        < 4e9
        < memory(model, 10, per="unit", kinds="absolute")
    )
    assert memory(model, groups=10, stride=5, kinds="absolute") < 4e9
    assert memory(model, groups=10, momentum=False, per="unit", stride=2) < 4e9


def test_it_does_not_use_jax():
    code = (
        "import sys, torch, numpy as np\n"
        "from thalweg.knowledge.torch import Tally, replay, memory, callback\n"
        "model = torch.nn.Linear(3, 2)\n"
        "optimizer = torch.optim.Adam(model.parameters())\n"
        "tally = Tally(model, optimizer, groups=2)\n"
        "tally.labels = [0, 1]\n"
        "model(torch.ones(2, 3)).sum().backward(); optimizer.step()\n"
        "result = tally.result()\n"
        "result.share(0, 1), result.per('unit'), result.per('module'), result.message\n"
        "assert result.to_xarray()['absolute.weight'].dims == ('group', 'weight.0', 'weight.1')\n"
        "print(sorted(name for name in ('jax', 'jaxlib', 'equinox', 'optax') if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_labelled_as_those_of_jax():
    tally, _ = trained("convolutions", OPTIMIZERS["sgd"], steps=1)
    dataset = tally.result().to_xarray()
    assert dataset["signed.c2.weight"].dims == ("group", *(f"c2.weight.{axis}" for axis in range(4)))
    assert dataset.group.values.tolist() == ["0", "1", "2", "other"] and dataset.attrs["steps"] == 1
    assert np.isfinite(dataset["absolute.out.weight"]).all()


def test_a_copy_of_the_model_is_not_listened_to():
    import copy

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tally = Tally(model, optimizer, groups=2)
    twin = copy.deepcopy(model)
    x, labels = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, -1])
    twin(x).square().sum().backward()  # with a forward pass of its own, before labels are set
    assert tally.seen == 0
    tally.labels = labels
    model(x).square().sum().backward()
    twin(x).square().sum().backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(
            tally.signed[name].sum(0).to(p.dtype), p.detach() - before[name], atol=1e-6, rtol=1e-5
        )
    assert tally.result().ok
