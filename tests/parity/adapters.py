"""LoRA next to peft on transformers: gradients, AdamW steps, files, and the merged weights.

Both sides have the same weights in float64, and learn from the same prompts and answers.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2LMHeadModel

from minigpt2.adapter_weights import load_adapters, open_adapters, save_adapters
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example
from minigpt2.model.adapters import LAYERS, LoRA, Merged, Origin, with_adapters
from minigpt2.model.gpt2 import forward
from minigpt2.ops.adamw import AdamW
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.schedule import learning_rate
from minigpt2.training.state import new_state
from minigpt2.training.step import step
from tests.parity.preferences import CONFIG, random_weights, theirs_with

STEPS, RATE = 10, 1e-3
CONSTANTS = AdamW(weight_decay=0.1, clip=0.0)
KINDS = {
    "α/r, four layers": LoRA(rank=4, alpha=8.0),
    "α/√r, four layers": LoRA(rank=4, alpha=8.0, stabilised=True),
    "α/r, attn.c_attn": LoRA(rank=2, alpha=3.0, layers=("attn.c_attn",)),
}


def examples(seed=0):
    """Examples of random tokens, the second half of each supervised."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, CONFIG.vocab_size, n).tolist() for n in (9, 14, 20)]
    return [Example(row, [2 * k >= len(row) for k in range(len(row))]) for row in ids]


def ours(lora):
    """The model with adapters that are not zero, in float64."""
    made = with_adapters(random_weights(1), lora, np.random.default_rng(2), Origin("", None))
    made.flat[...] = 0.1 * np.random.default_rng(3).standard_normal(made.flat.size)
    return made


def theirs(adapted):
    """peft's model with the same weights and adapters."""
    lora = adapted.lora
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.layers),
        use_rslora=lora.stabilised,
        fan_in_fan_out=True,
    )
    model = get_peft_model(theirs_with(GPT2LMHeadModel, adapted.base), config).double()
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for name, matrix in adapted.adapters.items():
            tensors[their_name(name)].copy_(torch.tensor(matrix.T.copy()))
    return model


def their_name(name):
    """peft's name of a matrix, while it is trained."""
    return f"base_model.model.transformer.{name}.default.weight"


def their_loss(model, rows):
    """The mean nll of the supervised tokens of all examples."""
    total, count = 0.0, 0
    for example in rows:
        logits = model(torch.tensor([example.ids])).logits[0, :-1]
        targets = torch.tensor(example.ids[1:])
        mask = torch.tensor(example.is_answer[1:])
        nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        total, count = total + (nll * mask).sum(), count + int(mask.sum())
    return total / count


def compare_training(name, lora):
    """Losses, gradients and adapters of ten steps, from the same start."""
    rows, adapted = examples(), ours(lora)
    model = theirs(adapted)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        trained.values(), lr=1.0, weight_decay=CONSTANTS.weight_decay, eps=CONSTANTS.eps
    )
    state, batch = new_state(adapted), batch_of(rows)
    config = TrainingConfig(STEPS, RATE, adamw=CONSTANTS)
    worst_loss, gradients = 0.0, state.gradients.views
    for number in range(1, STEPS + 1):
        optimiser.zero_grad()
        loss = their_loss(model, rows)
        loss.backward()
        result = step(state, [batch], WeightedNLL(), config)
        worst_loss = max(worst_loss, abs(result.loss - loss.item()))
        if number == 1:
            pairs = [(v, trained[their_name(n)].grad.numpy().T) for n, v in gradients.items()]
            norm = np.linalg.norm
            worst_gradient = max(norm(one - other) / norm(other) for one, other in pairs)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(number, STEPS, RATE, 0, config.schedule)
        optimiser.step()
    yield name, "loss of ten steps", worst_loss
    yield name, "gradients of adapters (relative)", worst_gradient
    pairs = [(v, trained[their_name(n)].detach().numpy().T) for n, v in adapted.adapters.items()]
    yield name, "adapters after ten steps", max(abs(one - other).max() for one, other in pairs)


def logits_of(adapted, ids):
    """Our logits of a sequence."""
    example = Example(ids, [True] * len(ids))
    h = forward(adapted, batch_of([example]), backward=False).h
    return h @ adapted["wte.weight"].T


def compare_files(name, lora):
    """Our folder in peft, peft's folder here, and the merged weights of both."""
    adapted = ours(lora).astype(np.float32)
    ids = examples()[0].ids
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        own, their_folder = Path(folder) / "ours", Path(folder) / "theirs"
        own.mkdir()
        save_adapters(adapted, own)
        base = theirs_with(GPT2LMHeadModel, adapted.base).float().eval()
        model = PeftModel.from_pretrained(base, own).eval()
        logits = model(torch.tensor([ids])).logits[0, :-1].numpy()
        yield name, "logits of our folder", abs(logits - logits_of(adapted, ids)).max()
        model.base_model.model.name_or_path = "gpt2"
        model.peft_config["default"].base_model_name_or_path = "gpt2"
        model.save_pretrained(their_folder, save_embedding_layers=False)
        read = load_adapters(open_adapters(their_folder), adapted.base, 0)
        yield name, "adapters of peft's folder", abs(read.flat - adapted.flat).max()
        merged = dict(model.merge_and_unload().transformer.named_parameters())
        tensors = Merged(adapted)
        differences = [abs(tensors[n] - merged[n].numpy()).max() for n in tensors]
        yield name, "merged weights", max(differences)


def comparisons():
    """(case, quantity, difference) of everything."""
    assert set(LAYERS) == {layer for lora in KINDS.values() for layer in lora.layers}
    for kind, lora in KINDS.items():
        yield from compare_training(f"peft, {kind}", lora)
        yield from compare_files(f"peft, {kind}", lora)
