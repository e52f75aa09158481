"""Pretrain one run of a sweep with the Hugging Face Trainer, and leave its model in ``{out}/final``.

For HF_ARGUMENTS, a JSON object, anything of TrainingArguments may be given in the spec's ``env``.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

job = json.loads(Path(os.environ["DISTLAW_JOB"]).read_text())
out, checkpoints = Path(os.environ["DISTLAW_OUT"]), os.environ["DISTLAW_CHECKPOINTS"]
shape, rules, text = job["shape"], job["rules"], job["corpus"]


class Blocks(Dataset):
    """Blocks of one context each."""

    def __init__(self, path: str) -> None:
        self.tokens = np.memmap(path, dtype=text["dtype"], mode="r")

    def __len__(self) -> int:
        return len(self.tokens) // shape["context"]

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        begin = number * shape["context"]
        block = torch.from_numpy(self.tokens[begin : begin + shape["context"]].astype(np.int64))
        return {"input_ids": block, "labels": block}


config = Qwen3Config(
    vocab_size=shape["vocab"],
    hidden_size=shape["width"],
    intermediate_size=shape["ffn"],
    num_hidden_layers=shape["layers"],
    num_attention_heads=shape["heads"],
    num_key_value_heads=shape["kv_heads"],
    head_dim=shape["head_dim"],
    max_position_embeddings=shape["context"],
    tie_word_embeddings=shape["tied"],
    use_cache=False,
)
torch.manual_seed(job["seed"])
trainer = Trainer(
    model=Qwen3ForCausalLM(config),
    args=TrainingArguments(
        output_dir=checkpoints,
        max_steps=rules["steps"],
        warmup_steps=rules["warmup_steps"],
        per_device_train_batch_size=max(
            1, round(rules["batch_size"] / int(os.environ.get("WORLD_SIZE", "1")))
        ),
        learning_rate=rules["learning_rate"] / 2,
        lr_scheduler_type="cosine",
        weight_decay=rules["weight_decay"],
        max_grad_norm=rules["max_grad_norm"],
        bf16=rules["precision"] == "bf16",
        seed=job["seed"],
        data_seed=job["data_seed"],
        save_steps=max(1, rules["steps"] // 4),
        save_total_limit=1,
        logging_steps=max(1, rules["steps"] // 50),
        report_to=[],
        **json.loads(os.environ.get("HF_ARGUMENTS", "{}")),
    ),
    train_dataset=Blocks(text["train_file"]),
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints))
if trainer.is_world_process_zero():
    trainer.save_model(str(out / "final"))
    AutoTokenizer.from_pretrained(text["tokenizer"]).save_pretrained(out / "final")
    trainer.state.save_to_json(str(out / "trainer_state.json"))
