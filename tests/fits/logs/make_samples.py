"""Generator of the samples of logs: each tool writes its own, once; CI reads them and installs no tool.

Run in an environment with the tools, after ``pip install trl tensorboard wandb mlflow optuna 'ray[tune]'
lm-eval``::

    python tests/fits/logs/make_samples.py [NAME ...]

``samples/VERSIONS.json`` records the version of each tool. Weights are cut off ``.safetensors`` files, whose
headers alone are read, and pickled files are not kept.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", RAY_USAGE_STATS_ENABLED="0",
    MLFLOW_ALLOW_FILE_STORE="true", TRANSFORMERS_VERBOSITY="error", MLFLOW_DISABLE_TELEMETRY="true",
)  # fmt: skip
SAMPLES = Path(__file__).parent / "samples"
VERSIONS = SAMPLES / "VERSIONS.json"
CONTEXT, VOCAB, BATCH = 32, 128, 8


def curve(step: float, floor: float = 2.0) -> float:
    """Return a made-up held-out loss after some steps."""
    return round(floor + 3.0 / (1.0 + step / 20) ** 0.5, 6)


def record_versions(*tools: str) -> None:
    known = json.loads(VERSIONS.read_text()) if VERSIONS.exists() else {}
    known |= {tool: version(tool) for tool in tools}
    VERSIONS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def cut_weights(folder: Path) -> None:
    """Cut weights off, and remove what is pickled or not read."""
    for path in folder.rglob("*.safetensors"):
        content = path.read_bytes()
        path.write_bytes(content[: 8 + struct.unpack("<Q", content[:8])[0]])
    for name in ("*.bin", "*.pt", "*.pth", "*.pkl", "generation_config.json", "README.md"):
        for path in folder.rglob(name):
            path.unlink()


def fresh(name: str) -> Path:
    folder = SAMPLES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def token_rows(count: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Return rows of a small Markov chain, which a model can learn."""
    import numpy as np

    draw = np.random.default_rng(seed)
    follows = np.random.default_rng(7).integers(0, VOCAB, (VOCAB, 4))
    rows = []
    for _ in range(count):
        tokens = [int(draw.integers(VOCAB))]
        while len(tokens) < CONTEXT:
            tokens.append(int(follows[tokens[-1], draw.integers(4)]))
        rows.append({"input_ids": tokens, "labels": tokens})
    return rows


def llama(width: int, layers: int, *, tied: bool) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(shape)


def hf_arguments(folder: Path, steps: int, **more: Any) -> dict[str, Any]:
    given = {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": 32, "learning_rate": 3e-3, "lr_scheduler_type": "cosine",
        "logging_steps": steps // 4, "eval_strategy": "steps", "eval_steps": steps // 2,
        "save_strategy": "steps", "save_steps": steps // 2, "report_to": [], "use_cpu": True, "seed": 1,
    }  # fmt: skip
    return given | more


def hf_trainer() -> None:
    """Two runs of the Trainer: one saved at its end, one with checkpoints only, with an event file."""
    from transformers import Trainer, TrainingArguments

    folder = fresh("hf-trainer")
    for name, width, tied, more in (
        ("w16", 16, True, {"include_num_input_tokens_seen": "all"}),
        ("w24", 24, False, {"report_to": ["tensorboard"], "save_total_limit": 1}),
    ):
        home = folder / name
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(home / "runs")
        trainer = Trainer(
            model=llama(width, 2, tied=tied), args=TrainingArguments(**hf_arguments(home, 40, **more)),
            train_dataset=token_rows(400), eval_dataset=token_rows(32, 1),
        )  # fmt: skip
        trainer.train()
        if name == "w16":
            trainer.save_model()
            trainer.save_state()
            shutil.rmtree(home / "checkpoint-20")
    cut_weights(folder)
    record_versions("transformers", "torch", "safetensors", "tensorboard")


def tensorboard() -> None:
    """Event files with the names of torchtitan's and Megatron's metrics, and with tensors for scalars."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    def write(folder: Path, rows: Iterator[tuple[int, dict[str, float]]], *, v2: bool) -> None:
        writer = EventFileWriter(str(folder))
        for step, values in rows:
            for tag, number in values.items():
                summary = scalar_pb(tag, number) if v2 else Summary(
                    value=[Summary.Value(tag=tag, simple_value=number)]
                )  # fmt: skip
                writer.add_event(Event(wall_time=1.7e9 + step, step=step, summary=summary))
        writer.close()

    folder = fresh("tensorboard")
    write(
        folder / "torchtitan",
        (
            (step, {
                "loss_metrics/global_avg_loss": curve(step) + 0.1, "n_tokens_seen": step * 256.0,
                "lr": 1e-3 * (1 - step / 80),
                **({"validation_metrics/loss": curve(step)} if step % 20 == 0 else {}),
            })
            for step in range(10, 81, 10)
        ),
        v2=False,
    )  # fmt: skip
    write(
        folder / "megatron",
        (
            (step, {
                "lm loss": curve(step) + 0.1, "batch-size": 8.0, "learning-rate": 1e-3,
                "lm loss vs samples": curve(step) + 0.1,
                **({"lm loss validation": curve(step), "lm loss validation ppl": 2.718281828 ** curve(step)}
                   if step % 20 == 0 else {}),
            })
            for step in range(10, 81, 10)
        ),
        v2=True,
    )  # fmt: skip
    record_versions("tensorboard")


MAKERS: dict[str, Callable[[], None]] = {"hf-trainer": hf_trainer, "tensorboard": tensorboard}

if __name__ == "__main__":
    SAMPLES.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or MAKERS:
        MAKERS[wanted]()
