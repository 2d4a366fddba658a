"""Bad input gets one clear error that says what, where and what to do; nothing is half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.models.identity import note_content
from segquant_trt.pipeline import STAGES, compile, run_stage
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Work
from tests.pipeline.refusals import refusal
from tests.shared import LazyFolders

Array = npt.NDArray[np.generic]


def stage(name: str, run: Path) -> Callable[[], object]:
    return lambda: run_stage(name, CompileOptions(out=run))


# Models


@pytest.mark.parametrize("model", ["no/such/folder/at/all", "./nowhere", "zoo:letters"])
def test_a_model_that_does_not_exist(model: str, tmp_path: Path) -> None:
    error = refusal(lambda: compile(model, out=tmp_path / "run"))
    assert model.removeprefix("zoo:") in error.what


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert "empty" in refusal(lambda: compile(str(tmp_path / "model"), out=tmp_path / "run")).what


def test_a_folder_that_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("hello")
    assert (
        "config.json" in refusal(lambda: compile(str(tmp_path / "model"), out=tmp_path / "r")).what
    )


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"x")
    assert str(path) in refusal(lambda: compile(str(path), out=tmp_path / "run")).what


def damaged(tiny: Path, copy: Path, damage: Callable[[Path], None]) -> str:
    shutil.copytree(tiny, copy)
    damage(copy)
    return str(copy)


def test_an_unknown_denoiser_class(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    def rename(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"_class_name": "Dreamer"}))

    model = damaged(tiny_denoisers["flux"], tmp_path / "model", rename)
    error = refusal(lambda: compile(model, out=tmp_path / "run"))
    assert "Dreamer" in error.what
    assert "FluxTransformer2DModel" in error.what


def test_truncated_weights(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    def truncate(folder: Path) -> None:
        file = next(folder.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-1000])

    model = damaged(tiny_denoisers["flux"], tmp_path / "model", truncate)
    assert ".safetensors" in refusal(lambda: compile(model, out=tmp_path / "run")).what


def test_weights_of_another_architecture(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    def drop(folder: Path) -> None:
        file = next(folder.glob("*.safetensors"))
        tensors = load_file(file)
        del tensors["proj_out.weight"]
        save_file(tensors, file)

    model = damaged(tiny_denoisers["flux"], tmp_path / "model", drop)
    assert "proj_out.weight" in refusal(lambda: compile(model, out=tmp_path / "run")).what


def test_nan_in_the_weights_is_found_and_named(
    flux_copy: Path, tiny_denoisers: LazyFolders, tmp_path: Path
) -> None:
    def poison(folder: Path) -> None:
        file = next(folder.glob("*.safetensors"))
        tensors = {name: array.copy() for name, array in load_file(file).items()}
        tensors["transformer_blocks.0.attn.to_q.weight"][0, 0] = np.nan
        save_file(tensors, file)

    model = damaged(tiny_denoisers["flux"], tmp_path / "model", poison)
    error = refusal(lambda: compile(model, out=tmp_path / "run"))
    assert "NaN" in error.what
    assert "transformer_blocks.0.attn.to_q.weight" in error.what


def test_a_checkpoint_that_was_moved(flux_copy: Path) -> None:
    location = flux_copy / "model.location.yaml"
    text = location.read_text()
    folder = text.split("folder: ")[1].splitlines()[0]
    location.write_text(text.replace(folder, "/nowhere/at/all", 1))
    again = CompileOptions(out=flux_copy, force=True)
    assert "/nowhere/at/all" in refusal(lambda: run_stage("calibrate", again)).what
    assert "/nowhere/at/all" in refusal(lambda: run_stage("rewrite", again)).what


# Records


@pytest.mark.parametrize(
    ("name", "next_stage"),
    [
        ("model.onnx", "analyze"),
        ("model.yaml", "analyze"),
        ("facts.yaml", "plan"),
        ("calibration.safetensors", "score"),
        ("plan.yaml", "rewrite"),
        ("quantized.onnx", "build"),
        ("quantized.weights", "build"),
    ],
)
def test_a_truncated_record_is_refused_by_name(name: str, next_stage: str, flux_copy: Path) -> None:
    path = flux_copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert name in refusal(stage(next_stage, flux_copy)).what


def test_a_missing_record_names_the_stage_that_writes_it(flux_copy: Path) -> None:
    (flux_copy / "facts.yaml").unlink()
    error = refusal(stage("plan", flux_copy))
    assert "facts.yaml" in error.what
    assert "analyze" in error.hint


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def first_scale(plan: Path) -> str:
    """The first activation scale in a plan, as it is written."""
    found = re.search(r"scale: ([0-9.e+-]+)", plan.read_text())
    assert found is not None
    return found[1]


def test_a_plan_that_names_a_site_that_is_not_there(flux_copy: Path) -> None:
    plan = flux_copy / "plan.yaml"
    first = next(line for line in plan.read_text().splitlines() if line.startswith("- site: "))
    edit(plan, first, "- site: node_of_another_graph")
    assert "node_of_another_graph" in refusal(stage("rewrite", flux_copy)).what


def test_a_plan_with_an_unknown_scheme(flux_copy: Path) -> None:
    plan = flux_copy / "plan.yaml"
    plan.write_text(re.sub(r"(activation: \{kind: )s\w+", r"\1ternary", plan.read_text(), count=1))
    error = refusal(stage("rewrite", flux_copy))
    assert "ternary" in error.what
    assert "symmetric" in error.what


def test_a_plan_with_an_impossible_scale(flux_copy: Path) -> None:
    scale = first_scale(flux_copy / "plan.yaml")
    edit(flux_copy / "plan.yaml", f"scale: {scale}", "scale: -1.0")
    assert "scale" in refusal(stage("rewrite", flux_copy)).what


def test_a_plan_that_the_graph_was_not_made_from(flux_copy: Path) -> None:
    scale = first_scale(flux_copy / "plan.yaml")
    edit(flux_copy / "plan.yaml", f"scale: {scale}", f"scale: {3 * float(scale)}")
    error = refusal(stage("build", flux_copy))
    assert "quantized.onnx" in error.what
    assert "plan.yaml" in error.what


def test_a_plan_that_lacks_or_repeats_a_site(flux_copy: Path) -> None:
    plan = flux_copy / "plan.yaml"
    text = plan.read_text()
    head, first, rest = text.partition("- site: ")
    one, sep, others = rest.partition("- site: ")
    plan.write_text(head + sep + others)
    assert "lacks site" in refusal(stage("rewrite", flux_copy)).what
    plan.write_text(head + first + one + first + one + sep + others)
    assert "twice" in refusal(stage("rewrite", flux_copy)).what


@pytest.mark.full
def test_a_checkpoint_that_changed_after_its_export(
    tiny_denoisers: LazyFolders, flux_inputs: Path, compiled_flux: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_denoisers["flux"], tmp_path / "model"))
    run = tmp_path / "run"
    run_stage("export", CompileOptions(out=run, model=str(model)))
    weights = next(model.glob("*.safetensors"))
    tensors = {name: array.copy() for name, array in load_file(weights).items()}
    tensors["proj_out.weight"] *= np.float16(2)
    save_file(tensors, weights)
    stale = CompileOptions(out=run, inputs=flux_inputs)
    error = refusal(lambda: run_stage("calibrate", stale))
    assert "has changed since it was exported" in error.what
    compile(str(model), out=run, inputs=flux_inputs)
    data = [(folder / "bundle" / "weights.bin").read_bytes() for folder in (run, compiled_flux)]
    assert data[0] != data[1]
    tensors["proj_out.weight"] *= np.float16(0.5)
    save_file(tensors, weights)
    result = compile(str(model), out=run, inputs=flux_inputs)
    assert "rewrite" not in result.skipped
    assert (run / "bundle" / "weights.bin").read_bytes() == data[1]


def test_bytes_that_changed_behind_an_unchanged_time(
    tiny_denoisers: LazyFolders, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_denoisers["flux"], tmp_path / "model"))
    options = CompileOptions(out=tmp_path / "run", model=str(model))
    run_stage("export", options)
    note_content(Work(run=RunFolder(options.out), options=options, progress=Silent()))
    options = replace(options, verify_digests=True)
    run_stage("export", options)
    weights = next(model.glob("*.safetensors"))
    status = weights.stat()
    with weights.open("r+b") as stream:
        stream.seek(status.st_size - 2)
        stream.write(b"\x00\x3c")
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "have changed" in refusal(lambda: run_stage("export", options)).what


def test_inputs_to_verify_with_are_not_taken_for_calibrations(
    tiny_denoisers: LazyFolders, flux_inputs: Path, flux_copy: Path
) -> None:
    model = str(tiny_denoisers["flux"])
    result = compile(model, out=flux_copy, inputs=flux_inputs, verify_inputs=flux_inputs)
    assert "calibrate" in result.skipped
    assert "verify" not in result.skipped


def planned_again(run: Path) -> None:
    """The stages from the calibration's first reader to the plan."""
    names = [row.name for row in STAGES]
    for name in names[names.index("analyze") + 1 : names.index("plan") + 1]:
        run_stage(name, CompileOptions(out=run))


