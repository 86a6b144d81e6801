"""Download: the official weights, from the Hugging Face hub into weights/.

The files go to a folder next to the final one.  An interrupted download continues where it
stopped.  When all files are on the disk, each with the checksum that the hub states, the folder is
renamed, so `--model gpt2-large` finds a whole model or none.

The hub's own library locates and reads the files.  It does not resume a file that an earlier run
began, so the part that was read is kept here.  The hub states SHA-256 for large files.  For small
files it states git's SHA-1: that of the word "blob", the size and a zero byte, before the contents.

HF_ENDPOINT names another hub; HF_HUB_OFFLINE forbids downloads.  The weights are public, so no
token is sent, neither to the hub nor to where it sends us.
"""

import hashlib
import os
import re
from collections.abc import Callable
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

from minigpt2.durable import publish
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.outputs import fsync_file, naming
from minigpt2.reports.progress import progress
from minigpt2.tensors import TENSORS
from minigpt2.weights import check_tensors, open_stored
from minigpt2.wording import plural

OWNER = "openai-community"
FILES = ("config.json", "vocab.json", "merges.txt", TENSORS)
LARGEST = 16 << 30  # bytes; the weights of gpt2-xl have 6.4 GB
HASHES = {64: "sha256", 40: "sha1"}  # by the number of hexadecimal digits
CHECKSUM = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def download_model(model: str, folder: Path) -> GPT2Config:
    """Download an official model into a folder that does not exist yet; return its configuration.

    Every file is checked before the folder appears.  Raises UserError if anything fails.
    """
    part = folder.with_name(f".{folder.name}.download")
    part.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        fetch(f"{OWNER}/{model}", name, part)
    config = GPT2Config.load(part / "config.json")
    check_tensors(part, open_stored(part), config)
    with naming(folder):
        publish(part, folder)
    return config


class Counted(BufferedWriter):
    """A file to append to, at most to a size; `advance` is called with the bytes of each write."""

    def __init__(self, path: Path, advance: Callable[[int], None], most: int):
        super().__init__(FileIO(path, "ab"))
        self._advance, self._most = advance, most
        advance(self.tell())

    def write(self, contents: Any) -> int:
        """Write bytes; return their number.  Raises OSError if the file would be too large."""
        if self.tell() + len(contents) > self._most:
            raise OSError(f"it sends more than the {plural(self._most, 'byte')} that it states")
        count = super().write(contents)
        self._advance(count)
        return count


def fetch(repository: str, name: str, folder: Path) -> None:
    """Download one file into a folder, unless the folder has it; raises UserError if that fails."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars

    if (folder / name).exists():
        return
    endpoint = os.environ.get("HF_ENDPOINT")
    url = hf_hub_url(repository, name, endpoint=endpoint)
    part = folder / f"{name}.part"
    try:
        metadata = get_hf_file_metadata(url, token=False, endpoint=endpoint)
        checksum = metadata.etag or ""
        if not CHECKSUM.fullmatch(checksum):
            raise UserError(
                f"{url}: this hub states no checksum of the file, so it cannot be checked; use "
                "another HF_ENDPOINT, or pass a folder that you fetched in another way as --model"
            )
        most = room_for(part, metadata.size)
        disable_progress_bars()  # here, it has the form that it has elsewhere
        total = metadata.size or 0
        with progress(f"fetching {name}", total) as advance, Counted(part, advance, most) as file:
            http_get(
                metadata.location,
                file,
                resume_size=file.tell(),
                expected_size=metadata.size,
                headers=build_hf_headers(token=False),  # it may be another host
                displayed_filename=name,
            )
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE forbids downloads: unset it, and try again") from None
    except (HTTPError, OSError) as error:
        raise UserError(
            f"{url} cannot be downloaded ({first_cause(error)}); "
            "run the same command again to continue"
        ) from None
    if not has_checksum(part, checksum):
        part.unlink()
        raise UserError(
            f"{url} arrived damaged and was deleted; run the same command again to download it anew"
        )
    with naming(part):
        fsync_file(part)  # a later run takes what has its name for whole
        os.rename(part, folder / name)


def room_for(part: Path, size: int | None) -> int:
    """Return the bytes that a part may have, by the stated size; one that has more is removed.

    Raises OSError if that is more than any official file has.
    """
    most = LARGEST if size is None else size
    if most > LARGEST:
        raise OSError(f"it states {plural(most, 'byte')}, more than any official file has")
    if part.exists() and part.stat().st_size > most:
        part.unlink()  # of another file
    return most


def first_cause(error: BaseException) -> str:
    """Return the first line of the error that caused all others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has this checksum, in hexadecimal: SHA-256, or git's SHA-1."""
    digest = hashlib.new(HASHES[len(checksum)])
    if len(checksum) == 40:
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == checksum
