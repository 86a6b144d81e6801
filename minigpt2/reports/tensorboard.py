"""TensorBoard: the numbers of a run as event files, which TensorBoard shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigpt2.errors import UserError


class Events:
    """Writes every number of a log line as a scalar; raises UserError without tensorboardX."""

    def __init__(self, folder: Path):
        require_tensorboard()
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), flush_secs=10)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write the numbers of an entry under its step."""
        for name, value in entry.items():
            if name != "step" and isinstance(value, int | float):
                kind = "validation" if name.startswith("validation_") else "training"
                self._writer.add_scalar(f"{kind}/{name}", value, entry["step"])

    def close(self) -> None:
        """Write the last events."""
        self._writer.close()


def require_tensorboard() -> None:
    """Raise UserError if the library that writes event files is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        text = "pip install 'minigpt2[tensorboard]'"
        raise UserError(f"tensorboard needs the library tensorboardX: {text}") from None
