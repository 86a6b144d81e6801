"""Download: the official weights, from the Hugging Face hub into weights/.

A download goes to a folder beside its place.  What was interrupted goes on where it
stopped; when all files are there and have the checksum that the hub tells, the
folder is renamed, so `--model gpt2-large` finds a whole model or none.

The hub's own library finds files and reads them; it no longer takes up what another
run began, so the file that does is kept here.  The hub tells SHA-256 for large files
and git's SHA-1 for small ones, which is that of "blob", the size and a zero byte
before the contents.

HF_ENDPOINT names another hub, and HF_HUB_OFFLINE forbids to ask one.
"""

import hashlib
import os
from pathlib import Path

from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.tensors import TENSORS
from minigpt2.weights import check_names, open_stored

OWNER = "openai-community"
FILES = ("config.json", "vocab.json", "merges.txt", TENSORS)
HASHES = {64: "sha256", 40: "sha1"}  # by the length of what the hub tells


def download_model(model: str, folder: Path) -> GPT2Config:
    """Fetch an official model into a folder that does not exist yet; return its configuration.

    Every file is checked before the folder appears.  Raises UserError when that fails.
    """
    beside = folder.with_name(f".{folder.name}.download")
    beside.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        fetch(f"{OWNER}/{model}", name, beside)
    config = GPT2Config.load(beside / "config.json")
    check_names(beside, open_stored(beside), config)
    os.rename(beside, folder)
    return config


def fetch(repository: str, name: str, folder: Path) -> None:
    """Fetch one file into a folder, unless it is there, and check it; UserError if that fails."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if (folder / name).exists():
        return
    endpoint = os.environ.get("HF_ENDPOINT")
    url = hf_hub_url(repository, name, endpoint=endpoint)
    part = folder / f"{name}.part"
    try:
        told = get_hf_file_metadata(url, endpoint=endpoint)
        with open(part, "ab") as file:
            http_get(
                told.location,
                file,
                resume_size=file.tell(),
                expected_size=told.size,
                headers=build_hf_headers(),
                displayed_filename=name,
            )
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE forbids to download: unset it, and try again") from None
    except (HTTPError, OSError) as error:
        raise UserError(
            f"{url} cannot be downloaded ({reason(error)}); the same command goes on later"
        ) from None
    if not is_intact(part, told.etag or ""):
        part.unlink()
        raise UserError(f"{url} came damaged, and was deleted: the same command fetches it again")
    os.rename(part, folder / name)


def reason(error: BaseException) -> str:
    """Return the first line of what went wrong first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_intact(path: Path, told: str) -> bool:
    """Whether a file has the checksum that the hub tells."""
    if len(told) not in HASHES:
        return False
    digest = hashlib.new(HASHES[len(told)])
    if len(told) == 40:
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest() == told
