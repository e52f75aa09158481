"""Collection of whole directories: each tool's sample, several tools in one run's folder, and bad input."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import fits
from fits.logs.collect import NOTES
from scaling.errors import InputError

SAMPLES = Path(__file__).parent / "samples"
LOSS = 3.341641
"""Made-up loss at step 80 of the generator's ``curve``."""


def restore(name: str, folder: Path) -> Path:
    """Make a database from the SQL of its sample."""
    path = folder / f"{Path(name).stem}.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((SAMPLES / name).read_text())
        database.commit()
    return path


def write_run(folder: Path, losses: dict[int, float], **config: object) -> Path:
    """Write a run as many scripts do: metrics.jsonl and config.json."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    lines = [json.dumps({"step": s, "val_loss": v, "tokens": 256 * s}) for s, v in losses.items()]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_runs_of_the_hugging_face_trainer_and_of_trl() -> None:
    """A run with a checkpoint and one with checkpoints and events are a row each."""
    table = fits.collect(SAMPLES / "hf-trainer", tokens_per_step=256)
    assert table["run"].tolist() == ["w16", "w24"]
    assert table["params"].tolist() == [4688, 10488]
    assert table["tokens"].tolist() == [10240, 10240]
    assert (table["status"] == "done").all()
    assert (table["missing"] == "").all()
    both = fits.read_runs(table)
    assert both["excluded"].tolist() == ["", ""]
    trl = fits.collect(SAMPLES / "trl").iloc[0]
    state = json.loads((SAMPLES / "trl/sft/trainer_state.json").read_text())
    assert trl["loss"] == [e["eval_loss"] for e in state["log_history"] if "eval_loss" in e][-1]
    assert (trl["tokens"], trl["tokens_source"]) == (16 * 8 * 32, "num_tokens")


def test_offline_runs_of_wandb_of_one_name_stay_two() -> None:
    table = fits.collect(SAMPLES / "wandb")
    assert table["run"].tolist() == ["student-16 (run0)", "student-16 (run1)"]
    assert table["loss"].tolist() == pytest.approx([LOSS, LOSS + 0.01])
    assert table[["params", "tokens", "seed", "context"]].to_numpy().tolist() == [
        [4688, 20480, 0, 32],
        [4688, 20480, 1, 32],
    ]
    assert "2 runs are called 'student-16'" in table.attrs[NOTES][0]


def test_a_cut_wandb_record_file_yields_what_comes_before(tmp_path: Path) -> None:
    source = next((SAMPLES / "wandb").rglob("*run0.wandb"))
    content = source.read_bytes()
    path = tmp_path / "run.wandb"
    seen = set()
    for cut in range(8, len(content), 97):
        path.write_bytes(content[:cut])
        try:
            row = fits.collect(path).iloc[0]
        except InputError as error:
            assert "without a run" in str(error)
            continue
        seen.add(row["status"])
        assert row["loss"] is None or np.isnan(row["loss"]) or row["loss"] >= LOSS - 1e-9
    assert seen == {"running", "done"} or seen == {"running"}


@pytest.mark.parametrize("kind", ["directory", "database", "exported"])
def test_mlflow_in_three_forms_is_the_same_run(kind: str, tmp_path: Path) -> None:
    path = {"directory": SAMPLES / "mlflow/mlruns", "exported": SAMPLES / "mlflow/exported.csv"}.get(kind)
    table = fits.collect(path or restore("mlflow/mlflow.sql", tmp_path))
    assert len(table) == 1
    row = table.iloc[0]
    assert row["run"].rpartition("/")[2] == "student-16"
    assert [float(row[name]) for name in ("params", "tokens", "seed", "context")] == [4688, 20480, 3, 32]
    assert row["loss"] == pytest.approx(LOSS)
    assert (row["status"], row["missing"]) == ("done", "")


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_optuna_needs_to_be_told_what_its_value_is(kind: str, tmp_path: Path) -> None:
    path = SAMPLES / "optuna/study.log" if kind == "journal" else restore("optuna/study.sql", tmp_path)
    assert fits.collect(path)["loss"].isna().all()
    table = fits.collect(path, {"L": "value"}, keep=["learning_rate"])
    assert table["status"].tolist() == ["done", "done", "stopped", "failed"]
    assert table["run"].tolist() == [f"val_loss/{i}" for i in range(4)]
    assert table["params"].tolist() == [4688] * 4
    expected = LOSS + table["learning_rate"].astype(float).to_numpy()[:2]
    assert table["loss"].tolist()[:2] == pytest.approx(expected.tolist())


def test_exported_wandb_tables_and_panels(tmp_path: Path) -> None:
    """Formats of exports from the pages of W&B, typed as the pages write them."""
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "loss.csv").write_text(
        '"Step","a - _step","a - val/loss","a - val/loss__MIN","a - val/loss__MAX","b - val/loss"\n'
        '"10","10","4.0","4.0","4.0",""\n"20","20","3.5","3.5","3.5","3.0"\n'
    )
    (folder / "tokens.csv").write_text(
        '"Step","a - tokens","b - tokens"\n"10","100","200"\n"20","200","400"\n'
    )
    table = fits.collect(folder)
    assert table[["run", "loss", "tokens", "step"]].to_numpy().tolist() == [
        ["a", 3.5, 200, 20],
        ["b", 3.0, 400, 20],
    ]
    exported = tmp_path / "runs.csv"
    exported.write_text(
        '"Name","State","ID","model.n_params_non_embedding","tokens","val/loss"\n'
        '"x","finished","i1","12500","1000","3.25"\n"x","crashed","i2","12500","500",""\n'
    )
    table = fits.collect(exported)
    assert table["run"].tolist() == ["x (i1)", "x (i2)"]
    assert table["status"].tolist() == ["done", "failed"]
    assert table["loss"].iloc[0] == 3.25
    assert fits.collect(exported, where="status==done")["run"].tolist() == ["x (i1)"]
    assert fits.collect(exported, where=["ID==i2", "D<=500"])["run"].tolist() == ["x (i2)"]
    with pytest.raises(InputError, match="no run of 2 fulfils status==finished; status is done"):
        fits.collect(exported, where="status==finished")


def test_benchmarks_of_lm_eval_become_columns_of_the_run_that_was_evaluated(tmp_path: Path) -> None:
    write_run(tmp_path / "lm-eval/model", {10: 3.0}, n_params_non_embedding=10_000)
    shutil.copytree(SAMPLES / "lm-eval", tmp_path / "results")
    result = next((tmp_path / "results").rglob("results_*.json"))
    table = fits.collect(tmp_path)
    assert table["lm_eval.counting.acc"].tolist() == [
        json.loads(result.read_text())["results"]["counting"]["acc,none"]
    ]
    shutil.move(tmp_path / "lm-eval/model", tmp_path / "other")
    table = fits.collect(tmp_path)
    assert not [name for name in table if name.startswith("lm_eval")]
    assert "none of these runs" in table.attrs[NOTES][0]


def test_names_of_runs_fill_columns_and_find_teachers(tmp_path: Path) -> None:
    write_run(tmp_path / "teachers/large", {10: 2.0}, n_params_non_embedding=100_000)
    for seed in (1, 2):
        write_run(tmp_path / f"students/large/s{seed}", {10: 3.0 + seed / 100}, n_params_non_embedding=10_000)
    table = fits.collect(tmp_path, names="students/{teacher}/s{seed}")
    runs = fits.read_runs(table)
    students = runs[runs["kind"] == "distillation"]
    assert students["teacher"].tolist() == ["teachers/large"] * 2
    assert students["teacher_loss"].tolist() == [2.0, 2.0]
    assert "teacher 'large' is run 'teachers/large'" in table.attrs[NOTES]
    with pytest.raises(InputError, match="fits no run; they are called 'students/large/s1'"):
        fits.collect(tmp_path, names="pupils/{teacher}")


def test_names_in_nested_settings_are_mapped(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {10: 3.0}, model={"size": {"n": "1,000"}}, batch=64)
    table = fits.collect(tmp_path, {"N": "model.size.n", "D": "step*512"})
    assert table[["params", "tokens"]].to_numpy().tolist() == [[1000, 5120]]
    by_batch = fits.collect(tmp_path, {"N": "size.n*2"}, tokens_per_step="batch*32")
    assert by_batch["params"].tolist() == [2000]
    assert by_batch["tokens"].tolist() == [10 * 64 * 32]
    assert by_batch["tokens_source"].tolist() == ["step x batch (64) x 32"]
    with pytest.raises(InputError, match="no run has 'absent' for params"):
        fits.collect(tmp_path, {"N": "absent"})
    with pytest.raises(InputError, match="cannot map to 'Q'"):
        fits.collect(tmp_path, {"Q": "absent"})


def test_files_are_recognized_by_their_content(tmp_path: Path) -> None:
    for number, source in enumerate(
        ["hf-trainer/w16/trainer_state.json", "documented/megatron.log", "mlflow/exported.csv"]
    ):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        shutil.copy(SAMPLES / source, folder / "data.txt")
    event = next((SAMPLES / "tensorboard/torchtitan").iterdir())
    (tmp_path / "run3").mkdir()
    shutil.copy(event, tmp_path / "run3/blob")
    formats = fits.collect(tmp_path)["format"].tolist()
    assert sorted(formats) == sorted(
        ["Hugging Face trainer_state.json", "Megatron-LM log", "MLflow runs table", "TensorBoard event file"]
    )


def test_what_nobody_knows_is_answered_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("some words\n")
    (tmp_path / "b.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(
        InputError, match=r"no log of a run among 2 files .*1 \.xyz.*looked for trainer_state"
    ) as error:
        fits.collect(tmp_path)
    assert "row a run is read by distlaw fit" in str(error.value)
    with pytest.raises(InputError, match="no such file or directory"):
        fits.collect(tmp_path / "none")


def test_mixed_units_are_refused_or_converted(tmp_path: Path) -> None:
    write_run(tmp_path / "nats", {10: 3.0}, n_params_non_embedding=10_000)
    bits = write_run(tmp_path / "bits", {10: 1.0}, n_params_non_embedding=10_000)
    (bits / "metrics.jsonl").write_text('{"step": 10, "val_bpb": 1.0, "tokens": 2560}\n{"step": 11}\n')
    with pytest.raises(InputError, match=r"1 runs in bits/byte, such as 'bits' \(val_bpb\), beside 1 that"):
        fits.collect(tmp_path)
    with pytest.raises(InputError, match="val_loss does not say that it is in bits/byte"):
        fits.collect(tmp_path, bytes_per_token=4.0)
    assert fits.collect(bits, bytes_per_token=4.0)["loss"].iloc[0] == pytest.approx(4 * np.log(2))
    named = fits.collect(tmp_path / "nats", {"L": "val_loss"}, loss_unit="perplexity")
    assert named["loss"].iloc[0] == pytest.approx(np.log(3.0))


def test_units_in_names_count(tmp_path: Path) -> None:
    write_run(tmp_path / "plain", {10: 3.0}, n_params_non_embedding=10_000_000)
    other = write_run(tmp_path / "millions", {10: 3.0}, non_embedding_params_M=10, compute_EFLOP=2)
    (other / "metrics.jsonl").write_text('{"step": 10, "val_loss": 3.0, "tokens (thousands)": 2560}\n')
    table = fits.collect(tmp_path).set_index("run")
    assert table.loc["millions", ["params", "tokens"]].tolist() == [1e7, 2.56e6]
    assert table.loc["plain", ["params", "tokens"]].tolist() == [1e7, 2560]
    mapping = {"D": "tokens (thousands)", "N": "non_embedding_params_M", "C": "compute_EFLOP"}
    mapped = fits.collect(other, mapping).iloc[0]
    assert mapped[["params", "tokens", "compute"]].tolist() == [1e7, 2.56e6, 2e18]
    stated = fits.collect(other, {"D": "tokens (thousands)*1"}).iloc[0]
    assert stated["tokens"] == 2560


def test_settings_in_one_line_belong_to_the_run_beside_them(tmp_path: Path) -> None:
    for ending in ("", "\n"):
        run = write_run(tmp_path / f"ending{len(ending)}", {10: 3.0}, n_params_non_embedding=10_000, steps=10)
        with (run / "config.json").open("a") as file:
            file.write(ending)
    table = fits.collect(tmp_path)
    assert table["run"].tolist() == ["ending0", "ending1"]
    assert table["params"].tolist() == [10_000, 10_000]
    record = tmp_path / "ending0/metrics.jsonl"
    record = record.rename(record.with_suffix(".json"))
    assert fits.collect(tmp_path / "ending0")["loss"].tolist() == [3.0]


def test_unfinished_diverged_and_unreadable_runs_are_rows_that_a_fit_leaves_out(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "hf-trainer/w16", tmp_path / "whole")
    shutil.copytree(SAMPLES / "hf-trainer/w16", tmp_path / "running")
    shutil.rmtree(tmp_path / "running/checkpoint-40")
    state = json.loads((tmp_path / "running/trainer_state.json").read_text())
    state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"] = False
    state |= {"global_step": 20, "log_history": [e for e in state["log_history"] if e["step"] <= 20]}
    (tmp_path / "running/trainer_state.json").write_text(json.dumps(state))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoint-40")
    (tmp_path / "cut/trainer_state.json").write_text('{"log_history": [{"step": 1')
    write_run(tmp_path / "diverged", {10: 3.0, 20: float("nan")}, n_params_non_embedding=10_000)
    table = fits.collect(tmp_path)
    assert dict(zip(table["run"], table["status"], strict=True)) == {
        "whole": "done", "running": "running", "diverged": "diverged",
    }  # fmt: skip
    best = fits.collect(tmp_path / "diverged", points="best").iloc[0]
    assert (best["loss"], best["status"]) == (3.0, "diverged")
    assert any(
        "cut/trainer_state.json" in note and "still being written" in note for note in table.attrs[NOTES]
    )
    used = fits.read_runs(table)
    assert used.loc[used["excluded"] == "", "run"].tolist() == ["whole"]


def test_checkpoints_on_request_are_rows_of_one_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {10: 3.0, 20: 2.0, 30: 2.5}, n_params_non_embedding=10_000)
    assert fits.collect(tmp_path, points="all")["loss"].tolist() == [3.0, 2.0, 2.5]
    assert fits.collect(tmp_path, points="best")[["loss", "step"]].to_numpy().tolist() == [[2.0, 20]]
    with pytest.raises(InputError, match="last, best, decayed, all, not 'first'"):
        fits.collect(tmp_path, points="first")


def test_a_log_of_many_lines_is_read_at_a_million_a_minute(tmp_path: Path) -> None:
    """A log of 50,000 lines is read at a rate that reads a million in under a minute."""
    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        for step in range(50_000):
            held_out = f', "val_loss": {3 + 1 / (1 + step)}' if step % 1000 == 999 else ""
            file.write(f'{{"step": {step}, "loss": 3.0, "tokens": {256 * step}, "lr": 0.001{held_out}}}\n')
    start = time.process_time()
    table = fits.collect(tmp_path)
    assert time.process_time() - start < 3.0
    assert table[["step", "tokens"]].to_numpy().tolist() == [[49_999, 256 * 49_999]]


def test_a_hundred_run_directories_take_seconds(tmp_path: Path) -> None:
    for number in range(100):
        shutil.copytree(SAMPLES / "hf-trainer/w16", tmp_path / f"run{number:03}")
    start = time.process_time()
    table = fits.collect(tmp_path)
    assert len(table) == 100
    assert time.process_time() - start < 2.0  # 1,000 in 20 s


def test_trials_of_ray_tune() -> None:
    """Function trainables leave no record of their end; the state of the experiment has it."""
    table = fits.collect(SAMPLES / "ray-tune", keep=["config.lr"])
    assert table["loss"].tolist() == pytest.approx((LOSS + table["config.lr"]).tolist())
    assert table["config.lr"].tolist() == [0.01, 0.02]
    assert table["status"].tolist() == ["done", "done"]
    assert table[["params", "tokens"]].to_numpy().tolist() == [[4688, 20480]] * 2


def test_a_trial_whose_parameters_are_pickled_too(tmp_path: Path) -> None:
    folder = tmp_path / "grid/train_a"
    folder.mkdir(parents=True)
    record = {
        "trial_id": "a",
        "config": {"lr": 0.01, "model": {"n_params_non_embedding": 5000}},
        "tokens": 100,
    }
    lines = [record | {"training_iteration": i, "val_loss": 4.0 - i, "done": i == 2} for i in (1, 2)]
    (folder / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "params.pkl").write_bytes(b"never opened")
    row = fits.collect(tmp_path, keep=["config.lr"]).iloc[0]
    assert (row["loss"], row["params"], row["tokens"], row["status"]) == (2.0, 5000, 100, "done")
    assert row["config.lr"] == 0.01


def test_a_collected_table_written_as_csv_is_read_again(tmp_path: Path) -> None:
    table = fits.collect(SAMPLES / "hf-trainer", tokens_per_step=256)
    table.to_csv(tmp_path / "runs.csv", index=False)
    again = fits.read_runs(tmp_path / "runs.csv")
    pd.testing.assert_series_equal(again["loss"], table["loss"], check_exact=True)
    assert again["excluded"].tolist() == ["", ""]


def test_checkpoint_metadata_of_nanochat(tmp_path: Path) -> None:
    """Written after nanochat's checkpoint manager: one meta file a checkpoint, beside pickled weights."""
    folder = tmp_path / "base_checkpoints/d4"
    folder.mkdir(parents=True)
    for step, bpb in ((20, 1.9), (40, 1.5)):
        meta = {
            "step": step, "val_bpb": bpb, "total_batch_size": 1024,
            "model_config": {"sequence_len": 512, "vocab_size": 1000, "n_layer": 4, "n_embd": 256},
            "user_config": {"depth": 4},
        }  # fmt: skip
        (folder / f"meta_{step:06}.json").write_text(json.dumps(meta))
        (folder / f"model_{step:06}.pt").write_bytes(b"pickled")
    table = fits.collect(tmp_path, bytes_per_token=4.5, points="all")
    assert table["run"].tolist() == ["base_checkpoints/d4"] * 2
    assert table["loss"].tolist() == pytest.approx([1.9 * 4.5 * np.log(2), 1.5 * 4.5 * np.log(2)])
    assert table[["tokens", "vocab", "context", "n_layers"]].to_numpy().tolist()[1] == [40960, 1000, 512, 4]
    assert "params: no model files" in table["missing"].iloc[0]


