"""What the ablation runs, and what it does when some of it fails."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from benchmarks.ablation import run as ablation
from benchmarks.ablation.full_size import FULL, cost_scale
from benchmarks.ablation.matrix import Matrix, copy_run
from benchmarks.ablation.methods import FORMATS, MATRIX, METHODS, TIMED, Method, Own, methods_named
from segquant_trt.models.zoo import ZOO, zoo_path
from segquant_trt.models.zoo_loop import denoiser_of
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.run_folder import RunFolder

OURS = [method for method in METHODS if isinstance(method.how, Own)]


def test_names_are_unique_and_timed_ones_are_in_the_matrix() -> None:
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)
    assert set(TIMED) <= set(MATRIX) <= set(names)
    assert all(method.formats for method in METHODS)


@pytest.mark.parametrize("method", OURS, ids=lambda method: method.name)
def test_options_of_our_own_methods_exist(method: Method, tmp_path: Path) -> None:
    assert isinstance(method.how, Own)
    for chosen in method.formats:
        options = {**FORMATS[chosen], **method.how.compile_options("digits-flux")}
        CompileOptions.from_keywords("zoo:digits-flux", tmp_path, **options)


@pytest.mark.parametrize("model", ZOO)
def test_prices_are_those_of_the_full_size(model: str) -> None:
    folder = zoo_path(model.removesuffix("-outliers"))
    class_name, component = denoiser_of(folder)
    small = json.loads((folder / component / "config.json").read_text())
    full = FULL[class_name]
    rows, width = (float(part) for part in cost_scale(model).split(","))
    if "block_out_channels" in full.config:
        for channels, wide in zip(
            small["block_out_channels"], full.config["block_out_channels"], strict=True
        ):
            assert wide == width * channels
        assert full.lengths["height"] ** 2 == rows * small["sample_size"] ** 2
    else:
        heads = small["num_attention_heads"] * small["attention_head_dim"]
        wide = full.config["num_attention_heads"] * full.config["attention_head_dim"]
        assert wide == width * heads
        text, image = full.lengths["text"] / 6, 1024 / 16
        assert text < rows < image


def test_a_copied_run_shares_bytes_but_not_the_lock(tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    run.mkdir()
    (run / "facts.yaml").write_text("facts")
    with RunFolder(run).locked():
        copy_run(run, copy)
        with RunFolder(copy).locked():
            assert (copy / "facts.yaml").samefile(run / "facts.yaml")


def works(*_: object) -> None:
    """A cell that is finished at once."""


def raises(*_: object) -> None:
    raise RuntimeError("the tool said no")


def dies(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_failures_are_named_and_the_rest_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ablation.Log(total=2)
    with ablation.processes(tmp_path, 1) as pool:
        ablation.each(pool, log, {"good": (works, 1), "bad": (raises, 2)})
    assert log.failed == {"bad": "RuntimeError: the tool said no"}
    assert "2/2" in capsys.readouterr().err


def test_a_killed_process_is_told(tmp_path: Path) -> None:
    log = ablation.Log(total=1)
    with ablation.processes(tmp_path, 1) as pool:
        ablation.each(pool, log, {"deadly": (dies, 1)})
    assert "terminated" in log.failed["deadly"]


def test_a_record_holds_what_is_finished(tmp_path: Path) -> None:
    matrix = Matrix(tmp_path)
    wanted = ablation.cells(
        ["digits-flux"], methods_named(["plain", "segquant"]), ["W8A8", "W4A16"], "onnxruntime"
    )
    assert [one.place.split("/", 2)[2] for one in wanted] == [
        "W8A8/plain", "W8A8/segquant", "W4A16/plain",
    ]  # fmt: skip
    path = matrix.path(wanted[1], ".json")
    path.parent.mkdir(parents=True)
    path.write_text('{"latent_sqnr_db": 40.0}')
    found = ablation.record(tmp_path, wanted, {"x": "why"})
    assert found["rows"] == [{"latent_sqnr_db": 40.0}]
    assert found["latencies"] == []
    assert found["failed"] == {"x": "why"}
