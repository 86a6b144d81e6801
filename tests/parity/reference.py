"""The reference's side: the same quantities from transformers, on padded batches."""

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2TokenizerFast,
)
from transformers.utils import logging

from minigpt2.training.schedule import learning_rate
from tests.parity.ours import ADAMW, NEW, STEPS

logging.set_verbosity_error()
logging.disable_progress_bar()


def open_reference(folder):
    """The reference model, from a folder that this project wrote."""
    return GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def scores(folder, case):
    """The score of each sequence by the reward model of a folder, one after the other."""
    model = GPT2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return [model(torch.tensor([sequence])).logits.item() for sequence in case.sequences]


def open_reference_tokenizer(folder):
    """The reference's tokenizer, from a folder that this project wrote: text -> ids."""
    tokenizer = GPT2TokenizerFast.from_pretrained(folder)
    return lambda text: tokenizer(text)["input_ids"]


def save_tokenizer(folder, to):
    """Write the tokenizer of a folder as the reference writes it: tokenizer.json alone."""
    GPT2TokenizerFast.from_pretrained(folder).save_pretrained(to)


@torch.no_grad()
def answers(folder, prompts, new=12):
    """The texts with which a model of a folder continues prompts, the likeliest token each time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, texts = open_reference(folder), []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")
        options = {"do_sample": False, "max_new_tokens": new, "pad_token_id": 0}
        (out,) = model.generate(**ids, **options)
        rest = out[ids["input_ids"].shape[1] :]
        texts.append(tokenizer.decode(rest, skip_special_tokens=True))
    return texts


def padded(case):
    """Token ids, attention mask and labels (B, T), padded on the right; -100 is no target."""
    longest = max(map(len, case.sequences))
    shape = len(case.sequences), longest
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for b, (sequence, prompt) in enumerate(zip(case.sequences, case.prompts, strict=True)):
        n = len(sequence)
        ids[b, :n] = torch.tensor(sequence)
        mask[b, :n] = 1
        labels[b, prompt:n] = ids[b, prompt:n]
    return ids, mask, labels


@torch.no_grad()
def hidden_rows(model, case):
    """For each sequence: the rows before each block and the last ones, and the logits."""
    ids, mask, _ = padded(case)
    out = model(ids, attention_mask=mask, output_hidden_states=True)
    return [
        (
            [state[b, : len(s) - 1].numpy() for state in out.hidden_states],
            out.logits[b, : len(s) - 1].numpy(),
        )
        for b, s in enumerate(case.sequences)
    ]


@torch.no_grad()
def greedy(model, case):
    """The tokens that follow the first tokens of each sequence, the likeliest each time."""
    start = case.start(NEW)
    prompts = torch.tensor([sequence[:start] for sequence in case.sequences])
    options = {"do_sample": False, "max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0}
    out = model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)
    return out[:, start:].tolist()


def loss_of(model, case):
    """The mean loss over all targets, as a tensor that can go backward."""
    ids, mask, labels = padded(case)
    return model(ids, attention_mask=mask, labels=labels).loss


def official(name):
    """A parameter's name without the reference's prefix."""
    return name.removeprefix("transformer.")


def loss_and_gradients_of(model, case):
    """The loss, added up in double precision, and each parameter's gradient by official name."""
    model.zero_grad()
    ids, mask, labels = padded(case)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits[:, :-1].transpose(1, 2)
        nll = torch.nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none")
    loss = nll.double().sum() / (labels[:, 1:] >= 0).sum()
    loss_of(model, case).backward()
    return loss.item(), {official(n): p.grad.numpy() for n, p in model.named_parameters()}


def adamw_losses(model, case):
    """The losses of ten steps on the same batch; changes the model."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": ADAMW.weight_decay},
        {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0},
    ]
    betas = ADAMW.beta1, ADAMW.beta2
    optimiser = torch.optim.AdamW(groups, lr=case.rate, betas=betas, eps=ADAMW.eps)
    losses = []
    for step in range(1, STEPS + 1):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, STEPS, case.rate, 0, "linear")
        optimiser.zero_grad()
        loss = loss_of(model, case)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, ADAMW.clip)
        optimiser.step()
        losses.append(loss.item())
    return np.array(losses)
