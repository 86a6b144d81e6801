"""DPO and reward models next to trl: losses of the same numbers, and whole models in float64.

trl's losses are methods that take what they need from `self` and from the model's outputs; here
both are stand-ins with the few attributes that they read.  The whole models are transformers',
which read padded batches, with trl's losses on top and autograd below.
"""

from collections import defaultdict
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from transformers import GPT2Config as TheirConfig
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel
from trl import DPOTrainer, RewardTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from minigpt2.alignment.dpo import DPO, DPOObjective, pair_log_probs
from minigpt2.alignment.log_probs import batch_of_answers
from minigpt2.alignment.pair_batches import answers_of, with_reference
from minigpt2.alignment.pairs import Pair
from minigpt2.alignment.reward_model import (
    BradleyTerry,
    batch_of_last_rows,
    bradley_terry,
    bradley_terry_gradient,
    score_pairs,
)
from minigpt2.model.config import GPT2Config
from minigpt2.model.gradients import gradients_of
from minigpt2.model.heads import SCORE, with_heads
from minigpt2.model.initialisation import initialise
from minigpt2.training.objective import Options

BETA, CENTRE, SMOOTHING, PAD = 0.3, 0.2, 0.15, 0
CONFIG = GPT2Config(vocab_size=61, n_positions=24, n_embd=24, n_layer=2, n_head=3)
ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x
)


def made_pairs(seed=0):
    """Pairs of random tokens; 0 pads, so no token is 0."""
    rng = np.random.default_rng(seed)

    def ids(low, high):
        return rng.integers(1, CONFIG.vocab_size, rng.integers(low, high)).tolist()

    return [Pair(ids(3, 9), ids(1, 12), ids(1, 12)) for _ in range(6)]


