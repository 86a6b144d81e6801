"""This project's steps on pairs as contenders: DPO and a reward model."""

from pathlib import Path

from minigpt2.alignment.dpo import DPO, DPOObjective, pair_log_probs
from minigpt2.alignment.log_probs import batch_of_answers
from minigpt2.alignment.pair_batches import answers_of, with_reference
from minigpt2.alignment.reward_model import BradleyTerry, batch_of_last_rows, start_of_head
from minigpt2.model.heads import SCORE, with_heads
from minigpt2.ops.adamw import AdamW
from minigpt2.training.config import TrainingConfig
from minigpt2.weights import load_parameters
from tests.benchmarks.peers.jobs import CLIP, LEARNING_RATE, WEIGHT_DECAY
from tests.benchmarks.peers.ours import FOR_EVER
from tests.stepping import take

CONFIG = TrainingConfig(
    FOR_EVER, LEARNING_RATE, 0, "linear", adamw=AdamW(weight_decay=WEIGHT_DECAY, clip=CLIP)
)
BETA = 0.1


class Steps:
    """Steps that were prepared."""

    def __init__(self, parameters, batches, objective):
        parts = [[batch] for batch in batches]
        self._steps = take(parameters, parts, CONFIG, objective=objective)

    def step(self):
        """Take the next step; return its loss."""
        return next(self._steps).loss


class PolicySteps(Steps):
    """DPO; the reference's numbers are computed first."""

    def __init__(self, folder, job, how):
        parameters = load_parameters(Path(folder))
        batches = [
            with_reference(batch_of_answers(answers_of(part)), pair_log_probs(parameters, part))
            for part in job.batches
        ]
        super().__init__(parameters, batches, DPOObjective(DPO(BETA)))


class RewardSteps(Steps):
    """A reward model, whose head begins at 0."""

    def __init__(self, folder, job, how):
        parameters = load_parameters(Path(folder))
        head = {f"{SCORE}.weight": start_of_head(job.config.n_embd)}
        batches = [batch_of_last_rows(answers_of(part)) for part in job.batches]
        super().__init__(with_heads(parameters, head), batches, BradleyTerry())
