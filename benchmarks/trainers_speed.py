"""Speed of the training loops of transformers and TRL, beside a plain loop and ours.

    python benchmarks/trainers_speed.py

Needs trl, accelerate and datasets, which distlaw does not. One process, one thread, fp32 for theirs; CPU time
of a step, median over the last of a few dozen, all of a table one after the other in two rounds. Models, data
and loops are those of benchmarks/training_speed.py; TRL's GKDTrainer runs with forward KL on given text.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
import training_speed as plain
from torch import Tensor

from scaling.costs.flops import ModelShape
from sweeps.model.device import keep_freed_memory, processor
from sweeps.model.model_files import qwen3_config

STEPS, LAST, ROUNDS = 24, 16, 2
Loop = Callable[[], list[float]]
"""Runs some steps; the CPU seconds of each of the last."""


def by_hand(build: Callable[[], plain.Step]) -> Loop:
    step = build()

    def loop() -> list[float]:
        taken = []
        for _ in range(STEPS):
            began = time.process_time()
            step()
            taken.append(time.process_time() - began)
        return taken[-LAST:]

    return loop


def by_trainer(of: ModelShape, blocks: Tensor, teacher: ModelShape | None = None) -> Loop:
    """transformers' Trainer, or with a teacher TRL's GKDTrainer."""
    import transformers
    from datasets import Dataset

    transformers.logging.set_verbosity_error()

    def load(what: ModelShape) -> torch.nn.Module:
        config = transformers.Qwen3Config(**qwen3_config(what))
        return transformers.Qwen3ForCausalLM(config)

    class Clock(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.taken: list[float] = []

        def on_step_begin(self, *_: object, **__: object) -> None:
            self.began = time.process_time()

        def on_step_end(self, *_: object, **__: object) -> None:
            self.taken.append(time.process_time() - self.began)

    def loop() -> list[float]:
        rows = blocks[:, :-1].repeat(STEPS, 1)
        data = Dataset.from_dict({"input_ids": rows.tolist(), "labels": rows.tolist()})
        with tempfile.TemporaryDirectory() as folder:
            rules = {
                "output_dir": folder, "max_steps": STEPS, "per_device_train_batch_size": len(blocks),
                "use_cpu": True, "report_to": [], "save_strategy": "no", "logging_strategy": "no",
                "disable_tqdm": True, "learning_rate": 1e-3, "dataloader_pin_memory": False,
            }  # fmt: skip
            clock = Clock()
            if teacher is None:
                arguments = transformers.TrainingArguments(**rules)
                trainer = transformers.Trainer(load(of), arguments, train_dataset=data, callbacks=[clock])
            else:
                trainer = distiller(load(of), load(teacher), rules, data, clock)
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        return clock.taken[-LAST:]

    return loop


def distiller(
    student: object, teacher: object, rules: dict[str, object], data: object, clock: object
) -> object:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, default_data_collator
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        batch = default_data_collator(rows)
        return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}

    words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, "?"))
    return GKDTrainer(
        student, teacher, GKDConfig(**rules, lmbda=0.0, beta=0.0, bf16=False, gradient_checkpointing=False),
        data_collator=collate, train_dataset=data, callbacks=[clock],
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="?", eos_token="?"),
    )  # fmt: skip


def table(title: str, loops: dict[str, Loop], tokens: int) -> None:
    """Print rates, and what they are of the first loop's, for each round."""
    print(f"{title}; {plain.load()}")
    rounds = [
        {name: tokens / statistics.median(loop()) for name, loop in loops.items()} for _ in range(ROUNDS)
    ]
    first = next(iter(loops))
    for name in loops:
        ratios = ", ".join(f"{rates[name] / rates[first]:.2f}" for rates in rounds)
        print(f"  {name:28s} {rounds[-1][name] / 1e3:8.1f}k tok/s  x {ratios}", flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{processor()}; torch {torch.__version__}")
    quick = {"precision": "bf16", "compile": True}
    for params in (10e3, 100e3, 1e6):
        of = plain.shape(params, 512)
        blocks = plain.batch(of, 16)
        loops = {
            "transformers, plain loop": by_hand(partial(plain.theirs, of, blocks, autocast=False)),
            "transformers' Trainer": by_trainer(of, blocks),
            "distlaw bf16, compiled": by_hand(partial(plain.ours, of, blocks, **quick)),
        }
        table(f"supervised, {of.params:,} parameters", loops, blocks[:, 1:].numel())
    for of, teacher in (
        (plain.shape(100e3, 512), plain.shape(1e6, 512)),
        (plain.shape(10e3, 512), plain.shape(3e6, 512)),
    ):
        blocks = plain.batch(of, 16)
        loops = {
            "transformers, TRL's loss": by_hand(
                partial(plain.theirs, of, blocks, autocast=False, teacher=teacher)
            ),
            "TRL's GKDTrainer": by_trainer(of, blocks, teacher),
            "distlaw bf16, compiled": by_hand(partial(plain.ours, of, blocks, teacher, **quick)),
        }
        table(f"distilled, {teacher.params:,} -> {of.params:,} parameters", loops, blocks[:, 1:].numel())


if __name__ == "__main__":
    main()
