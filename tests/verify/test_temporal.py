"""The error of temporal features, against the same arithmetic in NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from segquant_trt.analyze import analyze
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import FrozenSteps, HoistedPrompt, KeepFloat
from segquant_trt.records.codec import from_plain, to_plain
from segquant_trt.records.temporal import TemporalFeature
from segquant_trt.verify.site_errors import FloatModel
from segquant_trt.verify.temporal import find_components, temporal_features
from tests.rewrite.hoisting import PROMPTS, STEPS, denoiser, feeds_at
from tests.small_graphs import SCALE, linear_nodes, plan_of, save_graph, scheme_of

TIMES = STEPS[::-1]


def measured(
    folder: Path,
    *coded: str,
    prompts: tuple[str, ...] = PROMPTS,
    frozen: tuple[str, ...] = (),
    hoisted: tuple[str, ...] = (),
) -> tuple[TemporalFeature, ...]:
    model = denoiser(folder)
    facts = analyze(model, timestep="when", prompts=prompts)
    plan = plan_of(
        facts, "onnxruntime", lambda n: scheme_of("symmetric") if n in coded else KeepFloat()
    )
    steps = FrozenSteps(
        schedule="s", timestep="when", timesteps=STEPS, sites=frozen, macs_per_sample=0,
        fallback=False,
    )  # fmt: skip
    once = HoistedPrompt(
        inputs=PROMPTS, values=(), by_step=(), row_input=None, sites=hoisted, macs_per_sample=0,
        macs_share=0.0,
    )  # fmt: skip
    return temporal_features(
        FloatModel(graph=load_graph(model), facts=facts, folder=folder), plan, {},
        feeds_at([1.0, 1.0, 1.0]), TIMES, timestep="when", frozen=steps if frozen else None,
        hoisted=once if hoisted else None, threads=1,
    )  # fmt: skip


def reference(folder: Path, time: float, coded: tuple[str, ...]) -> np.ndarray:
    """`modulate`'s output, float64[3, 48]; the weights are exact in eight bits."""
    graph: onnx.ModelProto = load_graph(folder / "model.onnx")
    tensors = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in graph.graph.initializer}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        if name in coded:
            x = np.clip(np.rint(x / SCALE), -128, 127) * SCALE
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    angles = time * tensors["frequencies"]
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    emb = linear("embed", waves) + linear("project", feeds_at([1.0] * 3)["pooled"])
    return linear("modulate", emb / (1.0 + np.exp(-emb)))


@pytest.mark.parametrize(
    "coded", [("modulate",), ("embed",), ("embed", "project", "modulate"), ("fc", "modulate")]
)
def test_errors_are_those_of_the_codes(tmp_path: Path, coded: tuple[str, ...]) -> None:
    (feature,) = measured(tmp_path, *coded)
    assert (feature.site, feature.depends_on) == ("modulate", "prompt and timestep")
    assert feature.held == ("coded" if "modulate" in coded else "float")
    assert [step.timestep for step in feature.steps] == list(TIMES)
    for step in feature.steps:
        wanted = reference(tmp_path, step.timestep, ())
        noise = reference(tmp_path, step.timestep, coded) - wanted
        relative = np.linalg.norm(noise, axis=1) / np.linalg.norm(wanted, axis=1)
        # Angles of some thousand are rounded to 1e-4 in float32, and their waves with them.
        np.testing.assert_allclose(step.relative_error, relative.mean(), rtol=5e-3)
        assert step.sqnr_db == pytest.approx(float(np.mean(-20 * np.log10(relative))), abs=0.05)
    decibels = [step.sqnr_db for step in feature.steps]
    assert feature.sqnr_db_mean == pytest.approx(np.mean(decibels))
    assert feature.sqnr_db_worst == min(decibels)
    assert feature.relative_error_worst == max(step.relative_error for step in feature.steps)
    assert from_plain(to_plain(feature), TemporalFeature, origin="f") == feature


def test_no_error_is_no_decibels(tmp_path: Path) -> None:
    """Float throughout, or coded in the plan and out of the loop in the bundle."""
    (plain,) = measured(tmp_path, "fc", "to_k")
    assert plain.held == "float"
    kinds = ("embed", "project", "modulate")
    (once,) = measured(tmp_path, *kinds, frozen=("embed",), hoisted=("project", "modulate"))
    assert once == replace(plain, held="once per prompt")
    assert (plain.sqnr_db_mean, plain.sqnr_db_worst, plain.steps) == (None, None, ())
    assert (plain.relative_error_mean, plain.relative_error_worst) == (0.0, 0.0)


def test_a_table_is_exact_and_what_reads_it_need_not_be(tmp_path: Path) -> None:
    (feature,) = measured(tmp_path, "embed", "modulate", frozen=("embed",))
    (alone,) = measured(tmp_path, "modulate")
    assert feature == alone


def test_components_end_where_the_rest_begins(tmp_path: Path) -> None:
    """With the pooled text as part of the rest, the embedding itself is what is handed over."""
    (feature,) = measured(tmp_path, "embed", prompts=("text",))
    assert (feature.site, feature.depends_on, feature.held) == ("embed", "timestep", "coded")
    (table,) = measured(tmp_path, "embed", prompts=("text",), frozen=("embed",))
    assert (table.held, table.steps) == ("table", ())
    model = denoiser(tmp_path)
    facts = analyze(model, timestep="when", prompts=())
    whole = FloatModel(graph=load_graph(model), facts=facts, folder=tmp_path)
    assert [site.name for site in find_components(whole, "when")] == ["embed"]
    assert find_components(whole, "x") == ()


def test_of_paths_that_join_every_last_site_is_a_component(tmp_path: Path) -> None:
    """Their sum goes to the tokens with no further site behind it."""
    nodes = [
        helper.make_node("Reshape", ["when", "column"], ["t"], name="t"),
        *linear_nodes("slow", "t", "a", bias=False, stored=False),
        helper.make_node("Sin", ["t"], ["wave"], name="wave"),
        *linear_nodes("fast", "wave", "b", bias=False, stored=False),
        helper.make_node("Add", ["a", "b"], ["both"], name="both"),
        helper.make_node("Add", ["x", "both"], ["y"], name="y"),
    ]
    weights = {
        "column": np.array([-1, 1], dtype=np.int64),
        "slow.weight": np.ones((1, 5), dtype=np.float32),
        "fast.weight": np.ones((1, 5), dtype=np.float32),
    }
    inputs = {"x": ["batch", 5], "when": ["batch"]}
    path = save_graph(tmp_path / "model.onnx", nodes, inputs, ["y"], weights)
    facts = analyze(path, timestep="when", prompts=())
    model = FloatModel(graph=load_graph(path), facts=facts, folder=tmp_path)
    assert [site.name for site in find_components(model, "when")] == ["slow", "fast"]
