"""Bundles whose prompt part runs once per prompt: what is kept, for whom, and for how long."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segquant_trt.analyze import analyze
from segquant_trt.build import build
from segquant_trt.errors import SegQuantError
from segquant_trt.records import CPU_TARGETS, AxisRange, Manifest, ModelSpec, Target, TensorSpec
from segquant_trt.records.bundle_layout import sealed
from segquant_trt.rewrite import Freezing, rewrite
from segquant_trt.serve import load
from segquant_trt.serve.hoisted_runner import Kept
from tests.bundles import spec_of
from tests.rewrite.hoisting import PROMPTS, STEPS, TEXT, WIDTH, denoiser, feeds_at
from tests.small_graphs import plan_of, scheme_of

SHAPES: dict[str, object] = {
    "inputs": (
        TensorSpec(name="x", dtype="float32", shape=("batch", "tokens", WIDTH)),
        TensorSpec(name="when", dtype="float32", shape=("batch",)),
        TensorSpec(name="text", dtype="float32", shape=("batch", "words", TEXT)),
        TensorSpec(name="pooled", dtype="float32", shape=("batch", TEXT)),
    ),
    "output": TensorSpec(name="y", dtype="float32", shape=("batch", "tokens", WIDTH)),
    "axes": (
        AxisRange(name="batch", minimum=1, typical=2, maximum=8),
        AxisRange(name="tokens", minimum=1, typical=5, maximum=16),
        AxisRange(name="words", minimum=1, typical=7, maximum=16),
    ),
}


def bundle_of(
    run: Path,
    *,
    freeze: bool = True,
    fallback: bool = True,
    hoist: bool = True,
    target: Target = "onnxruntime",
) -> tuple[Path, Manifest]:
    model = denoiser(run)
    facts = analyze(model, timestep="when", prompts=PROMPTS)
    plan = plan_of(facts, target, lambda _: scheme_of("symmetric"))
    freezing = Freezing(schedule="default:6", timesteps=STEPS, fallback=fallback)
    out = run / "quantized.onnx"
    rewrite(model, run, facts, plan, out, freezing=freezing if freeze else None, hoisting=hoist)
    spec: ModelSpec = dataclasses.replace(spec_of(facts), timestep="when", **SHAPES)
    return run / "bundle", build(run, spec, facts, plan, out=run / "bundle")


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("target", CPU_TARGETS)
def test_interleaved_prompts_are_two_separate_runs(
    tmp_path: Path, target: Target, *, freeze: bool
) -> None:
    """Pairs for guidance and single samples, texts of two lengths: to the bit."""
    bundle, manifest = bundle_of(tmp_path, freeze=freeze, target=target)
    names = {"manifest.json", "model.onnx", "plan.yaml", "prompt.onnx", "weights.bin"}
    assert {path.name for path in bundle.iterdir()} == names | (
        {"fallback.onnx"} if freeze else set()
    )
    assert manifest.sites_total == (1 if freeze else 3)
    assert manifest.hoisted is not None
    samples = {0: [1, 1], 1: [1], 2: [1, 1]}
    calls = [
        (prompt, feeds_at(np.array(one) * step, seed=i, prompt=prompt, words=5 + prompt))
        for i, step in enumerate(STEPS)
        for prompt, one in samples.items()
    ]
    together = load(bundle, threads=1)
    found = [together.run(feeds) for _, feeds in calls]
    assert together.prompt_runs == 3
    for prompt in samples:
        alone = load(bundle, threads=1)
        for (other, feeds), answer in zip(calls, found, strict=True):
            if other == prompt:
                np.testing.assert_array_equal(alone.run(feeds), answer)
        assert alone.prompt_runs == 1
    assert together.fallback_calls == 0


def test_other_steps_run_the_whole_graph_without_the_prompts_one(tmp_path: Path) -> None:
    whole = load(bundle_of(tmp_path / "whole", freeze=False, hoist=False)[0], threads=1)
    bundle = load(bundle_of(tmp_path / "hoisted")[0], threads=1)
    off = feeds_at([981.0, 700.0])
    np.testing.assert_array_equal(bundle.run(off), whole.run(off))
    assert (bundle.fallback_calls, bundle.prompt_runs) == (1, 0)
    refusing = load(bundle_of(tmp_path / "refusing", fallback=False)[0], threads=1)
    with pytest.raises(SegQuantError, match="timestep 700 is not among the 6"):
        refusing.run(off)
    assert refusing.prompt_runs == 0


def test_content_decides_not_identity(tmp_path: Path) -> None:
    """Equal copies are one prompt; an array that is overwritten is another one."""
    bundle = load(bundle_of(tmp_path)[0], threads=1)
    feeds = feeds_at([981.0])
    first = bundle.run(feeds)
    bundle.run({name: array.copy() for name, array in feeds.items()})
    assert bundle.prompt_runs == 1
    text = feeds["text"].copy()
    feeds["text"][...] = feeds_at([981.0], prompt=1)["text"]
    assert np.abs(bundle.run(feeds) - first).max() > 1e-3
    assert bundle.prompt_runs == 2
    feeds["text"][...] = text
    np.testing.assert_array_equal(bundle.run(feeds), first)
    wide = {**feeds, "text": np.repeat(text, 2, axis=2)[:, :, ::2].copy(order="F")}
    np.testing.assert_array_equal(bundle.run(wide), first)
    assert bundle.prompt_runs == 2


def test_few_prompts_are_kept(tmp_path: Path) -> None:
    bundle = load(bundle_of(tmp_path)[0], threads=1, kept_prompts=2)
    runs = []
    for prompt in (0, 1, 0, 2, 0, 1, 2):
        bundle.run(feeds_at([981.0], prompt=prompt))
        runs.append(bundle.prompt_runs)
    assert runs == [1, 2, 2, 3, 3, 4, 5]
    with pytest.raises(SegQuantError, match="kept_prompts is 0"):
        load(tmp_path / "bundle", kept_prompts=0)


def test_kept_values_are_bounded_and_computed_once() -> None:
    kept, started, go = Kept(3), threading.Barrier(5), threading.Event()
    values = {"v": np.ones(3)}

    def slow() -> dict[str, np.ndarray]:
        assert go.wait(10)
        return values

    def ask(_: int) -> object:
        started.wait(10)
        return kept.of(b"one", slow)

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(ask, index) for index in range(4)]
        started.wait(10)
        assert kept.of(b"two", lambda: values) is values  # another prompt does not wait
        go.set()
        assert all(answer.result(10) is values for answer in found)
    assert kept.computed == 2
    for index in range(20):
        kept.of(bytes([index]), dict)
        assert len(kept) <= 3
    with pytest.raises(ZeroDivisionError):
        kept.of(b"fails", lambda: {"v": np.ones(1 // 0)})
    assert kept.of(b"fails", lambda: values) is values


def test_threads_get_what_they_would_get_alone(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path)[0]
    given = [
        feeds_at([STEPS[i % 6], 33.0 if i % 5 == 4 else 981.0], seed=i, prompt=i % 3)
        for i in range(24)
    ]
    alone = load(bundle, threads=1)
    wanted = [alone.run(feeds) for feeds in given]
    shared = load(bundle, threads=1, kept_prompts=2)  # evicts while others read
    with ThreadPoolExecutor(6) as pool:
        for answer, expected in zip(pool.map(shared.run, given), wanted, strict=True):
            np.testing.assert_array_equal(answer, expected)
    assert shared.fallback_calls == alone.fallback_calls > 0


def test_the_prompts_graph_must_be_intact(tmp_path: Path) -> None:
    bundle, _ = bundle_of(tmp_path / "run")
    for damage, wanted in (
        ("gone", "prompt.onnx does not exist"),
        ("altered", "prompt.onnx was altered"),
        ("unlisted", "lists fallback.onnx, model.onnx, plan.yaml, prompt.onnx, weights.bin; a"),
        ("others", "prompt.onnx has inputs pooled, sample_of_row, text, when, the manifest others"),
    ):
        copy = Path(shutil.copytree(bundle, tmp_path / damage))
        plain = json.loads((copy / "manifest.json").read_text())
        if damage == "gone":
            (copy / "prompt.onnx").unlink()
        elif damage == "altered":
            data = (copy / "prompt.onnx").read_bytes()
            (copy / "prompt.onnx").write_bytes(data[:-1] + b"?")
        elif damage == "unlisted":
            plain["hoisted"] = None
            (copy / "manifest.json").write_text(json.dumps(sealed(plain)))
        else:
            plain["hoisted"]["inputs"] = ["pooled"]
            (copy / "manifest.json").write_text(json.dumps(sealed(plain)))
        with pytest.raises(SegQuantError, match=wanted):
            load(copy, threads=1)


def test_same_bytes_twice(tmp_path: Path) -> None:
    first, second = (bundle_of(tmp_path / name)[0] for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
