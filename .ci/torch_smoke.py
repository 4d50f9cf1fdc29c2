"""The door for PyTorch on a GPU: tallies conserved there, and equal to those made on the CPU.

PYTHONPATH=src python .ci/torch_smoke.py        # where there is no GPU: one line that says so
PYTHONPATH=src python .ci/torch_smoke.py cpu    # the script itself, with the CPU as the device
"""

import contextlib
import io
import statistics
import sys
import tempfile
import time
import warnings

try:
    import torch
except ImportError:
    print("torch-smoke skipped: torch is not installed")
    sys.exit(0)

from torch import nn
from torch.nn import functional

from thalweg.knowledge.torch import Tally, callback

GROUPS = 5
failures: list[str] = []


def check(what: str, good: bool, found: object = "") -> None:
    """Note a failure, and go on."""
    if not good:
        failures.append(what)
        print(f"  FAILED: {what} {found}")


# --- The models ---


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.batch = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.norm = nn.Conv2d(16, 24, 3, stride=2, groups=2), nn.GroupNorm(4, 24)
        self.out = nn.Linear(24 * 49, 10)

    def forward(self, x):
        x = torch.tanh(self.batch(self.first(x)))
        return self.out(torch.tanh(self.norm(self.second(x))).flatten(1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, mask):
        h = self.before(x)
        x = x + self.attend(h, h, h, attn_mask=mask, is_causal=True, need_weights=False)[0]
        return x + self.down(functional.gelu(self.up(self.after(x))))


class Transformer(nn.Module):
    """Causal, with the embedding tied to the head."""

    def __init__(self, words: int = 40, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(words, width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, words, bias=False)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.head.weight = self.embed.weight

    def forward(self, i):
        x = self.embed(i)
        mask = torch.full((i.shape[1], i.shape[1]), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.last(x))


def images(draw):
    return torch.randn(24, 3, 16, 16, generator=draw), torch.randint(0, 10, (24,), generator=draw)


def tokens(draw):
    i = torch.randint(0, 40, (24, 12), generator=draw)
    return i, (3 * i + 1) % 40


MODELS = {"convolutions": (Convolutions, images), "transformer": (Transformer, tokens)}
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "AdamW": lambda p: torch.optim.AdamW(p, 1e-3),
    "fused AdamW": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
}
NEAR = 1e-8  # how far a table in double precision may be from the CPU's, of its norm


def cost(model, x, y):
    return functional.cross_entropy(model(x).flatten(0, -2), y.flatten())


# --- One training, on one device ---


class Run:
    """A training with clipping and accumulation, step by step, so that it can be saved and loaded."""

    def __init__(self, device: str, name: str, precision: str, rule: str, **how) -> None:
        torch.manual_seed(0)
        build, self.data = MODELS[name]
        self.wide = torch.float64 if precision == "float64" else torch.float32
        self.low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
        self.device = device
        self.model = build().to(self.wide).to(device)
        self.optimizer = OPTIMIZERS[rule](self.model.parameters())
        self.tally = Tally(self.model, self.optimizer, groups=GROUPS, **how)
        scaled = precision == "float16"
        self.scaler = torch.amp.GradScaler(device, init_scale=2.0**10, enabled=scaled)
        self.start = {key: p.detach().clone() for key, p in self.model.named_parameters()}

    def steps(self, first: int, last: int, clip: float = 0.5) -> "Run":
        for step in range(first, last):
            for part in range(2):
                draw = torch.Generator().manual_seed(10 * step + part)
                x, y = self.data(draw)
                labels = torch.randint(-1, GROUPS, (len(x),), generator=draw)
                x = x.to(self.device, self.wide) if x.is_floating_point() else x.to(self.device)
                # Labels may lie on either device.
                self.tally.labels = labels.to(self.device) if (step + part) % 2 else labels
                low = torch.autocast(self.device, dtype=self.low) if self.low else contextlib.nullcontext()
                with low:
                    value = cost(self.model, x, y.to(self.device)) / 2
                self.scaler.scale(value).backward()
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=step % 2 == 0)
        return self

    def moved(self, name: str) -> torch.Tensor:
        return (dict(self.model.named_parameters())[name].detach() - self.start[name]).cpu()


def meant(name: str, table: torch.Tensor) -> torch.Tensor:
    """The entries that have a gradient: a key's bias has none but rounding, which Adam blows up."""
    if not name.endswith("in_proj_bias"):
        return table.cpu()
    third = table.shape[-1] // 3
    return torch.cat([table[..., :third], table[..., 2 * third :]], -1).cpu()