def test_a_calibration_of_another_model(
    flux_copy: Path, tiny_denoisers: LazyFolders, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for name in ("export", "calibrate"):
        run_stage(name, CompileOptions(out=other, model=str(tiny_denoisers["sd3"])))
    shutil.copy(other / "calibration.safetensors", flux_copy)
    error = refusal(lambda: planned_again(flux_copy))
    assert str(flux_copy / "calibration.safetensors") in error.what
    assert "another model" in error.what
    assert str(flux_copy / "model.yaml") in error.what


def test_a_calibration_of_another_fine_tune(
    flux_copy: Path, flux_inputs: Path, tiny_denoisers: LazyFolders, tmp_path: Path
) -> None:
    def tune(folder: Path) -> None:
        weights = next(folder.glob("*.safetensors"))
        tensors = {name: array.copy() for name, array in load_file(weights).items()}
        tensors["transformer_blocks.0.attn.to_q.weight"] *= np.float16(2)
        save_file(tensors, weights, metadata={"format": "pt"})  # as diffusers writes it

    model = damaged(tiny_denoisers["flux"], tmp_path / "model", tune)
    other = tmp_path / "other"
    run_stage("export", CompileOptions(out=other, model=model))
    assert (other / "model.onnx").read_bytes() == (flux_copy / "model.onnx").read_bytes()
    run_stage("calibrate", CompileOptions(out=other, inputs=flux_inputs))
    shutil.copy(other / "calibration.safetensors", flux_copy)
    error = refusal(lambda: planned_again(flux_copy))
    assert str(flux_copy / "calibration.safetensors") in error.what
    assert "another checkpoint" in error.what
    assert str(flux_copy / "model.yaml") in error.what


def test_a_calibration_of_the_same_checkpoint_elsewhere_is_taken(
    flux_copy: Path, tiny_denoisers: LazyFolders, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_denoisers["flux"], tmp_path / "model")
    shutil.rmtree(flux_copy / ".stages")
    before = (flux_copy / "plan.yaml").read_bytes()
    run_stage("export", CompileOptions(out=flux_copy, model=str(model)))
    planned_again(flux_copy)
    assert (flux_copy / "plan.yaml").read_bytes() == before


# The machine


def test_a_target_whose_runtime_is_not_installed(
    flux_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = flux_copy / "plan.yaml"
    edit(plan, "target: onnxruntime", "target: openvino")
    run_stage("rewrite", CompileOptions(out=flux_copy))
    monkeypatch.setitem(sys.modules, "openvino", None)
    error = refusal(stage("build", flux_copy))
    assert "openvino" in error.what
    assert "segquant-trt[openvino]" in error.hint


def test_two_runs_into_one_folder(flux_copy: Path, tiny_denoisers: LazyFolders) -> None:
    with RunFolder(flux_copy).locked():
        error = refusal(lambda: compile(str(tiny_denoisers["flux"]), out=flux_copy))
    assert str(flux_copy) in error.what


def mounted(tmp_path: Path, options: str) -> Path:
    """A small file system of its own; skips where mounting is not allowed."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("mounting a file system needs privileges")
    return folder


@pytest.fixture
def unmount(tmp_path: Path) -> object:
    yield
    subprocess.run(["umount", str(tmp_path / "mounted")], capture_output=True, check=False)


@pytest.mark.usefixtures("unmount")
def test_no_space_left(compiled_flux: Path, tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    run = mounted(tmp_path, "size=1m") / "run"
    with pytest.raises((SegQuantError, OSError)) as refused:
        compile(str(tiny_denoisers["flux"]), out=run)
    assert isinstance(refused.value, SegQuantError)
    assert "no space left" in refused.value.what


@pytest.mark.usefixtures("unmount")
def test_a_read_only_output(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    run = mounted(tmp_path, "ro") / "run"
    assert (
        "cannot be written" in refusal(lambda: compile(str(tiny_denoisers["flux"]), out=run)).what
    )


def test_an_output_that_is_a_file(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("")
    assert str(path) in refusal(lambda: compile(str(tiny_denoisers["flux"]), out=path)).what


@pytest.mark.parametrize(
    "option",
    [{"steps": 0}, {"guidance_scale": -1.0}, {"target": "abacus"}, {"range_method": "guess"},
     {"colour": "red"}, {"keep_float": ["nothing-is-called-so"]}],
)  # fmt: skip
def test_a_bad_option(
    option: dict[str, object], flux_copy: Path, tiny_denoisers: LazyFolders
) -> None:
    error = refusal(lambda: compile(str(tiny_denoisers["flux"]), out=flux_copy, **option))
    assert next(iter(option)).split("_")[0] in error.what.replace("-", "_")


def test_the_command_line_says_it_in_two_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "segquant_trt.cli", "compile", "./nowhere", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    error, hint = done.stderr.strip().splitlines()
    assert error.startswith("error: ")
    assert "./nowhere" in error
    assert hint.strip().startswith("hint: ")
