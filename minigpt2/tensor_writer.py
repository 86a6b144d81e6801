"""Writing tensors: arrays become a safetensors file, with a checksum of each.

The arrays are written in pieces from where they are, on the host or on a device, so nothing is
copied as a whole.  The format is described in `tensors`.  The numbers begin at a multiple of
BLOCK, so that a disk can fetch them from a flat array that does so, too (`direct_file`).
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minigpt2.backend import Array, host_pieces
from minigpt2.checksum import crc32
from minigpt2.direct_file import BLOCK, direct_file
from minigpt2.tensors import DTYPES, open_tensors

NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items() if name != "BF16"}
HEADER = ""  # stands for what is before the tensors; no tensor has this name
PIECE = 1 << 20  # numbers written at a time: 4 MiB in F32


def write_tensors(
    path: Path,
    tensors: Mapping[str, Array],
    dtype: type | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Write arrays of float numbers as one safetensors file, as `dtype` or as they are.

    They are written in pieces of a few MB, so no copy is made of any of them.  Returns the CRC-32
    of the bytes of each array, and under HEADER that of what comes before the arrays.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    dtypes = {name: np.dtype(dtype or a.dtype).newbyteorder("<") for name, a in tensors.items()}
    start = 0
    for name, array in tensors.items():
        stop = start + array.size * dtypes[name].itemsize
        header[name] = {
            "dtype": NAMES[dtypes[name]],
            "shape": list(array.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % BLOCK)
    text = struct.pack("<Q", len(text)) + text
    checksums = {HEADER: crc32(text)}
    with direct_file(path) as file:
        file.write(np.frombuffer(text, np.uint8))
        for name, array in tensors.items():
            checksums[name] = 0
            for piece in host_pieces(array, PIECE):
                contents = np.ascontiguousarray(piece, dtypes[name]).view(np.uint8)
                checksums[name] = crc32(contents, checksums[name])
                file.write(contents)
    return checksums


def checksums_of(path: Path) -> dict[str, int]:
    """Return the checksums that `write_tensors` returned, computed from the file.

    Raises UserError if it cannot be read as safetensors.
    """
    stored = open_tensors(path)
    with open(path, "rb") as file:
        length = min((tensor.start for tensor in stored.values()), default=path.stat().st_size)
        checksums = {HEADER: crc32(file.read(length))}
        for name, tensor in stored.items():
            file.seek(tensor.start)
            left, checksum = tensor.bytes, 0
            while left and (contents := file.read(min(left, PIECE * 4))):
                checksum, left = crc32(contents, checksum), left - len(contents)
            checksums[name] = checksum
    return checksums
