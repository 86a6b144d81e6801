"""Settings of LoRA: the options for adapters, which train has."""

from dataclasses import dataclass, field

from minigpt2.errors import UserError, require_above_zero, require_at_least, require_with
from minigpt2.model.adapters import LAYERS, LoRA

SLOW = 1e-4  # a learning rate below this is low for adapters


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The settings of adapters.

    Args:
        lora_rank: tune LoRA adapters of this rank, such as 8, and leave the model's own weights as
            they are: memory for gradients and AdamW falls to a hundredth; 0 tunes all weights. Take
            a higher --learning-rate: 2e-4 suits the official weights
        lora_alpha: α; what the adapters add is multiplied by α / rank
        lora_layers: layers of each block that get adapters; all four come closest to tuning all
            weights (Dettmers et al. 2023); [attn.c_attn] is peft's default
        lora_rslora: multiply by α / √rank instead (rank-stabilised LoRA): √rank times as much, so
            take a lower --learning-rate
        lora_merge: at the end of the run also write `merged`, the whole model with its adapters
    """

    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_layers: list[str] = field(default_factory=lambda: list(LAYERS))
    lora_rslora: bool = False
    lora_merge: bool = True

    def __post_init__(self) -> None:
        require_at_least(0, self, "lora_rank")
        require_above_zero(self, "lora_alpha")
        for layer in self.lora_layers:
            if layer not in LAYERS:
                raise UserError(f"lora_layers: {layer!r:.60} is none of {', '.join(LAYERS)}")
        if not self.lora_layers:
            raise UserError(f"lora_layers is empty: name some of {', '.join(LAYERS)}")
        require_with("lora_rank", self, "lora_alpha", "lora_layers", "lora_rslora", "lora_merge")

    @property
    def lora(self) -> LoRA | None:
        """The adapters that are tuned; None if all weights are."""
        if not self.lora_rank:
            return None
        layers = tuple(filter(self.lora_layers.__contains__, LAYERS))
        return LoRA(self.lora_rank, self.lora_alpha, layers, self.lora_rslora)
