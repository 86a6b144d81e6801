"""Download: fetch official weights from the Hugging Face hub into weights/."""

from dataclasses import dataclass
from pathlib import Path

from minigpt2.download import download_model
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL
from minigpt2.outputs import require_new_folder
from minigpt2.terminal import say
from minigpt2.wording import plural


@dataclass(frozen=True)
class DownloadSettings:
    """Fetch official weights into weights/.

    Examples:
        minigpt2 download gpt2
        minigpt2 download gpt2-medium --out /data/gpt2-medium

    Args:
        model: gpt2, gpt2-medium, gpt2-large or gpt2-xl
        out: folder for the model (default: weights/<model>)
    """

    model: str
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.model not in OFFICIAL:
            names = ", ".join(OFFICIAL)
            raise UserError(f"there are no official weights {self.model!r}: choose one of {names}")


def download(settings: DownloadSettings) -> Path:
    """Fetch a model unless its folder exists; print and return the folder."""
    folder = settings.out or Path("weights") / settings.model
    if (folder / "config.json").exists():
        say(f"{settings.model} is already in {folder}")
        return folder
    if folder.exists():
        raise UserError(f"{folder} exists and is not a model: choose another --out, or move it")
    require_new_folder(folder, "--out")
    config = download_model(settings.model, folder)
    say(f"{settings.model}, {plural(config.n_parameters, 'parameter')}, is in {folder}")
    return folder
