"""trl's steps on pairs as contenders: its own losses, head and padding, without its loop.

Its losses are methods of trainers; tests/parity/preferences.py calls them with a stand-in for the
trainer.  The optimiser is the fused AdamW, and there is no gradient checkpointing, which trl has by
default.
"""

from functools import partial

import torch
from transformers import GPT2ForSequenceClassification
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from tests.benchmarks.peers.optimiser import Learner
from tests.benchmarks.peers.pairs_ours import BETA
from tests.parity.preferences import their_dpo, their_reward
from tests.parity.reference import open_reference

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")  # as DPOTrainer wants them


def collated(job):
    """All batches, padded as trl pads them: first all chosen answers, then the rejected ones."""
    collate = DataCollatorForPreference(pad_token_id=job.pad)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [
        collate([dict(zip(names, map(list, pair[:3]), strict=True)) for pair in batch])
        for batch in job.batches
    ]


class PolicySteps(Learner):
    """DPO; the reference's numbers are computed first, or by a second model in each step."""

    def __init__(self, folder, job, how, second_model=False):
        self._model = open_reference(folder)
        add_fused_lm_head(self._model, outputs=OUTPUTS)
        super().__init__(self._model.parameters(), how, fused=True, job=job)
        self._second = None
        batches = collated(job)
        if second_model:
            self._second = open_reference(folder)
            add_fused_lm_head(self._second)
            self._batches = iter((batch, None) for batch in batches)
        else:
            stored = [self._reference(self._model, batch) for batch in batches]
            self._batches = iter(zip(batches, stored, strict=True))

    def step(self):
        """Take the next step; return its loss."""
        batch, stored = next(self._batches)
        return self.learn(partial(self._loss, batch, stored))

    def _loss(self, batch, stored):
        stored = self._reference(self._second, batch) if stored is None else stored
        return their_dpo(self._model, batch, stored, "sigmoid", beta=BETA)

    @torch.no_grad()
    def _reference(self, model, batch):
        """ln π of both answers of each pair."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        outputs = model(**inputs, labels=labels, fused_lm_head=True, use_cache=False)
        return torch.stack(outputs.log_probs.sum(1).chunk(2), 1)


class RewardSteps(Learner):
    """A reward model, whose head begins at 0."""

    def __init__(self, folder, job, how):
        model = GPT2ForSequenceClassification.from_pretrained(
            folder, num_labels=1, pad_token_id=job.pad, dtype=torch.float32
        ).eval()
        torch.nn.init.zeros_(model.score.weight)
        self._model = model
        super().__init__(model.parameters(), how, fused=True, job=job)
        names = ("input_ids", "attention_mask")
        self._batches = iter([{name: batch[name] for name in names} for batch in collated(job)])

    def step(self):
        """Take the next step; return its loss."""
        batch = next(self._batches)
        return self.learn(lambda: their_reward(self._model, batch, 0.0))
