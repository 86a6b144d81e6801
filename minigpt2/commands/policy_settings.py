"""Settings of runs on policy: what `ppo` and `grpo` have in common.

Both learn from answers that the policy draws itself.
"""

from dataclasses import dataclass
from types import MappingProxyType

from minigpt2.alignment.rollout import require_whole_policy
from minigpt2.alignment.verifiable_rewards import Check
from minigpt2.commands.dataset import ALMANAC, DataSettings
from minigpt2.commands.pair_settings import NO_DROPOUT
from minigpt2.commands.run_settings import TuningSettings
from minigpt2.errors import UserError, require_at_least, require_with
from minigpt2.inference.sampling import Sampling

WHOLE = (
    "answers are drawn from all tokens with the policy's own probabilities: {} would change them, "
    "and every ratio of the policy to what was drawn would be wrong"
)
REFUSED = MappingProxyType(  # settings of other commands, with the reason
    {
        "top_k": WHOLE.format("top_k"),
        "top_p": WHOLE.format("top_p"),
        "repetition_penalty": WHOLE.format("a repetition penalty"),
        "dropout": NO_DROPOUT,
    }
)


@dataclass(frozen=True, kw_only=True)
class PolicySettings(TuningSettings, DataSettings):
    """The settings of a run that learns from a policy's own answers.

    Args:
        data: file or folder of questions. A check reads their answers; for a reward model there
            may be prompts alone, in a field prompt, instruction or question. "almanac" is the
            questions that ship
        model: model to start from, which is also the reference: one that was tuned, as the folder
            of its run, or a name
        reward_model: reward model that scores the answers: the folder of a run of `reward`; this or
            check is required
        check: program that scores the answers 1 or 0 by the record's own: exact (equal texts),
            contains (the record's answer as whole words), number (the last number), equation (the
            last equation is true and has the result of the record's)
        must_end: with a check, an answer that was cut gets 0
        out: folder of the run, new or empty (default: the first free of runs/<data>-ppo-1,
            runs/<data>-ppo-2, ..., or of such with grpo)
        test: questions to answer before and after, scored by exact match, in one file or in
            several: [a.json,b.json] (the almanac brings its own)
        prompts: prompts that are answered at once
        answers: answers to each of them
        temperature: of the policy, in drawing and in learning; 1 draws with the model's own
            probabilities
        max_new_tokens: longest answer in tokens (default: as long as the longest of the data;
            required if the data has no answers)
        cut_penalty: what is subtracted from the reward of an answer that was cut at max_new_tokens
        beta: KL coefficient: the KL to the reference costs beta times as much as the reward
        max_kl: KL of an answer to the reference at which the run is saved and stops; 0 for no bound
        samples: number of questions whose answers are printed before and after
        seed: seed of the order and of the answers
    """

    refused = REFUSED

    data: str = ALMANAC
    reward_model: str | None = None
    check: Check | None = None
    must_end: bool = True
    test: list[str] | str | None = None
    steps: int = 100
    prompts: int = 8
    answers: int = 8
    temperature: float = 1.0
    max_new_tokens: int | None = None
    cut_penalty: float = 0.0
    beta: float = 0.0
    max_kl: float = 50.0
    samples: int = 3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        DataSettings.__post_init__(self)
        TuningSettings.__post_init__(self)
        require_at_least(0, self, "temperature", "cut_penalty", "beta", "max_kl", "samples")
        require_at_least(1, self, "prompts", "answers", "max_new_tokens")
        require_whole_policy(Sampling(self.temperature))
        if (self.reward_model is None) == (self.check is None):
            raise UserError(
                "what are answers rewarded by? Give reward_model (the folder of a run of "
                "`reward`) or check (exact, contains, number or equation), and not both"
            )
        require_with("check", self, "must_end")
