"""Training config: the numbers that a run's steps follow."""

from dataclasses import dataclass, field

from minigpt2.ops.adamw import AdamW


@dataclass(frozen=True)
class TrainingConfig:
    """The number of steps, their learning rates, AdamW's constants, dropout."""

    steps: int
    learning_rate: float  # at its peak
    warmup: int = 0  # steps
    schedule: str = "cosine"
    adamw: AdamW = field(default_factory=AdamW)
    dropout: float = 0.0
    recompute: bool = False

    @property
    def remedy(self) -> str:
        """What helps where numbers grow without end: a decay of whole weights is too much, too."""
        decays = self.learning_rate <= 1 < self.learning_rate * self.adamw.weight_decay
        return "lower weight_decay" if decays else "lower the learning rate"
