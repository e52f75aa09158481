"""Write the configuration of torchtitan (0.3) for one run of a sweep, and start it.

``torchtitan_config.py MODULE CONFIG [--print]``: MODULE and CONFIG name a configuration of torchtitan, or of
a module of yours with the sizes of your ladder, such as ``llama3 llama3_debugmodel``; length, batch, rules,
seed, tokenizer and places come from the job. ``--print`` only writes DISTLAW_OUT/arguments.json.
"""

import json
import os
import sys
from pathlib import Path

job = json.loads(Path(os.environ["DISTLAW_JOB"]).read_text())
out, checkpoints = Path(os.environ["DISTLAW_OUT"]), os.environ["DISTLAW_CHECKPOINTS"]
rules, text, shape = job["rules"], job["corpus"], job["shape"]
ranks = int(os.environ.get("NNODES", "1")) * int(os.environ.get("PET_NPROC_PER_NODE", "1"))
module, config = sys.argv[1:3]
options = {
    "dump_folder": out,
    "hf_assets_path": text["tokenizer"],
    "training.steps": rules["steps"],
    "training.seq_len": shape["context"],
    "training.global_batch_size": round(rules["batch_size"]),
    "training.local_batch_size": max(1, round(rules["batch_size"]) // ranks),
    "training.max_norm": rules["max_grad_norm"],
    "lr_scheduler.warmup_steps": rules["warmup_steps"],
    "lr_scheduler.decay_ratio": rules["decay_fraction"] if rules["schedule"] == "wsd" else 1.0,
    "lr_scheduler.decay_type": "linear" if rules["schedule"] == "wsd" else "cosine",
    "lr_scheduler.min_lr_factor": rules["final_lr_fraction"],
    "debug.seed": job["seed"],
    "checkpoint.folder": checkpoints,
    "checkpoint.interval": max(1, rules["steps"] // 10),
    "metrics.log_freq": max(1, rules["steps"] // 100),
}
arguments = [f"--module={module}", f"--config={config}"]
arguments += [f"--{name}={value}" for name, value in options.items()] + ["--checkpoint.enable"]
(out / "arguments.json").write_text(json.dumps(arguments, indent=1))
if "--print" not in sys.argv:
    os.execvp("torchrun", ["torchrun", "-m", "torchtitan.train", *arguments])  # noqa: S606, S607
