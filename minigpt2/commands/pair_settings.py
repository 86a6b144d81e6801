"""Settings of runs on pairs: what `reward` and `dpo` have in common."""

from dataclasses import dataclass
from types import MappingProxyType

from minigpt2.commands.dataset import ALMANAC, DataSettings
from minigpt2.commands.run_settings import EpochSettings

NO_DROPOUT = (
    "there is no dropout in alignment: the probabilities of answers are compared, and with dropout "
    "the same weights would give others in each pass"
)


@dataclass(frozen=True, kw_only=True)
class PairSettings(EpochSettings, DataSettings):
    """The settings of a run on preference pairs.

    Args:
        data: file or folder of preference pairs, with chosen and rejected answers (JSON or JSONL;
            the README lists the formats), or "almanac" for the pairs that ship
        epochs: passes over the training pairs
        batch_size: pairs in one optimiser step
        micro_batch: pairs computed at once; changes memory, not the result (default: batch_size)
        test: what is measured besides, in one file or in several: [a.json,b.json]
        validation: share of the prompts whose pairs are for validation
        seed: seed of the split and of the order
    """

    refused = MappingProxyType(
        {"dropout": NO_DROPOUT}
    )  # settings of other commands, with the reason

    data: str = ALMANAC
    test: list[str] | str | None = None
    batch_size: int = 32
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        DataSettings.__post_init__(self)
        EpochSettings.__post_init__(self)
