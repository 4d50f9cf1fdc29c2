"""The door for PyTorch in the loops that people have: positions, freezing, schedules, checkpointing, evaluation."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch installs it and runs these")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from thalweg.knowledge.torch import Tally, replay  # noqa: E402

F64 = torch.float64


class Placed(nn.Module):
    """A small transformer with positions: as an embedding, of so many axes, or as a bare parameter."""

    def __init__(self, places):
        super().__init__()
        self.embed, self.places = nn.Embedding(11, 8), places
        if places == "bare":
            self.place = nn.Parameter(torch.randn(5, 8))
        else:
            self.place = nn.Embedding(5, 8)
        self.up, self.down, self.drop = nn.Linear(8, 600), nn.Linear(600, 8), nn.Dropout(0.1)
        self.head = nn.Linear(8, 11)

    def forward(self, i):
        at = torch.arange(5)
        place = {
            "bare": lambda: self.place,
            "one axis": lambda: self.place(at),
            "two axes": lambda: self.place(at[None]),
            "each": lambda: self.place(at.expand(i.shape)),
        }[self.places]()
        x = self.embed(i) + place
        return self.head(x + self.drop(self.down(torch.tanh(self.up(x)))))


def batches(draw, size=6):
    while True:
        i = torch.randint(0, 11, (size, 5), generator=draw)
        yield i, i.flip(1), torch.randint(-1, 3, (size,), generator=draw)


def train(model, optimizer, steps=10, size=6, before=None, after=None, **how):
    """A training: the tally, and how far each parameter went."""
    tally = Tally(model, optimizer, groups=3, **how)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = batches(torch.Generator().manual_seed(1), size)
    for step in range(steps):
        if before:
            before(step)
        i, target, tally.labels = next(data)
        functional.cross_entropy(model(i).flatten(0, 1), target.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if after:
            after(step)
    return tally, {name: p.detach() - start[name] for name, p in model.named_parameters()}


def made(places="each"):
    torch.manual_seed(0)
    return Placed(places).to(F64)


def sgd(model, rate=0.1):
    return torch.optim.SGD(model.parameters(), rate)


def check_sums(tally, moved, but=()):
    result = tally.result()
    assert result.conservation <= 1e-12 and result.ok, result.message
    assert set(tally.absolute) == set(moved) - set(but)
    for name, rows in tally.signed.items():
        torch.testing.assert_close(rows.sum(0), moved[name], rtol=1e-9, atol=1e-13)
    return result


@pytest.fixture(scope="module")
def each():
    """With a place for each datum, all is tallied."""
    model = made()
    tally, moved = train(model, sgd(model))
    check_sums(tally, moved)
    return tally


@pytest.mark.parametrize(("places", "size"), [("one axis", 6), ("one axis", 5), ("two axes", 6), ("bare", 6)])
def test_what_all_data_share_is_left_out(each, places, size):
    """Positions meet no datum by itself; where they are as many as the data by chance, that is found out too."""
    model = made(places)
    if size != 6:
        each = train(other := made(), sgd(other), size=size)[0]
    name = "place" if places == "bare" else "place.weight"
    with torch.no_grad():
        state = made().state_dict()
        state[name] = state.pop("place.weight")
        model.load_state_dict(state)
    torch.manual_seed(0)
    made()  # so that dropout draws the same
    tally, moved = train(model, sgd(model), size=size)
    result = check_sums(tally, moved, but=[name])
    assert name in tally.refused and "left out" in result.message
    for other, rows in tally.absolute.items():
        torch.testing.assert_close(rows, each.absolute[other], rtol=1e-9, atol=1e-14)


def test_labels_that_fit_no_layer_are_refused():
    model = made()
    optimizer = sgd(model)
    tally = Tally(model, optimizer, groups=3)
    for count in (1, 4, 7):
        tally.labels = torch.zeros(count, dtype=torch.int64)
        with pytest.raises(ValueError, match=rf"^labels must lead like the batch: got shape \({count},\)"):
            model(torch.zeros(6, 5, dtype=torch.int64)).sum().backward()
    assert not tally.refused


def test_a_buffer_of_labels_and_of_data_may_be_written_anew():
    """The same tensors filled with new numbers before each pass."""
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(80, 60, dtype=F64)
        tally = Tally(model, optimizer := sgd(model), groups=3)
        labels, x = torch.zeros(6, dtype=torch.int64), torch.zeros(6, 80, dtype=F64)
        tally.labels = labels
        draw = torch.Generator().manual_seed(2)
        for step in range(11):
            new = torch.randn(6, 80, generator=draw, dtype=F64)
            x = x.copy_(new) if again else new
            labels.copy_((torch.arange(6) * (step % 3)) % 3)  # every third batch of one group only
            if not again:
                tally.labels = labels.clone()
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append(tally.absolute["weight"])
        assert tally.conservation <= 1e-12
    assert torch.equal(*found)


def test_the_run_itself_is_not_changed():
    """With the tally and without it: the same weights and the same random numbers, bit for bit."""
    ends = []
    for listening in (True, False):
        model = made()
        if listening:
            train(model, sgd(model))
        else:
            optimizer, data = sgd(model), batches(torch.Generator().manual_seed(1))
            for _ in range(10):
                i, target, _ = next(data)
                functional.cross_entropy(model(i).flatten(0, 1), target.flatten()).backward()
                optimizer.step()
                optimizer.zero_grad()
        ends.append([*model.parameters(), torch.rand(3)])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_gradients_kept_between_steps():
    """`zero_grad(set_to_none=False)`, and gradients that nobody sets to zero, add up as PyTorch adds them up."""
    for zero in (True, False):
        model = made()
        optimizer = sgd(model, 0.01)
        keep = optimizer.zero_grad
        optimizer.zero_grad = lambda keep=keep, zero=zero: keep(set_to_none=False) if zero else None
        check_sums(*train(model, optimizer))


def test_rates_by_group_and_by_schedule():
    model = made()
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD([{"params": weights, "lr": 0.1}, {"params": biases, "lr": 0.5, "weight_decay": 0.1}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.2, 0.5], 12)
    rates = []
    tally, moved = train(
        model, optimizer, after=lambda _: rates.append(schedule.step() or optimizer.param_groups[0]["lr"])
    )
    check_sums(tally, moved)
    assert len(set(rates)) == len(rates)


def test_a_layer_used_twice_and_one_that_is_frozen():
    """Twice: each group's gradient is that of both uses. Frozen: not tallied; frozen later: it stays as it was."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.out = nn.Linear(70, 70), nn.Linear(70, 70), nn.Linear(70, 2)

        def forward(self, x):
            return self.out(torch.tanh(self.again(torch.tanh(self.again(torch.tanh(self.first(x)))))))

    torch.manual_seed(0)
    model = Twice().to(F64)
    model.first.requires_grad_(False)
    optimizer = sgd(model)
    tally = Tally(model, optimizer, groups=2)
    x, labels = torch.randn(6, 70, dtype=F64), torch.tensor([0, 1, 0, 0, 1, 1])
    start = model.again.weight.detach().clone()
    signed = torch.zeros(2, 70, 70, dtype=F64)
    for step in range(4):
        if step == 2:
            model.first.requires_grad_(True)
            kept = tally.absolute["out.weight"].clone()
            model.out.requires_grad_(False)
        tally.labels = labels
        each = model(x).square().mean(1) / 6
        for g in (0, 1):
            loss = each[labels == g].sum()
            signed[g] -= 0.1 * torch.autograd.grad(loss, model.again.weight, retain_graph=True)[0]
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(tally.signed["again.weight"][:2], signed, rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(tally.signed["again.weight"].sum(0), model.again.weight.detach() - start)
    assert torch.equal(tally.absolute["out.weight"], kept)
    assert tally.refused["first.weight"] == "first.weight was not trained when the tally was made, and is left out"
    assert tally.result().ok and "first.weight was not trained" in tally.result().message


@pytest.mark.parametrize("reentrant", [True, False])
def test_activations_computed_again(reentrant):
    """Gradient checkpointing runs layers a second time inside the backward pass: they count once."""
    plain, again = made(), made()
    again.drop.p = plain.drop.p = 0.0
    inner = again.up.forward
    block = nn.Sequential(again.up, nn.Tanh(), again.down)
    again.forward = lambda i: again.head(
        (x := again.embed(i) + again.place(torch.arange(5).expand(i.shape)))
        + checkpoint(block, x, use_reentrant=reentrant)
    )
    found = [train(model, sgd(model)) for model in (plain, again)]
    assert inner == again.up.forward
    check_sums(*found[1])
    for name, rows in found[0][0].absolute.items():
        torch.testing.assert_close(found[1][0].absolute[name], rows, rtol=1e-9, atol=1e-14)


def test_evaluation_in_between(each):
    """Other passes, with and without gradients, of other sizes, leave no trace."""
    model = made()

    def evaluate(step):
        state = torch.get_rng_state()
        model.eval()
        with torch.no_grad():
            model(torch.zeros(3, 5, dtype=torch.int64))
        model(torch.zeros(4, 5, dtype=torch.int64)).sum()  # never differentiated
        model.train()
        torch.set_rng_state(state)

    tally, moved = train(model, sgd(model), before=evaluate)
    check_sums(tally, moved)
    for name, rows in each.absolute.items():
        assert torch.equal(tally.absolute[name], rows)


def test_batch_norm_is_told():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).to(F64)
    tally = Tally(model, optimizer := sgd(model), groups=2)
    for training, word in ((False, False), (True, True)):
        model.train(training)
        tally.labels = [0, 1, 1]
        model(torch.randn(3, 4, dtype=F64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert tally.result().ok and ("depend on each other" in tally.result().message) == word


@pytest.mark.filterwarnings("ignore")  # the compiler looks at every attribute of a tensor
def test_a_compiled_model():
    """Compiled, the layers are still heard."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).to(F64)
    compiled = torch.compile(model, backend="eager")
    tally = Tally(compiled, optimizer := sgd(compiled), groups=2)
    start = model[0].weight.detach().clone()
    for _ in range(3):
        tally.labels = torch.tensor([0, 1, 1])
        compiled(torch.randn(3, 4, dtype=F64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert tally.result().ok and tally.conservation <= 1e-12
    moved = next(rows for name, rows in tally.signed.items() if name.endswith("0.weight"))
    np.testing.assert_allclose(moved.sum(0), (model[0].weight.detach() - start), atol=1e-14)


def test_more_checkpoints_tell_more():
    """A replay is nearer to the live tally the more checkpoints it stands on: paired over starts, with its error."""
    gains = []
    for seed in range(6):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(F64)
        live = Tally(model, optimizer := sgd(model, 0.5), groups=3, kinds="absolute")
        teacher, saved = torch.randn(6, 3, dtype=F64), []

        def draw(teacher=teacher):
            x = torch.randn(24, 6, dtype=F64)
            return (x, y := (x @ teacher).argmax(1)), y

        loss = lambda net, batch: functional.cross_entropy(net(batch[0]), batch[1])  # noqa: E731
        for _ in range(48):
            saved.append({name: value.clone() for name, value in model.state_dict().items()})
            batch, live.labels = draw()
            loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        live.remove()

        def load(state, model=model):
            model.load_state_dict(state)
            return model

        r = []
        rule = lambda p: torch.optim.SGD(p, 0.5)  # noqa: E731
        for count in (3, 16):
            found = replay(saved[:: 48 // count], load, lambda _: [draw()], rule, 3, loss=loss, steps=48)
            assert f"estimated from {count} checkpoints" in found.message
            trees = [tree.values() for tree in (live.absolute, found.absolute)]
            logs = [torch.cat([rows[:3].flatten() for rows in tree]).log() for tree in trees]
            r.append(float(torch.corrcoef(torch.stack(logs))[0, 1]))
        gains.append(r[1] - r[0])
    error = np.std(gains, ddof=1) / np.sqrt(len(gains))
    assert np.mean(gains) > 3 * error, (gains, error)


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
@pytest.mark.parametrize("write", ["data", "in place"])
def test_weights_that_others_write_to(rule, write):
    """Clamped after each step, as in a Wasserstein critic: only the optimizer changes are tallied, and checked."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 2)).to(F64)
    optimizer = sgd(model) if rule == "sgd" else torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    tally = Tally(model, optimizer, groups=2)
    moved = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    draw = torch.Generator().manual_seed(1)
    for _ in range(40):
        x, tally.labels = torch.randn(8, 40, generator=draw, dtype=F64), torch.arange(8) % 3 - 1
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for name, p in model.named_parameters():
            moved[name] += p.detach() - before[name]
            with torch.no_grad():
                p.data.clamp_(-0.1, 0.1) if write == "data" else p.clamp_(-0.1, 0.1)
    check_sums(tally, moved)


@pytest.mark.parametrize("rule", [sgd, lambda model: torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)])
def test_clipping_by_value_that_binds_at_times(rule):
    """Steps whose gradients were clipped entry by entry, among others that were not."""
    model = made()
    optimizer = rule(model)
    tally = Tally(model, optimizer, groups=3)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = batches(torch.Generator().manual_seed(1))
    for step in range(20):
        i, target, tally.labels = next(data)
        functional.cross_entropy(model(i).flatten(0, 1), target.flatten()).backward()
        if step % 7 == 5:
            nn.utils.clip_grad_value_(model.parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
    check_sums(tally, {name: p.detach() - start[name] for name, p in model.named_parameters()})
    assert not tally.refused


def test_a_penalty_that_begins_later():
    """From then on the weight and the gain are left out, and what was kept of the others is not lost."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60), nn.LayerNorm(60), nn.Linear(60, 2)).to(F64)
    tally = Tally(model, optimizer := torch.optim.Adam(model.parameters(), 1e-3), groups=2)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    draw = torch.Generator().manual_seed(1)
    for step in range(12):
        x, tally.labels = torch.randn(8, 40, generator=draw, dtype=F64), torch.arange(8) % 3 - 1
        loss = model(x).square().mean()
        if step >= 5:
            loss = loss + model[0].weight.square().sum() + model[1].weight.square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert set(tally.refused) == {"0.weight", "1.weight"}
    moved = {name: p.detach() - start[name] for name, p in model.named_parameters()}
    check_sums(tally, moved, but=["0.weight", "1.weight"])


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_kept_steps_are_the_steps(rule, monkeypatch):
    """Factors that are kept, products at once, and all groups in one product (as on a GPU): the same tables."""
    found = []
    for way in ("kept", "at once", "one product"):
        with monkeypatch.context() as patch:
            if way != "kept":
                patch.setattr("thalweg.knowledge.torch._tally.kept_as", lambda *given: "")
            if way == "one product":
                patch.setattr("thalweg.knowledge.torch._part.in_one_product", lambda rows: True)
            model = made()
            optimizer = sgd(model) if rule == "sgd" else torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
            tally, moved = train(model, optimizer, steps=20)
            check_sums(tally, moved)
            found.append(tally)
    for name, rows in found[0].absolute.items():
        for other in found[1:]:
            torch.testing.assert_close(other.absolute[name], rows, rtol=1e-9, atol=1e-14)
            torch.testing.assert_close(other.signed[name], found[0].signed[name], rtol=1e-9, atol=1e-14)


def test_attention_by_rows_and_by_groups(monkeypatch):
    """One backward pass whose rows divide, and one for each group: the same gradients."""
    import thalweg.knowledge.torch._attention as of

    found = []
    for masked in (False, True):
        for by_groups in (False, True):
            with monkeypatch.context() as patch:
                if by_groups:
                    patch.setattr(of, "_by_rows", lambda layer, given, *rest: of._by_groups(layer, (), given, *rest))
                torch.manual_seed(0)
                layer = nn.MultiheadAttention(8, 2, batch_first=masked).to(F64)
                tally = Tally(layer, optimizer := sgd(layer), groups=2)
                x = torch.randn(6, 6, 8, dtype=F64)
                hidden = torch.arange(6)[None] >= torch.tensor([6, 5, 4, 6, 3, 6])[:, None]
                for _ in range(3):
                    tally.labels = torch.tensor([0, 1, 0, -1, 1, 1])
                    layer(x, x, x, key_padding_mask=hidden if masked else None)[0].square().mean().backward()
                    optimizer.step()
                    optimizer.zero_grad()
                assert tally.conservation <= 1e-12 and not tally.refused
                found.append(tally.absolute)
    for one, other in (found[:2], found[2:]):
        for name, rows in one.items():
            size = rows.abs().max() + 1e-3  # a key's bias has no gradient but rounding
            torch.testing.assert_close(rows / size, other[name] / size, rtol=1e-9, atol=1e-12)
