"""Bundles with tables: on the steps, off them, with and without a fallback."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segquant_trt.analyze import analyze
from segquant_trt.build import build
from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    CPU_TARGETS,
    AxisRange,
    Manifest,
    ModelSpec,
    Target,
    TensorSpec,
)
from segquant_trt.rewrite import Freezing, rewrite
from segquant_trt.serve import load
from tests.bundles import spec_of
from tests.rewrite.test_freeze_steps import STEPS, WIDTH, denoiser, feeds_at
from tests.small_graphs import plan_of, scheme_of


def bundle_of(
    run: Path, *, fallback: bool, target: Target = "onnxruntime", steps=STEPS
) -> tuple[Path, Manifest]:
    model = denoiser(run)
    facts = analyze(model, timestep="when")
    plan = plan_of(facts, target, lambda _: scheme_of("symmetric"))
    freezing = Freezing(schedule="default:6", timesteps=steps, fallback=fallback)
    rewrite(model, run, facts, plan, run / "quantized.onnx", freezing=freezing)
    spec = dataclasses.replace(spec_of(facts), timestep="when", **SHAPES)
    return run / "bundle", build(run, spec, facts, plan, out=run / "bundle")


SHAPES: dict[str, object] = {
    "inputs": (
        TensorSpec(name="x", dtype="float32", shape=("batch", "tokens", WIDTH)),
        TensorSpec(name="when", dtype="float32", shape=("batch",)),
    ),
    "output": TensorSpec(name="y", dtype="float32", shape=("batch", "tokens", WIDTH)),
    "axes": (
        AxisRange(name="batch", minimum=1, typical=2, maximum=8),
        AxisRange(name="tokens", minimum=1, typical=5, maximum=16),
    ),
}


def plain_bundle(run: Path, target: Target = "onnxruntime") -> Path:
    model = denoiser(run)
    facts = analyze(model, timestep="when")
    plan = plan_of(facts, target, lambda _: scheme_of("symmetric"))
    rewrite(model, run, facts, plan, run / "quantized.onnx")
    spec: ModelSpec = dataclasses.replace(spec_of(facts), timestep="when", **SHAPES)
    build(run, spec, facts, plan, out=run / "bundle")
    return run / "bundle"


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_the_fallback_is_the_graph_without_tables(tmp_path: Path, target: Target) -> None:
    plain = load(plain_bundle(tmp_path / "plain", target), threads=1)
    bundle, manifest = bundle_of(tmp_path / "frozen", fallback=True, target=target)
    assert {file.name for file in manifest.files} == {
        "model.onnx", "fallback.onnx", "plan.yaml", "weights.bin",
    }  # fmt: skip
    assert (manifest.sites_total, manifest.sites_integer) == (1, 1)
    assert manifest.macs_integer_share == 1.0
    assert manifest.frozen is not None
    assert manifest.frozen.sites == ("embed", "modulate")
    assert plain.manifest.sites_total == 3
    frozen = load(bundle, threads=1)
    off = feeds_at(np.array([981.0, 700.0, 1.0]))
    np.testing.assert_array_equal(frozen.run(off), plain.run(off))
    assert frozen.fallback_calls == 1
    on = feeds_at(np.array([981.0, 501.0, 1.0]))
    assert np.abs(frozen.run(on) - plain.run(on)).max() > 1e-3
    assert frozen.fallback_calls == 1


def test_steps_that_are_not_frozen_are_named(tmp_path: Path) -> None:
    bundle, manifest = bundle_of(tmp_path, fallback=False)
    assert "fallback.onnx" not in {path.name for path in bundle.iterdir()}
    denoiser_ = load(bundle, threads=1)
    assert denoiser_.run(feeds_at(np.array([7.5]))).shape == (1, 5, WIDTH)
    pattern = (
        r"timestep 700 is not among the 6 that this bundle was frozen to \(default:6\): "
        r"1, 7.5, 120.25, 121, 501, 981$"
    )
    for steps in ([700.0], [1.0, 700.0, 2000.0]):
        with pytest.raises(SegQuantError) as caught:
            denoiser_.run(feeds_at(np.array(steps)))
        assert caught.match("timestep 700 is not among the 6")
        assert re.search(pattern, caught.value.what)
    with pytest.raises(SegQuantError, match="timestep nan is not"):
        denoiser_.run(feeds_at(np.array([np.nan])))
    assert manifest.frozen is not None
    near = feeds_at(np.array([1.0000001, 981.0001, 7.5, 120.0]))  # 120.25 in bfloat16
    exact = {**near, "when": np.array([1.0, 981.0, 7.5, 120.25], np.float32)}
    np.testing.assert_array_equal(denoiser_.run(near), denoiser_.run(exact))
    for other in (980.0, 120.625):
        with pytest.raises(SegQuantError, match=f"timestep {other:g} is not"):
            denoiser_.run(feeds_at(np.array([other])))


def test_threads_share_one_fallback(tmp_path: Path) -> None:
    frozen = load(bundle_of(tmp_path, fallback=True)[0], threads=1)
    given = [feeds_at(np.array([step, 981.0]), seed=i) for i, step in enumerate((1.0, 33.0) * 4)]
    alone = [load(tmp_path / "bundle", threads=1).run(one) for one in given[:2]]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(frozen.run, given))
    for wanted, found in zip(alone, together, strict=False):
        np.testing.assert_array_equal(found, wanted)
    assert frozen.fallback_calls == 4


def test_a_fallback_must_be_intact(tmp_path: Path) -> None:
    bundle, _ = bundle_of(tmp_path / "run", fallback=True)
    for damage in ("gone", "altered", "extra"):
        copy = Path(shutil.copytree(bundle, tmp_path / damage))
        if damage == "gone":
            (copy / "fallback.onnx").unlink()
            wanted = "fallback.onnx does not exist"
        elif damage == "altered":
            data = (copy / "fallback.onnx").read_bytes()
            (copy / "fallback.onnx").write_bytes(data[:-1] + b"?")
            wanted = "fallback.onnx was altered"
        else:
            manifest = json.loads((copy / "manifest.json").read_text())
            manifest["frozen"] = None
            (copy / "manifest.json").write_text(json.dumps(manifest))
            wanted = "its own digest differs"
        with pytest.raises(SegQuantError, match=wanted):
            load(copy, threads=1)


def test_same_bytes_twice(tmp_path: Path) -> None:
    first, second = (bundle_of(tmp_path / name, fallback=True)[0] for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