def distance(a: Tally, b: Tally) -> float:
    """The largest distance of two tables of one parameter, of the second's norm."""
    found = []
    for kind in b.kinds:
        there, here = getattr(a, kind), getattr(b, kind)
        pairs = [(meant(key, there[key]).double(), meant(key, here[key]).double()) for key in here]
        found += [float((one - other).norm() / other.norm()) for one, other in pairs]
    return max(found)


def check_conserved(what: str, run: Run) -> float:
    """The status says so, and the signed rows sum to how far the parameters went."""
    result = run.tally.result()
    # Under Adam parts may cancel so far that single precision is used up, which the status tells.
    cancel = "Adam" in what and "float64" not in what and "lost to rounding" in result.message
    check(f"{what}: trusted", result.ok or cancel, result.message)
    check(f"{what}: nothing left out", not run.tally.refused, run.tally.refused)
    allowed = result.tolerance or 0.0
    for name, rows in run.tally.signed.items():
        total, moved = meant(name, rows.sum(0)), meant(name, run.moved(name))
        # In low precision the parts are known to the rounding of their own size.
        size = moved if allowed < 0.01 else meant(name, run.tally.absolute[name].sum(0))
        off = float((total - moved).norm() / max(float(size.norm()), 1e-30))
        check(f"{what}: the rows of {name} sum to its change", off <= allowed, off)
    return float(result.conservation)


# --- The checks ---


def equal_tables(device: str) -> None:
    """Every model, precision and rule: conserved on the device, and (in full precision) as on the CPU."""
    low = ["bfloat16", *(["float16"] if device != "cpu" else [])]
    for name in MODELS:
        for precision in ("float64", "float32", *low):
            for rule in OPTIMIZERS:
                what = f"{name}, {precision}, {rule}"
                there = Run(device, name, precision, rule).steps(0, 10)
                off = check_conserved(what, there)
                line = f"  {what:<40} conservation {off:.1e}"
                if precision in ("float64", "float32"):
                    here = Run("cpu", name, precision, rule).steps(0, 10)
                    far, near = distance(there.tally, here.tally), NEAR
                    line += f", from the CPU's {far:.1e}"
                    if precision == "float32":  # what rounding does to the CPU's own
                        exact = Run("cpu", name, "float64", rule).steps(0, 10)
                        near = max(1e-5, 2 * distance(here.tally, exact.tally))
                        line += f" (of {near:.1e} that rounding allows)"
                    check(f"{what}: tables as on the CPU", far <= near, far)
                    check(f"{what}: counts", there.tally.counts.tolist() == here.tally.counts.tolist())
                print(line)


def rounded_products(device: str) -> None:
    """TF32, where a GPU has it: products of 11 bits are told as such, and nothing is refused."""
    if device == "cpu":
        return
    for name in MODELS:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        off = check_conserved(f"{name}, TF32", Run(device, name, "float32", "SGD").steps(0, 10))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        print(f"  {name + ', TF32':<40} conservation {off:.1e}")


def resolutions(device: str) -> None:
    """Coarser, thinner, and every other step."""
    for how in ({"per": "unit"}, {"per": "module"}, {"stride": 3}, {"every": 2}, {"kinds": "absolute"}):
        for rule in ("SGD", "AdamW"):
            tables = [Run(one, "transformer", "float64", rule, **how).steps(0, 6).tally for one in (device, "cpu")]
            check(f"{how}, {rule}: trusted", tables[0].result().ok, tables[0].result().message)
            far = distance(*tables)
            check(f"{how}, {rule}: as on the CPU", far <= NEAR, far)


def saved_here_loaded_there(device: str) -> None:
    """A tally saved on the device goes on, on the CPU, as one that stayed there."""
    for rule in ("SGD", "AdamW"):
        whole = Run(device, "transformer", "float64", rule).steps(0, 9)
        half = Run(device, "transformer", "float64", rule).steps(0, 5)
        file = io.BytesIO()
        torch.save([part.state_dict() for part in (half.model, half.optimizer, half.tally)], file)
        for place in ("cpu", None):  # moved when read, or by whoever loads it
            file.seek(0)
            other = Run("cpu", "transformer", "float64", rule)
            saved = torch.load(file, map_location=place, weights_only=True)
            for part, state in zip((other.model, other.optimizer, other.tally), saved, strict=True):
                part.load_state_dict(state)
            far = distance(other.steps(5, 9).tally, whole.tally)
            check(f"{rule}: saved on the device, loaded on the CPU", far <= NEAR, far)
            check(f"{rule}: trusted after loading", other.tally.result().ok, other.tally.result().message)


