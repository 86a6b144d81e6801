"""Download: fetch official weights from the Hugging Face hub into weights/."""

from dataclasses import dataclass
from pathlib import Path

from minigpt2.download import download_model
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL


@dataclass(frozen=True)
class DownloadSettings:
    """Fetch official weights into weights/.

    Args:
        model: gpt2, gpt2-medium, gpt2-large or gpt2-xl
        out: folder to put it into (default: weights/ and the model's name)
    """

    model: str
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.model not in OFFICIAL:
            names = ", ".join(OFFICIAL)
            raise UserError(f"there are no official weights {self.model!r}; there are {names}")


def download(settings: DownloadSettings) -> Path:
    """Fetch a model unless it is there, say where it is, and return its folder."""
    folder = settings.out or Path("weights") / settings.model
    if (folder / "config.json").exists():
        print(f"{settings.model} is in {folder} already")
        return folder
    if folder.exists():
        raise UserError(f"{folder} exists and is not a model: choose another --out, or move it")
    config = download_model(settings.model, folder)
    print(f"{settings.model}, {config.n_parameters:,} parameters, is in {folder}")
    return folder
