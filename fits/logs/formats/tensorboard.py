"""TensorBoard event files: records with checksums, each a protocol buffer ``Event``.

Source: tensorboard's ``event.proto``, ``summary.proto`` and ``tensor.proto``; TFRecord framing as in
https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from fits.logs.formats.protobuf import Malformed, fields, number, signed, text
from fits.logs.run_log import RunLog

FORMAT = "TensorBoard event file"
VERSION_RECORD = b"brain.Event:"
"""Beginning of the version in the first record of every event file."""
_HEADER = struct.Struct("<QI")
_FOOTER = 4
LARGEST_RECORD = 1 << 30


def is_event_file(start: bytes) -> bool:
    """Return True if the first bytes of a file are those of an event file."""
    return VERSION_RECORD in start[:64] and len(start) > 12 and _HEADER.unpack(start[:12])[0] < 256


def read_event_files(paths: list[Path], name: str) -> RunLog:
    """Read the scalars of the event files of one directory, the oldest first.

    A record that is cut off, or whose successor is, ends its file: the file is still being written, or its
    writer was killed.
    """
    log = RunLog(name, paths[0], FORMAT)
    for path in sorted(paths, key=lambda each: each.name):
        for record in _records(path, log):
            try:
                step, values = _event(record)
            except Malformed:
                log.notes.append(f"{path.name} has a damaged record, which is left out")
                continue
            if values:
                log.add(step, values)
    return log


def _records(path: Path, log: RunLog) -> Iterator[bytes]:
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else LARGEST_RECORD
            record = file.read(length) if length < LARGEST_RECORD else b""
            if len(record) < length or len(file.read(_FOOTER)) < _FOOTER:
                log.notes.append(f"{path.name} ends within a record: what comes before is used")
                return
            yield record


def _event(record: bytes) -> tuple[int, dict[str, float]]:
    """Return step and scalars of an ``Event``."""
    step = 0
    values: dict[str, float] = {}
    for key, content in fields(record):
        if key == 2:
            step = signed(content)
        elif key == 5 and isinstance(content, bytes):
            for inner, summary_value in fields(content):
                if inner == 1 and isinstance(summary_value, bytes):
                    values |= _scalar(summary_value)
    return step, values


def _scalar(summary_value: bytes) -> dict[str, float]:
    """Return tag and number of a ``Summary.Value``; nothing for images, histograms and texts."""
    tag, found = "", None
    for key, content in fields(summary_value):
        if key == 1:
            tag = text(content)
        elif key == 2:
            found = number(content)
        elif key == 8 and isinstance(content, bytes):
            found = _tensor(content)
    return {} if found is None else {tag: found}


def _tensor(content: bytes) -> float | None:
    """Return the number of a ``TensorProto`` of one float or double; None for other tensors."""
    kind, numbers = 0, []
    for key, part in fields(content):
        if key == 1:
            kind = signed(part)
        elif key in (4, 5, 6) and isinstance(part, bytes):
            width = {1: 4, 2: 8}.get(kind, 0)
            if width and len(part) == width:
                numbers.append(number(part))
    return numbers[0] if len(numbers) == 1 else None
