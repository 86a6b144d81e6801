"""Adapter config: which fields of peft's adapter_config.json are known, and which must be off."""

from pathlib import Path
from typing import Any

from minigpt2.errors import UserError
from minigpt2.reading import quoted
from minigpt2.wording import shorten

# Keys of peft that change nothing here, whatever they are.  Every other one must be off.
KNOWN = {"peft_type", "base_model_name_or_path", "r", "lora_alpha", "use_rslora", "bias"}
WITHOUT_EFFECT = {
    "auto_mapping",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
}
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
LARGEST_ALPHA = 1e9


def check_fields(content: dict[str, Any], path: Path) -> None:
    """Raise UserError unless adapter_config.json describes adapters that are computed here."""
    if content.get("peft_type") != "LORA":
        kind = shorten(quoted(content.get("peft_type")), 60)
        raise UserError(f"{path}: peft_type is {kind}, and only LORA is known")
    rank, alpha = content.get("r", 0), content.get("lora_alpha", 0)
    if type(rank) is not int or rank < 1:
        raise UserError(f"{path}: r must be a whole number of at least 1, not {rank!r:.60}")
    if type(alpha) not in (int, float) or not 0 < alpha <= LARGEST_ALPHA:
        raise UserError(f"{path}: lora_alpha must be a number above 0, not {alpha!r:.60}")
    if type(content.get("use_rslora", False)) is not bool:
        raise UserError(f"{path}: use_rslora must be true or false")
    if content.get("bias", "none") != "none":
        raise UserError(f"{path}: bias is not none: trained biases are not known here")
    start = content.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASE):
        raise UserError(f"{path}: init_lora_weights is {start!r:.60}, which changes the base model")
    for name, value in content.items():
        if name not in KNOWN | WITHOUT_EFFECT and value not in (None, False, [], {}):
            raise UserError(f"{path}: {shorten(name)} is {value!r:.60}, which is not known here")