def trainer(device: str) -> None:
    """The callback inside the Trainer of transformers, where that is installed."""
    try:
        import accelerate  # noqa: F401
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    except ImportError as problem:
        print(f"  the Trainer of transformers: skipped ({problem})")
        return
    torch.manual_seed(0)
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(
        vocab_size=17, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, **none
    )
    ids = torch.randint(0, 17, (48, 8))
    watching = callback(3, labels=lambda inputs: inputs["input_ids"][:, 0] % 3)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=6, per_device_train_batch_size=4, gradient_accumulation_steps=2,
            save_steps=3, report_to=[], disable_tqdm=True, use_cpu=device == "cpu", bf16=device != "cpu",
        )  # fmt: skip
        data = [{"input_ids": row, "labels": row} for row in ids]
        Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=data, callbacks=[watching]).train()
    result = watching.tally.result()
    check("Trainer: trusted", result.ok, result.message)
    check("Trainer: only positions left out", set(watching.tally.refused) == {"transformer.wpe.weight"})
    print(f"  {'the Trainer of transformers':<40} conservation {result.conservation:.1e}")


def cost_of_listening(device: str) -> None:
    """Time with a tally over time without, for a transformer of middle size; medians over alternating turns."""
    small = device == "cpu"
    words, width, heads, layers, batch, length = (50, 64, 2, 1, 20, 16) if small else (512, 384, 6, 6, 64, 64)
    steps, warm, turns = (8, 2, 2) if small else (12, 6, 3)
    draw = torch.Generator().manual_seed(0)
    i = torch.randint(0, words, (batch, length), generator=draw).to(device)
    labels = torch.arange(batch) % 10
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None

    def seconds(rule: str, low: bool, **how) -> float:
        torch.manual_seed(0)
        model = Transformer(words, width, heads, layers).to(device)
        optimizer = OPTIMIZERS[rule](model.parameters())
        tally = Tally(model, optimizer, groups=10, **how) if how else None
        for step in range(warm + steps):
            if step == warm:
                wait()
                began = time.perf_counter()
            if tally:
                tally.labels = labels
            with torch.autocast(device, dtype=torch.bfloat16) if low else contextlib.nullcontext():
                value = cost(model, i, (3 * i + 1) % words)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
        if tally:
            tally.conservation  # noqa: B018  (what is kept is worked off)
        wait()
        taken = (time.perf_counter() - began) / steps
        if tally:
            told = tally.result().message
            check(f"{rule}, timed: trusted", tally.result().ok or "lost to rounding" in told, told)
        return taken

    print(f"  {layers} layers of {width}, {batch} x {length} tokens, ten groups; ms a step, and times without a tally")
    for low in (False, True):
        for rule in ("SGD", "AdamW"):
            ways = {"without": {}, "absolute": {"kinds": "absolute"}, "both": {"kinds": ("absolute", "signed")}}
            ways["every tenth"] = {"kinds": "absolute", "every": 10}
            found = {way: [] for way in ways}
            for _ in range(turns):
                for way, how in ways.items():
                    found[way].append(seconds(rule, low, **how))
            plain = statistics.median(found["without"])
            ratios = ", ".join(f"{way} {statistics.median(found[way]) / plain:.2f}" for way in list(ways)[1:])
            print(f"  {rule + (', bfloat16' if low else ', float32'):<20}{1e3 * plain:>8.2f} ms   {ratios}")


def main() -> int:
    """All checks on the device named, by default a GPU."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("torch-smoke skipped: torch sees no CUDA device")
        return 0
    warnings.simplefilter("ignore")
    # Full single precision, so that numbers can be compared; what is rounded more has a check of its own.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name() if device == 'cuda' else device}")
    began = time.perf_counter()
    for part in (equal_tables, rounded_products, resolutions, saved_here_loaded_there, trainer, cost_of_listening):
        print(f"{part.__doc__.splitlines()[0]} [{time.perf_counter() - began:.0f} s]")
        part(device)
    verdict = f"FAILED: {'; '.join(failures)}" if failures else "passed"
    print(f"torch-smoke {verdict} in {time.perf_counter() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
