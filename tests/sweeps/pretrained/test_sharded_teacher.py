"""A pretrained teacher sharded over two processes: the logits of one, and a part of the weights in each."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import VOCAB, made
from safetensors.torch import load_file, save_file
from torch.multiprocessing import spawn
from torch.profiler import ProfilerActivity, profile

from scaling.errors import InputError
from sweeps.data.corpus import planned_tokens
from sweeps.distill.metrics import measure_divergences
from sweeps.distill.models import Models
from sweeps.distill.teacher import followed, stream_of
from sweeps.execute.steps.step import run_steps
from sweeps.model.distributed import World, world
from sweeps.model.language_model import logits_of
from sweeps.model.layout import Layout
from sweeps.pretrained.load import Foreign, load_pretrained
from sweeps.pretrained.sharded import load_sharded
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

TOKENS = torch.arange(80).view(2, 40) * 3 % VOCAB


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def join(rank: int, ports: list[int], folders: list[str], out: str, spec: dict[str, Any]) -> None:
    """Load every model as one of two processes; write its logits and the share of it that is held here."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(ports[0])
    torch.set_num_threads(1)
    ((_, measured),) = run_steps(Store(f"{out}/store"), [dag_of(parse_sweep(spec)).steps[0]])
    os.environ["MASTER_PORT"] = str(ports[1])
    with world() as here:
        for number, folder in enumerate(folders):
            where = f"{out}/{number}-{rank}"
            try:
                if number == len(folders) - 1:
                    Path(f"{where}.json").write_text(json.dumps({"peak": loading_peak(folder, here)}))
                    continue
                model = load_sharded(Path(folder), VOCAB, "teacher", "fp32", here)
            except InputError as error:
                Path(f"{where}.json").write_text(json.dumps({"error": str(error)}))
                continue
            assert isinstance(model, Foreign)
            with torch.no_grad():
                logits = logits_of(model, model.model(TOKENS))
                again = logits_of(model, model.model(TOKENS))
            weights: list[Any] = list(model.model.parameters())
            held = sum(each.to_local().numel() for each in weights) / sum(each.numel() for each in weights)
            about = {"held": held, "frozen": not any(each.requires_grad for each in weights)}
            save_file({"logits": logits, "again": again}, f"{where}.safetensors")
            Path(f"{where}.json").write_text(json.dumps(about))
        found = sharded_losses(spec, here, f"{out}/store") | {"heldout": measured.get("loss")}  # type: ignore[union-attr]
        Path(f"{out}/sweep-{rank}.json").write_text(json.dumps(found))


def loading_peak(folder: str, here: World) -> int:
    """Return the most bytes of tensors while a model is loaded, but for the file, which the kernel maps."""
    mapped = Path(folder, "model.safetensors").stat().st_size
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        load_sharded(Path(folder), VOCAB, "teacher", "fp32", here)
    assert found.profiler and found.profiler.kineto_results
    events = found.profiler.kineto_results.events()
    sizes = sorted((each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]")
    return int(np.cumsum([size for _, size in sizes if abs(size) != mapped]).max())


def sharded_losses(spec: dict[str, Any], here: World, folder: str) -> dict[str, Any]:
    """Return the held-out loss of the teacher, the first losses of its student, and metrics of both."""
    evaluate, student = dag_of(parse_sweep(spec)).steps
    store = Store(folder)
    result = dict(run_steps(store, [evaluate]))[evaluate] if here.size == 1 else None
    corpus = planned_tokens(student.corpus, student.corpus_fingerprint)
    models = Models(store, student, world=here if here.size > 1 else None)
    target, data = followed(student, models), stream_of(student, corpus)
    recipe = RunRecipe(
        shape=student.shape,
        steps=student.steps,
        training=student.training,
        seed=0,
        method=student.method,
        stop=3,
    )
    run = Run(recipe=recipe, world=here, layout=Layout(sharded=True), models=models)
    losses = []
    while run.active:
        numbers = here.share(data.numbers(run.done))
        blocks = data.read(numbers)
        run.step(blocks, target, target.rows(blocks[:, :-1], numbers), numbers)
        losses.append(run.loss)
    heldout = corpus.heldout[: 8 * student.shape.context + 1]
    found = measure_divergences(run.model, models.teacher, heldout, student.shape.context)
    return {"heldout": result and result["loss"], "losses": losses, "metrics": found}


@pytest.mark.slow
def test_two_processes_give_the_logits_of_one_and_hold_half_of_the_weights(
    save: Callable[..., Path], spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    """And the loss of the teacher, and those of its student."""
    folders = [
        save(made("Llama", tie_word_embeddings=False), "llama"),
        save(made("Gemma2", head_dim=8, final_logit_softcapping=2.0), "gemma"),
        save(made("Phi"), "phi"),
        save(made("Granite", logits_scaling=8.0), "granite"),
    ]
    broken = shutil.copytree(folders[0], tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    large = save(made("Llama", hidden_size=256, num_hidden_layers=24, tie_word_embeddings=True), "large")
    spec["teachers"], spec["training"] = spec["teachers"][:1], spec["training"] | {"shard": True}
    dag_of(parse_sweep(spec))  # reads the text once
    store = Store(tmp_path / "store")
    store.create()
    spawn(
        join,
        ([free_port(), free_port()], [*map(str, folders), str(broken), str(large)], str(tmp_path), spec),
        nprocs=2,
    )
    one_process = sharded_losses(spec, World(), str(tmp_path / "one"))
    found = [json.loads((tmp_path / f"sweep-{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0]["heldout"] == pytest.approx(one_process["heldout"], rel=1e-6)
    for each in found:
        assert each["losses"] == pytest.approx(one_process["losses"], rel=1e-5)
        assert each["metrics"] == pytest.approx(one_process["metrics"], rel=1e-5)
    for number, folder in enumerate(folders):
        one = load_pretrained(folder, VOCAB)
        with torch.no_grad():
            expected = logits_of(one, one.model(TOKENS))
        for rank in (0, 1):
            found = load_file(tmp_path / f"{number}-{rank}.safetensors")
            torch.testing.assert_close(found["logits"], expected, rtol=1e-6, atol=1e-6)
            assert torch.equal(found["logits"], found["again"])
            about = json.loads((tmp_path / f"{number}-{rank}.json").read_text())
            assert about["held"] == pytest.approx(0.5, abs=0.02)
            assert about["frozen"]
    for rank in (0, 1):
        error = json.loads((tmp_path / f"{len(folders)}-{rank}.json").read_text())["error"]
        assert "do not fit its config.json: model.layers.0.mlp.up_proj.weight is missing" in error
        peak = json.loads((tmp_path / f"{len(folders) + 1}-{rank}.json").read_text())["peak"]
        sizes = {name: 4 * each.numel() for name, each in load_file(large / "model.safetensors").items()}
        block = sum(size for name, size in sizes.items() if ".layers.0." in name)
        computing = 4 * block + 4 * max(sizes.values())
        assert peak < 0.5 * sum(sizes.values()) + computing < 0.75 * sum(sizes.values())
