"""Train one run of a sweep in plain PyTorch: a small causal transformer, from the data or from a teacher.

Resumes from DISTLAW_CHECKPOINTS, stops on SIGTERM with a checkpoint and exit code 75, reports its progress.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

job = json.loads(Path(os.environ["DISTLAW_JOB"]).read_text())
out, checkpoint = Path(os.environ["DISTLAW_OUT"]), Path(os.environ["DISTLAW_CHECKPOINTS"], "state.pt")
shape, rules, text, teacher = job["shape"], job["rules"], job["corpus"], job["teacher"]
width, context, batch = shape["width"], shape["context"], round(rules["batch_size"])
torch.manual_seed(job["seed"])


class CausalTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(shape["vocab"], width), nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(  # two matrices of 1.5 ffn have the parameters of three of ffn
            width, shape["heads"], 3 * shape["ffn"] // 2, dropout=0.0, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(
            layer, shape["layers"], nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(blocks.shape[1])
        hidden = self.tokens(blocks) + self.places(torch.arange(blocks.shape[1]))
        return self.body(hidden, mask=mask, is_causal=True) @ self.tokens.weight.T


def blocks_of(name: str) -> torch.Tensor:
    tokens = np.fromfile(text[name], dtype=text["dtype"]).astype(np.int64)
    return torch.from_numpy(tokens[: (len(tokens) - 1) // context * context + 1])


def batch_of(tokens: torch.Tensor, start: int, count: int) -> torch.Tensor:
    places = (start + torch.arange(count)) % (len(tokens) // context) * context
    return torch.stack([tokens[place : place + context + 1] for place in places])


model, train, heldout = CausalTransformer(), blocks_of("train_file"), blocks_of("heldout_file")
if teacher:
    from transformers import AutoModelForCausalLM

    follow = AutoModelForCausalLM.from_pretrained(teacher["model"]).eval()
optimizer = torch.optim.AdamW(
    model.parameters(), rules["learning_rate"] / 2, weight_decay=rules["weight_decay"]
)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rules["learning_rate"] / 2, rules["steps"])
begin, stop = 0, []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
if checkpoint.exists():
    begin, states = torch.load(checkpoint, weights_only=True)
    for part, state in zip((model, optimizer, schedule), states, strict=True):
        part.load_state_dict(state)
for step in range(begin, rules["steps"]):
    if stop or step % 200 == 199:
        states = [part.state_dict() for part in (model, optimizer, schedule)]
        torch.save((step, states), checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)
        sys.exit(75) if stop else None
    blocks = batch_of(train, step * batch, batch)
    logits = model(blocks[:, :-1]).flatten(0, 1)
    if teacher:
        with torch.no_grad():
            wanted = follow(blocks[:, :-1]).logits[..., : shape["vocab"]].flatten(0, 1).softmax(-1)
        loss = F.cross_entropy(logits, wanted)
    else:
        loss = F.cross_entropy(logits, blocks[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), rules["max_grad_norm"])
    optimizer.step()
    schedule.step()
    if step % 50 == 49:
        with (out / "progress.jsonl").open("a") as file:
            file.write(json.dumps({"step": step + 1, "loss": loss.item()}) + "\n")
with torch.no_grad():
    every = [batch_of(heldout, start, 1) for start in range((len(heldout) - 1) // context)]
    losses = [F.cross_entropy(model(each[:, :-1])[0], each[0, 1:]).item() for each in every]
params = sum(each.numel() for each in model.body.parameters())
result = {"params": params, "loss": float(np.mean(losses)), "loss_on": "held-out tokens of the sweep"}
(out / "result.json").write_text(json.dumps(result))