PAIRS = made_pairs()
RECORDS = [
    {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
    for pair in PAIRS
]


def their_dpo(model, inputs, reference, loss_type, smoothing=0.0, beta=BETA):
    """trl's loss of a policy, as a tensor that can go backward."""
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=ACCELERATOR,
        args=SimpleNamespace(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    chosen, rejected = torch.as_tensor(reference).T
    inputs = {**inputs, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    return DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)


def always(outputs, **inputs):
    """A model with the same outputs for all inputs."""
    return outputs


def outputs_of(log_p):
    """The outputs of a policy that has these ln p; the others are for statistics."""
    nothing = torch.zeros_like(log_p)
    return SimpleNamespace(
        log_probs=log_p, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
    )


def compare_losses():
    """(name, quantity, difference) of losses as functions of ln p, and of their gradients.

    trl has a smoothed loss under another name: it compares sorted log-ratios, so it gets one pair
    at a time.
    """
    rng = np.random.default_rng(1)
    inputs = DataCollatorForPreference(pad_token_id=PAD)(RECORDS)
    mask = inputs["completion_mask"][:, 1:].bool().numpy()  # chosen ones, then rejected ones
    log_p = np.where(mask, -3 * rng.random(mask.shape), 0.0)
    reference = -8 * rng.random((len(PAIRS), 2))
    kinds = {
        "sigmoid": (DPO(BETA), "sigmoid"),
        "sigmoid_norm": (DPO(BETA, per_token=True), "sigmoid_norm"),
        "smoothed": (DPO(BETA, smoothing=SMOOTHING), "aot_unpaired"),
    }
    for name, (dpo, loss_type) in kinds.items():
        parts = [range(len(PAIRS))] if name != "smoothed" else [[k] for k in range(len(PAIRS))]
        theirs, gradient = 0.0, np.zeros_like(log_p)
        for part in parts:
            rows = [*part, *(len(PAIRS) + k for k in part)]
            own = torch.tensor(log_p[rows], requires_grad=True)
            model = partial(always, outputs_of(own))
            batch = {key: tensor[rows] for key, tensor in inputs.items()}
            loss = their_dpo(model, batch, reference[list(part)], loss_type, dpo.smoothing)
            loss.backward()
            share = len(part) / len(PAIRS)
            theirs += share * loss.item()
            gradient[rows] += share * own.grad.numpy()
        sums = log_p.sum(1).reshape(2, -1).T - reference
        lengths = mask.sum(1).reshape(2, -1).T
        rewards = dpo.rewards(sums, lengths)
        ours = dpo.losses(rewards).mean()
        weights = (dpo.weights(rewards, lengths) / len(PAIRS)).T.reshape(-1, 1) * mask
        yield f"trl's DPO, {name}", "policy loss", abs(ours - theirs)
        yield f"trl's DPO, {name}", "policy gradient", abs(weights + gradient)[mask].max()


def their_reward(model, inputs, centre):
    """trl's loss of a reward model."""
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=ACCELERATOR,
        args=SimpleNamespace(center_rewards_coefficient=centre or None),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    return RewardTrainer.compute_loss(trainer, model, dict(inputs))


def compare_reward_losses():
    """The same of reward models' losses as functions of scores."""
    scores = np.random.default_rng(2).standard_normal((len(PAIRS), 2))
    for centre in (0.0, CENTRE):
        own = torch.tensor(scores.T.reshape(-1, 1).copy(), requires_grad=True)
        inputs = {"attention_mask": torch.ones(len(own), 1)}
        loss = their_reward(partial(always, SimpleNamespace(logits=own)), inputs, centre)
        loss.backward()
        name = f"trl's reward model, centred by {centre:g}"
        yield name, "reward loss", abs(bradley_terry(scores, centre).mean() - loss.item())
        gradient = bradley_terry_gradient(scores, centre) / len(PAIRS)
        theirs = own.grad.numpy().reshape(2, -1).T
        yield name, "reward gradient", abs(gradient - theirs).max()


# Whole models.


def theirs_with(kind, parameters, prefix="transformer."):
    """transformers' model of a kind with our parameters, in float64."""
    sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    config = TheirConfig(
        **{name: getattr(CONFIG, name) for name in sizes},
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=1,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = kind(config).double().train()
    names = {n: n if n.startswith(SCORE) else f"{prefix}{n}" for n in parameters.views}
    tensors = {names[n]: torch.tensor(view) for n, view in parameters.views.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return model


def scored(model, labels, input_ids, attention_mask, **options):
    """The outputs of a policy, as trl's own head has them, which computes in float32 alone."""
    logits = model(input_ids, attention_mask=attention_mask).logits[:, :-1]
    targets = labels[:, 1:].clamp(min=0)[..., None]
    log_p = torch.log_softmax(logits, -1).gather(-1, targets)[..., 0]
    return outputs_of(log_p.masked_fill(labels[:, 1:] < 0, 0))


def random_weights(seed):
    """Parameters of a size at which every op is curved."""
    parameters = initialise(CONFIG, np.random.default_rng(seed), np.float64)
    return parameters.like(4 * parameters.flat)


def off(gradients, model):
    """The largest difference of a tensor's gradient, relative to its size."""
    worst = 0.0
    for name, tensor in model.named_parameters():
        theirs = tensor.grad.numpy()
        ours = gradients[name.removeprefix("transformer.")]
        worst = max(worst, np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return worst


def compare_models():
    """The same of a policy and of a reward model, with the gradients of all their tensors."""
    policy, reference = random_weights(0), random_weights(1)
    stored = pair_log_probs(reference, PAIRS)
    model = theirs_with(GPT2LMHeadModel, policy)
    inputs = DataCollatorForPreference(pad_token_id=PAD)(RECORDS)
    loss = their_dpo(partial(scored, model), inputs, stored, "sigmoid")
    loss.backward()
    batch = with_reference(batch_of_answers(answers_of(PAIRS)), stored)
    ours, gradients = run(DPOObjective(DPO(BETA)), policy, batch)
    yield "trl's DPO, a whole model", "policy loss", abs(ours - loss.item())
    yield "trl's DPO, a whole model", "policy gradient", off(gradients, model)

    head = np.random.default_rng(3).standard_normal((1, CONFIG.n_embd))
    ours_too = with_heads(policy, {f"{SCORE}.weight": head})
    model = theirs_with(GPT2ForSequenceClassification, ours_too)
    inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        scores = model(**inputs).logits.numpy().reshape(2, -1).T
    loss = their_reward(model, inputs, CENTRE)
    loss.backward()
    batch = batch_of_last_rows(answers_of(PAIRS))
    ours, gradients = run(BradleyTerry(CENTRE), ours_too, batch)
    name = "trl's reward model, whole"
    yield name, "reward loss", abs(ours - loss.item())
    yield name, "reward gradient", off(gradients, model)
    yield name, "score", abs(score_pairs(ours_too, PAIRS) - scores).max()


def run(objective, parameters, batch):
    """The loss and the gradients of an objective on one batch."""
    gradients = gradients_of(parameters)
    options = Options(objective.normaliser([batch]))
    result = objective.add_gradients(parameters, batch, gradients, options)
    gradients.complete()
    return objective.metrics([batch], [result])["loss"], gradients


def comparisons():
    """(name, quantity, difference) of every loss, gradient and score."""
    yield from compare_losses()
    yield from compare_reward_losses()
    yield from compare_models()
