"""Model folders: which folder a name stands for, and the checkpoints of a run."""

import re
from os.path import exists, isdir, isfile  # False for a name that the system refuses
from pathlib import Path

from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.outputs import naming
from minigpt2.shipped import shipped
from minigpt2.tensors import ADAPTER_CONFIG, ADAPTER_TENSORS, TENSORS, open_folder, open_tensors
from minigpt2.wording import shorten

STATE = "state.json"  # of a checkpoint: the checksums, among other things
# A run's folder holds several.  In the name are the steps taken and, if it was written in the
# middle of an accumulated step, the micro-batches of that step.
CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,18})(?:-([0-9]{1,9}))?")
RUN_FILES = ("log.jsonl", "settings.json")


def find_model(model: str) -> Path:
    """Return the path of a model: a folder, a run's folder, a file, or a name under weights/.

    In a run's folder it is the newest checkpoint.  Raises UserError if there is none, or if it is
    damaged.
    """
    named = [Path("weights") / model, shipped(f"weights/{model}")]
    if model.endswith(".safetensors") and isfile(model):
        path = Path(model)
        return path.parent if path.name == ADAPTER_TENSORS else path
    if not is_model(Path(model)) and (saved := checkpoints_of(Path(model))):
        return require_whole(saved)
    for folder in filter(is_model, (Path(model), Path(model) / "checkpoint", *named)):
        return folder
    if any(isfile(Path(model) / name) for name in RUN_FILES):
        raise UserError(f"{model!r} holds a run without a checkpoint yet: it has saved nothing")
    if exists(model):
        raise UserError(f"{model!r} holds no model: it has no config.json")
    if model in OFFICIAL:
        raise UserError(
            f"the weights of {model} are not in weights/{model}: `minigpt2 download {model}` "
            "fetches them"
        )
    names = ", ".join(["tiny", *OFFICIAL])
    raise UserError(
        f"there is no model {shorten(repr(model))}: give a folder with config.json and "
        f"{TENSORS}, a run's folder, or one of {names}"
    )


def is_model(folder: Path) -> bool:
    """Whether a folder has the configuration of a model, or of adapters (adapter_weights)."""
    return isfile(folder / "config.json") or isfile(folder / ADAPTER_CONFIG)


def checkpoints_of(run: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, oldest first.

    A checkpoint has this name only when all of it is written; a hidden folder is none.  Raises
    UserError if the folder cannot be read.
    """
    try:
        paths = list(run.iterdir()) if isdir(run) else []
    except OSError as error:
        raise UserError(f"{run} cannot be read: {error.strerror}") from None
    numbered = [(CHECKPOINT.fullmatch(path.name), path) for path in paths]
    places = [(place_of(match), path) for match, path in numbered if match and path.is_dir()]
    return [path for _, path in sorted(places)]


def place_of(match: re.Match[str]) -> tuple[int, int]:
    """Return the steps and the micro-batches in a checkpoint's name."""
    return int(match[1]), int(match[2] or 0)


def require_whole(checkpoints: list[Path]) -> Path:
    """Return the newest checkpoint.

    Raises UserError, which names the one before, if a file of it is missing or cut.
    """
    *older, newest = checkpoints
    try:
        if isfile(newest / ADAPTER_CONFIG):
            open_tensors(newest / ADAPTER_TENSORS)
        else:
            GPT2Config.load(newest / "config.json")
            open_folder(newest)
    except UserError as error:
        remedy = f"; use {older[-1]}, the one before it" if older else ""
        raise UserError(f"the checkpoint {newest} is damaged: {error}{remedy}") from None
    return newest


def set_aside(path: Path) -> Path:
    """Give a damaged checkpoint another name, so that the run can write it again; return it."""
    number = 1
    while (aside := path.with_name(f"damaged-{number}-{path.name}")).exists():
        number += 1
    with naming(path):
        path.rename(aside)
    return aside
