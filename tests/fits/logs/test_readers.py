"""Readers of single logs: what the tools wrote is read exactly, and damage is told or refused."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from fits.logs.rows import RowOptions
from fits.logs.run_log import RunLog
from fits.logs.single import read_run_log, read_run_result
from scaling.errors import InputError

SAMPLES = Path(__file__).parent / "samples"
DOCUMENTED = SAMPLES / "documented"


def test_a_finished_run_of_the_hugging_face_trainer() -> None:
    """N from the headers: 2 layers of width 16 and feed-forward 32, one key-value head of width 8, gains."""
    found = read_run_result(SAMPLES / "hf-trainer/w16", "hf")
    state = json.loads((SAMPLES / "hf-trainer/w16/trainer_state.json").read_text())
    evaluations = [entry for entry in state["log_history"] if "eval_loss" in entry]
    layer = 16 * (16 + 8 + 8 + 16) + 3 * 16 * 32 + 2 * 16
    assert found.params == 2 * layer + 16
    assert (found.loss, found.tokens) == (evaluations[-1]["eval_loss"], 40 * 8 * 32)
    assert (found.step, found.status, found.missing) == (40, "done", ())
    assert found.others["vocab"] == 128
    assert found.others["embedding_params"] == 128 * 16  # tied: one table


def test_a_checkpoint_whose_run_goes_on_and_counted_no_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-20"
    shutil.copytree(SAMPLES / "hf-trainer/w24/checkpoint-40", folder)
    state = json.loads((folder / "trainer_state.json").read_text())
    state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"] = False
    state |= {"global_step": 20, "log_history": [e for e in state["log_history"] if e["step"] <= 20]}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    found = read_run_result(folder, "hf")
    assert (found.step, found.status, found.tokens) == (20, "running", None)
    assert "--tokens-per-step" in found.missing[0]
    assert read_run_result(folder, "hf", options=RowOptions(tokens_per_step="8*32")).tokens == 20 * 256
    assert found.others["embedding_params"] == 2 * 128 * 24  # not tied


def test_weights_are_never_unpickled_nor_needed(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "hf-trainer/w16", tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    (tmp_path / "run/pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
    found = read_run_result(tmp_path / "run", "hf")
    assert found.params is None
    assert "pytorch_model.bin is pickled" in found.missing[0]


@pytest.mark.parametrize("cut", [4, 100])
def test_a_safetensors_file_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    shutil.copytree(SAMPLES / "hf-trainer/w16", tmp_path / "run")
    path = tmp_path / "run/model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    found = read_run_result(tmp_path / "run", "hf")
    assert found.params is None
    assert "not a whole safetensors file" in found.missing[0]


def test_event_files_agree_with_tensorboards_own_reader() -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for name in ("torchtitan", "megatron"):
        own = read_run_log(SAMPLES / "tensorboard" / name, "tensorboard")
        theirs = accumulator.EventAccumulator(str(SAMPLES / "tensorboard" / name))
        theirs.Reload()
        tags = theirs.Tags()
        read = {tag: [(e.step, e.value) for e in theirs.Scalars(tag)] for tag in tags["scalars"]}
        read |= {
            tag: [(e.step, float(e.tensor_proto.float_val[0] if e.tensor_proto.float_val else
                                 struct.unpack("<f", e.tensor_proto.tensor_content)[0]))
                  for e in theirs.Tensors(tag)]
            for tag in tags["tensors"]
        }  # fmt: skip
        assert read
        assert {
            tag: list(zip(*map(list, each.sorted()), strict=True)) for tag, each in own.series.items()
        } == read


@pytest.mark.parametrize(
    ("name", "loss", "tokens"), [("torchtitan", 3.341641, 80 * 256.0), ("megatron", 3.341641, 80 * 512.0)]
)
def test_metrics_of_torchtitan_and_megatron_in_event_files(name: str, loss: float, tokens: float) -> None:
    options = RowOptions(tokens_per_step="512" if name == "megatron" else "")
    found = read_run_result(SAMPLES / "tensorboard" / name, "tensorboard", options=options)
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert (found.tokens, found.step) == (tokens, 80)


def test_an_event_file_cut_at_any_byte_yields_a_beginning_of_the_whole(tmp_path: Path) -> None:
    source = next((SAMPLES / "tensorboard/torchtitan").iterdir())
    content = source.read_bytes()
    whole = read_run_log(source, "tensorboard").series
    path = tmp_path / source.name
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        log = read_run_log(path, "tensorboard")
        for tag, series in log.series.items():
            assert list(series.values) == list(whole[tag].values[: len(series.values)])
    path.write_bytes(content[:-5])
    assert "ends within a record" in read_run_log(path, "tensorboard").notes[0]


@pytest.mark.parametrize(
    ("name", "loss", "tokens", "options"),
    [
        ("megatron", 4.19, 102400 * 2048.0, RowOptions()),
        ("torchtitan", 5.0522, 40 * 64 * 2048.0, RowOptions()),
        ("nanochat", 1.5 * np.log(2) * 4.8, 40 * 524288.0, RowOptions(bytes_per_token=4.8)),
        ("olmo_core", 4.451, 10485760.0, RowOptions()),
    ],
)
def test_text_logs_of_tools(name: str, loss: float, tokens: float, options: RowOptions) -> None:
    found = read_run_result(DOCUMENTED / f"{name}.log", "log", options=options)
    assert found.loss == pytest.approx(loss, rel=1e-9)
    assert (found.tokens, found.step) == (tokens, 40 if name != "megatron" else 400)
    assert found.status == "done"


def test_sizes_in_text_logs_are_reduced_by_their_embeddings() -> None:
    megatron = read_run_result(DOCUMENTED / "megatron.log", "log")
    assert megatron.params == 354871296 - 50304 * 1024
    assert megatron.others["params_source"] == "number of parameters - vocab x d_model"
    nanochat = read_run_result(DOCUMENTED / "nanochat.log", "log")
    assert nanochat.params == 3145728
    assert nanochat.loss is None  # bits/byte
    assert "val_bpb is in bits/byte; to convert it, add --bytes-per-token" in nanochat.missing[-1]


def test_a_log_of_a_run_that_is_still_written(tmp_path: Path) -> None:
    lines = (DOCUMENTED / "megatron.log").read_text().splitlines(keepends=True)
    path = tmp_path / "run.log"
    path.write_text("".join(lines[:-6])[:-40])
    assert read_run_log(path, "log").status == "running"


def test_json_lines_with_nested_names_and_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"config": {"model": {"n_params_non_embedding": 12_500}, "layers": [1, 2]}},
        {"step": 10, "train": {"loss": 5.0}, "tokens": 2560},
        {"step": 20, "train": {"loss": 4.0}, "val": {"loss": 4.5}, "tokens": 5120},
        {"step": 30, "val": {"loss": "NaN"}},
        {"step": 40, "val": {"loss": 4.25}, "tokens": 10240},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 50, "val": {"lo')
    found = read_run_result(path, "jsonl")
    assert (found.loss, found.step, found.tokens, found.params) == (4.25, 40, 10240, 12_500)
    log = read_run_log(path, "jsonl")
    assert "the last line is cut off" in log.notes[0]
    assert log.settings["config.layers.1"] == 2
    best = read_run_result(path, "jsonl", options=RowOptions(points="best", mapping={"L": "train.loss"}))
    assert (best.loss, best.step) == (4.0, 20)


def test_damage_within_json_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "val_loss": 4}\n{"step": 2, "val_\n{"step": 3, "val_loss": 3}\n')
    with pytest.raises(InputError, match="line 2 is not JSON"):
        read_run_result(path, "jsonl")


def test_a_run_that_began_anew_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [(10, 9.0), (20, 8.0), (30, 7.0), (10, 6.0), (20, 5.0)]
    path.write_text("".join(json.dumps({"step": s, "val_loss": v}) + "\n" for s, v in rows))
    found = read_run_result(path, "jsonl")
    assert (found.step, found.loss) == (20, 5.0)
    assert "began anew" in read_run_log(path, "jsonl").notes[0]


def test_a_resumed_run_keeps_what_it_wrote_last(tmp_path: Path) -> None:
    log = RunLog("run", tmp_path, "test")
    for step, loss in [(10, 9.0), (20, 8.0), (30, 7.0), (20, 7.5), (30, 6.5), (40, 6.0)]:
        log.add(step, {"val_loss": loss})
    steps, values = log.series["val_loss"].sorted()
    assert (steps.tolist(), values.tolist()) == ([10, 20, 30, 40], [9.0, 7.5, 6.5, 6.0])


def test_csv_with_a_row_a_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,train_loss,val_loss,tokens\n0,10,5.0,,100\n0,20,,4.0,\n1,30,3.0,,300\n1,40,,2.5,400\n"
    )
    found = read_run_result(path, "csv")
    assert (found.loss, found.step, found.tokens) == (2.5, 40, 400)
    first = read_run_result(path, "csv", options=RowOptions(points="all"))
    assert first.loss == 2.5
    path.write_text("epoch,val_loss\n1,2\n")
    with pytest.raises(InputError, match="no column of steps"):
        read_run_result(path, "csv")


def test_a_regular_expression_reads_any_log(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("model of 12,500 parameters\n[10] heldout=4.5 seen=1,000\n[20] heldout=4.25 seen=2,000\n")
    pattern = (
        r"model of (?P<params>[\d,]+)|\[(?P<step>\d+)\] heldout=(?P<loss>[\d.]+) seen=(?P<tokens>[\d,]+)"
    )
    found = read_run_result(path, "regex", pattern)
    assert (found.params, found.tokens, found.loss, found.step) == (12500, 2000, 4.25, 20)
    with pytest.raises(InputError, match="no line matches"):
        read_run_result(path, "regex", r"(?P<loss>nothing)")
    with pytest.raises(InputError, match="names nothing"):
        read_run_result(path, "regex", r"\d+")
    with pytest.raises(InputError, match="regular expression"):
        read_run_result(path, "regex", r"(?P<loss>")


def test_a_training_loss_is_not_taken_for_a_held_out_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "loss": 5 - s / 10, "tokens": s}) + "\n" for s in (1, 2)))
    found = read_run_result(path, "jsonl")
    assert found.loss is None
    assert "--map L=loss takes all the same" in found.missing[-1]
    assert read_run_result(path, "jsonl", options=RowOptions(mapping={"L": "loss"})).loss == 4.8


def test_two_held_out_losses_have_to_be_chosen_from(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "eval_c4_loss": 3.0, "eval_wiki_loss": 2.0}) + "\n{}\n")
    found = read_run_result(path, "jsonl")
    assert found.loss is None
    assert "choose one: --map L=eval_c4_loss" in found.missing[-1]


def test_a_loss_that_became_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "val_loss": 3.0}\n{"step": 2, "val_loss": NaN}\n')
    found = read_run_result(path, "jsonl")
    assert (found.loss, found.status) == (None, "diverged")


@pytest.mark.parametrize(
    ("rates", "kept"),
    [
        ([1e-4, 1e-3, 5e-4, 1e-5], [4]),  # warm-up, decay
        ([1e-3, 1e-3, 1e-5, 1e-3, 1e-3, 1e-6], [3, 6]),  # a decay in between, as branches of wsd
        ([1e-3, 9e-4, 8e-4], []),
    ],
)
def test_points_after_a_decay_of_the_learning_rate(
    tmp_path: Path, rates: list[float], kept: list[int]
) -> None:
    from fits.logs.rows import run_rows

    log = RunLog("run", tmp_path, "test")
    for step, rate in enumerate(rates, 1):
        log.add(step, {"val_loss": 5.0 - step / 10, "lr": rate, "tokens": 100.0 * step})
    found = run_rows(log, RowOptions(points="decayed"))
    assert [row["step"] for row in found if "loss" in row] == kept
    if not kept:
        assert "never decayed" in found[0]["missing"][-1]


def test_what_cannot_be_read_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_run_result(tmp_path / "none", "hf")
    with pytest.raises(InputError, match="read as one of hf, jsonl"):
        read_run_result(tmp_path, "pickle")
    with pytest.raises(InputError, match="no event file"):
        read_run_result(tmp_path, "tensorboard")
    (tmp_path / "trainer_state.json").write_text('{"log_history": [')
    with pytest.raises(InputError, match="still being written"):
        read_run_result(tmp_path, "hf")
    (tmp_path / "a.log").write_text("hello\n")
    with pytest.raises(InputError, match="Megatron-LM"):
        read_run_result(tmp_path / "a.log", "log")
