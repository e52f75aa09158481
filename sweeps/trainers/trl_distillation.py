"""Distil one run of a sweep with TRL's DistillationTrainer: the student writes, its teacher corrects tokens.

The method's divergence must be one that TRL has: forward KL (beta 0), reverse KL (1), Jensen-Shannon (else).
TRL_ARGUMENTS, a JSON object in the spec's ``env``, gives anything of DistillationConfig. TRL trains on
prompts and their continuations, so a step may have fewer tokens than the sweep counts.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.trainer_utils import get_last_checkpoint
from trl import DistillationConfig, DistillationTrainer

job = json.loads(Path(os.environ["DISTLAW_JOB"]).read_text())
out, checkpoints = Path(os.environ["DISTLAW_OUT"]), os.environ["DISTLAW_CHECKPOINTS"]
shape, rules, text, method, teacher = job["shape"], job["rules"], job["corpus"], job["method"], job["teacher"]
BETA = {"forward-kl": 0.0, "reverse-kl": 1.0, "jensen-shannon": method["beta"]}
if method["divergence"] not in BETA:
    raise SystemExit(f"TRL has {', '.join(BETA)}, not {method['divergence']}")

tokenizer = AutoTokenizer.from_pretrained(text["tokenizer"])
tokenizer.pad_token = tokenizer.eos_token
tokens = np.memmap(text["train_file"], dtype=text["dtype"], mode="r")
prompt_tokens = shape["context"] // 4
places = np.random.default_rng(job["data_seed"]).integers(len(tokens) - prompt_tokens, size=4096)
prompts = [tokenizer.decode(tokens[place : place + prompt_tokens].tolist()) for place in places]

torch.manual_seed(job["seed"])
student = Qwen3ForCausalLM(
    Qwen3Config(
        vocab_size=shape["vocab"],
        hidden_size=shape["width"],
        intermediate_size=shape["ffn"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["head_dim"],
        max_position_embeddings=2 * shape["context"],
        tie_word_embeddings=shape["tied"],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
)
trainer = DistillationTrainer(
    model=student,
    teacher_model=AutoModelForCausalLM.from_pretrained(teacher["model"]),
    args=DistillationConfig(
        output_dir=checkpoints,
        max_steps=rules["steps"],
        warmup_steps=rules["warmup_steps"],
        per_device_train_batch_size=max(1, round(rules["batch_size"])),
        max_completion_length=shape["context"] - prompt_tokens,
        temperature=method["temperature"],
        beta=BETA[method["divergence"]],
        learning_rate=rules["learning_rate"] / 2,
        weight_decay=rules["weight_decay"],
        max_grad_norm=rules["max_grad_norm"],
        seed=job["seed"],
        save_steps=max(1, rules["steps"] // 4),
        save_total_limit=1,
        **(
            {"bf16": rules["precision"] == "bf16", "report_to": []}
            | json.loads(os.environ.get("TRL_ARGUMENTS", "{}"))
        ),
    ),
    train_dataset=Dataset.from_dict({"prompt": prompts}),
    processing_class=tokenizer,
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints))
if trainer.accelerator.is_main_process:
    trainer.save_model(str(out / "final"))
