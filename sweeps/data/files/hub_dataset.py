"""Data sets of the Hugging Face hub, as the datasets package downloads and keeps them."""

from __future__ import annotations

from typing import Any

from scaling.errors import InputError
from sweeps.data.files.columns import Kind, kind_of_type, row_count
from sweeps.data.files.source_files import SourceFile, file_at


def hub_dataset(spec: str, field: str) -> tuple[Any, Kind]:
    """Load the data set of ``hf:OWNER/NAME@SPLIT``; return it, and what its column holds.

    Raises:
        InputError: If it cannot be loaded, or has no column of text or lists of integers of that name.
    """
    name, _, split = spec.removeprefix("hf:").partition("@")
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            f"corpus.source: {spec} needs the datasets package: pip install 'distlaw[hub]'"
        ) from None
    try:
        dataset = load_dataset(name, split=split or "train", trust_remote_code=False)
    except Exception as error:
        raise InputError(f"corpus.source: cannot load {spec}: {error}") from None
    schema = dataset.features.arrow_schema
    if field not in schema.names:
        raise InputError(
            f"corpus.source: {spec} has no column {field!r}, only {', '.join(schema.names)}; set "
            "corpus.text_field"
        )
    kind = kind_of_type(schema.field(field).type)
    if kind is None:
        raise InputError(
            f"corpus.source: {spec}: column {field!r} holds {schema.field(field).type}, neither text nor "
            "lists of token ids"
        )
    return dataset, kind


def arrow_files(spec: str, dataset: Any) -> list[SourceFile]:
    """Return the files in which the package keeps a data set.

    Raises:
        InputError: If they hold other rows too, as of a part of a split.
    """
    files = [file_at(entry["filename"]) for entry in dataset.cache_files]
    if sum(map(row_count, files)) != len(dataset):
        raise InputError(
            f"corpus.source: {spec} is a part of a split; of token ids, name a whole one, or the directory "
            "that save_to_disk writes of the part"
        )
    return files
