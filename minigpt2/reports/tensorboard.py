"""TensorBoard: the numbers of a run as event files, which TensorBoard shows."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import Any

from minigpt2.errors import UserError
from minigpt2.outputs import naming

PAUSE = 10.0  # seconds between two times that the events are handed to the disk


class Events:
    """Writes every number of a log line as a scalar.

    Raises UserError without tensorboardX, or if the file cannot be written.  The library's own
    writer is not used: its thread dies, and the run with it, when the disk is full.
    """

    def __init__(self, folder: Path):
        require_tensorboard()
        from tensorboardX.event_file_writer import EventsWriter

        self._folder = folder
        with naming(folder):
            folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        self._flushed = monotonic()

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write the numbers of an entry under its step."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with naming(self._folder):
            for name, value in entry.items():
                if name != "step" and isinstance(value, int | float):
                    kind = "validation" if name.startswith("validation_") else "training"
                    summary = scalar(f"{kind}/{name}", value)
                    event = Event(wall_time=time(), step=entry["step"], summary=summary)
                    self._writer.write_event(event)
            if monotonic() - self._flushed > PAUSE:
                self._writer.flush()
                self._flushed = monotonic()

    def close(self) -> None:
        """Write the last events."""
        with naming(self._folder):
            try:
                self._writer.close()
            except OSError:
                with suppress(OSError):  # the library leaves its file open if it cannot flush it
                    self._writer._py_recordio_writer.close()
                raise


def require_tensorboard() -> None:
    """Raise UserError if the library that writes event files is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        text = "pip install 'minigpt2[tensorboard]'"
        raise UserError(f"tensorboard needs the library tensorboardX: {text}") from None
