"""The callback inside the Trainer of Hugging Face's transformers, where that is installed."""

import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch installs it and runs these")
pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers accelerate")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install transformers accelerate")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from thalweg.knowledge.torch import callback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def trained(folder, resume=None, steps=6, **how):
    """A tiny GPT-2 made from a config: the callback, and how far its weights went."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=17, n_positions=8, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    model = GPT2LMHeadModel(config).double()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 17, (48, 8), generator=draw)
    data = [{"input_ids": row, "labels": row} for row in ids]
    watching = callback(3, labels=lambda inputs: inputs["input_ids"][:, 0] % 3, **how)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        save_steps=3,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
        logging_strategy="no",
    )
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=[watching]).train(resume_from_checkpoint=resume)
    return watching, {name: p.detach() - start[name] for name, p in model.named_parameters()}


def test_the_parts_sum_to_the_change(tmp_path):
    """Through AdamW, a schedule, accumulation and clipping; positions are shared by all data, and left out."""
    watching, moved = trained(tmp_path)
    result = watching.tally.result()
    assert result.ok and result.conservation <= 1e-9 and result.steps == 6, result.message
    assert set(watching.tally.refused) == {"transformer.wpe.weight"} and "transformer.wpe.weight" in result.message
    assert set(result.signed) == set(moved) - {"transformer.wpe.weight"}
    for name, rows in result.signed.items():
        size = result.absolute[name].sum(0)
        real = size > 1e-6 * size.max()  # a key's bias has no gradient but rounding
        if name.endswith("c_attn.bias"):
            real[16:32] = False
        assert torch.all((rows.sum(0) - moved[name]).abs()[real] <= 1e-9 * size[real] + 1e-13), name
    assert int(result.counts.sum()) == 6 * 2 * 4


def test_saved_and_resumed_with_the_trainers_checkpoints(tmp_path):
    whole, _ = trained(tmp_path)
    assert (tmp_path / "checkpoint-3" / "tally.pt").exists()
    again, _ = trained(tmp_path, resume=str(tmp_path / "checkpoint-3"))
    a, b = whole.tally.result(), again.tally.result()
    assert b.steps == 6 and b.counts.tolist() == a.counts.tolist()
    for name in a.absolute:
        torch.testing.assert_close(a.absolute[name], b.absolute[name], rtol=1e-9, atol=1e-12)
    (tmp_path / "checkpoint-3" / "tally.pt").unlink()
    without, _ = trained(tmp_path, resume=str(tmp_path / "checkpoint-3"))
    assert "begun at step 3 of the training" in without.tally.result().message