def test_the_api_of_wandb_is_asked_for_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the API, with the attributes that wandb documents."""
    history = [{"_step": s, "val/loss": 4.0 - s / 100, "tokens": 10 * s, "_runtime": 1} for s in (50, 100)]
    run = SimpleNamespace(
        name="student", id="i1", state="finished", config={"model": {"n_params_non_embedding": 5000}, "seed": 2},
        scan_history=lambda: iter(history),
    )  # fmt: skip
    api = SimpleNamespace(runs=lambda project: [run] if project == "me/grid" else [][1])
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Api=lambda: api))
    row = fits.collect("wandb:me/grid").iloc[0]
    assert [row[name] for name in ("run", "loss", "tokens", "params", "seed", "status")] == [
        "student", 3.0, 1000, 5000, 2, "done",
    ]  # fmt: skip
    with pytest.raises(InputError, match="wandb:me/none: W&B's API refuses"):
        fits.collect("wandb:me/none")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"needs wandb: pip install 'distlaw\[trackers\]'"):
        fits.collect("wandb:me/grid")


def test_several_logs_in_one_folder_are_runs_and_several_models_are_not_guessed_from(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(
            '{"step": 1, "val_loss": 3.0}\n{"step": 2, "val_loss": 2.5}\n'
        )
    assert fits.collect(tmp_path)["run"].tolist() == ["a", "b"]
    run = tmp_path / "run"
    shutil.copytree(SAMPLES / "hf-trainer/w16", run / "student")
    shutil.copytree(SAMPLES / "hf-trainer/w24/checkpoint-40", run / "teacher")
    for path in run.rglob("trainer_state.json"):
        path.unlink()
    shutil.rmtree(run / "student/checkpoint-40")
    shutil.copy(tmp_path / "a.jsonl", run / "metrics.jsonl")
    row = fits.collect(run).iloc[0]
    assert pd.isna(row["params"])
    assert "several models lie in its folder" in row["missing"]


def test_runs_whose_folders_end_with_a_step_stay_apart(tmp_path: Path) -> None:
    for steps in (100, 200):
        shutil.copytree(SAMPLES / "hf-trainer/w16", tmp_path / f"w16-step{steps}")
    assert fits.collect(tmp_path)["run"].tolist() == ["w16-step100", "w16-step200"]


def test_yaml_settings_are_read_as_they_are_written(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {10: 3.0}, n_params_non_embedding=5000)
    (tmp_path / "a/hparams.yaml").write_text("seed: 010\nratio: 20:1\nlr: 1e-3\n")
    laughs = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopqrs", "bcdefghijklmnopqrst", strict=True)
    )
    (tmp_path / "a/bomb.yaml").write_text(laughs)
    row = fits.collect(tmp_path, keep=["hparams.seed", "ratio", "lr"]).iloc[0]
    assert (row["hparams.seed"], row["ratio"], row["lr"]) == (10, "20:1", 0.001)


def test_damaged_files_never_end_in_a_traceback(tmp_path: Path) -> None:
    """Each sample with bytes cut out, put in or changed: a table, or a sentence."""
    draw = np.random.default_rng(0)
    files = [path for path in SAMPLES.rglob("*") if path.is_file() and path.stat().st_size]
    for number in range(150):
        source = files[number % len(files)]
        content = bytearray(source.read_bytes())
        place = int(draw.integers(len(content)))
        kind = number // len(files) % 3
        if kind == 0:
            del content[place:]
        elif kind == 1:
            del content[place : place + int(draw.integers(1, 40))]
        else:
            content[place : place + 4] = draw.integers(0, 256, 4, dtype=np.uint8).tobytes()
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / source.name).write_bytes(content)
        try:
            fits.collect(folder, bytes_per_token=4.0)
        except InputError:
            continue


def test_metrics_of_olmo_core_and_results_in_one_object(tmp_path: Path) -> None:
    """Typed after OLMo-core's metric saver, one object a step, and after the Trainer's eval_results.json."""
    run = tmp_path / "olmo"
    run.mkdir()
    for step in (20, 40):
        metrics = {"eval/lm/c4-validation/CE loss": 5.0 - step / 40, "throughput/total tokens": 512 * step}
        (run / f"metrics_step{step}.json").write_text(json.dumps(metrics | {"train/CE loss": 3.0}))
    for name, loss in (("a", 3.5), ("b", 3.25)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "eval_results.json").write_text(
            json.dumps({"eval_loss": loss, "n_params_non_embedding": 5000})
        )
    table = fits.collect(tmp_path, tokens_per_step="").set_index("run")
    assert table["loss"].to_dict() == {"olmo": 4.0, "a": 3.5, "b": 3.25}
    assert table.loc["olmo", ["tokens", "step"]].tolist() == [20480, 40]
    assert table.loc["b", "params"] == 5000


def test_a_finished_grid_of_the_trainer_becomes_a_table_with_teachers() -> None:
    """The grid of the README: nothing of the table is written by hand."""
    table = fits.collect(SAMPLES / "hf-grid", names="students/{teacher}/*")
    runs = fits.read_runs(table)
    assert (table["missing"] == "").all()
    assert (runs["excluded"] == "").all()
    students = runs[runs["kind"] == "distillation"]
    assert len(runs) == 22
    assert len(students) == 12
    losses = runs.set_index("run")["loss"]
    assert students["teacher_loss"].tolist() == losses[students["teacher"]].tolist()
    assert sorted(students["teacher"].unique()) == [
        f"supervised/{t}" for t in ("w16-s80", "w24-s200", "w56-s150")
    ]
