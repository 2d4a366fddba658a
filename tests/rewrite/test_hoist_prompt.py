"""What a prompt fixes leaves the main graph, and comes back to it bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from segquant_trt.analyze import analyze
from segquant_trt.backends.hoisting import open_whole
from segquant_trt.backends.onnxruntime import OnnxRuntime, float_session, literal_session
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.frozen_stamp import fallback_path, frozen_steps
from segquant_trt.graph.hoisted_stamp import hoisted_prompt, prompt_path
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import KeepFloat, PerStep, left_in_float
from segquant_trt.records.step_rows import table_steps
from segquant_trt.rewrite import Freezing, Removed, rewrite
from tests.rewrite.hoisting import PROMPTS, STEPS, WIDTH, denoiser, feeds_at
from tests.shared import LazyFolders
from tests.small_graphs import plan_of, save_graph, scheme_of, treated
from tests.tiny_pipelines import TINY_KINDS, tiny_denoiser

FREEZING = Freezing(schedule="default:6", timesteps=STEPS, fallback=True)


def rewritten(
    model: Path, out: Path, *, freeze: bool, hoist: bool = True, coded: tuple[str, ...] = ()
) -> Removed:
    facts = analyze(model, timestep="when", prompts=PROMPTS)
    plan = plan_of(
        facts, "onnxruntime", lambda n: scheme_of("symmetric") if n in coded else KeepFloat()
    )
    freezing = FREEZING if freeze else None
    return rewrite(model, model.parent, facts, plan, out, freezing=freezing, hoisting=hoist)


def opened(out: Path):
    return open_whole(out, prompt_path(out), lambda path: OnnxRuntime().open(path, threads=1))


def nodes_of(path: Path) -> set[str]:
    return {node_name(node) for node in load_graph(path).graph.node}


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("hoist", [False, True])
def test_nothing_changes_bit_for_bit(tmp_path: Path, *, freeze: bool, hoist: bool) -> None:
    """With no site in codes: one sample, guidance pairs, any mixture of steps, any length."""
    model, out = denoiser(tmp_path), tmp_path / "q.onnx"
    rewritten(model, out, freeze=freeze, hoist=hoist)
    before = float_session(load_graph(model), tmp_path, threads=1)
    after = opened(out)
    for steps, words in (([981.0], 7), ([981.0, 981.0], 3), ([1.0, 501.0, 7.5, 981.0, 121.0], 9)):
        feeds = feeds_at(steps, words=words, prompt=words)
        np.testing.assert_array_equal(after.run(feeds)["y"], before.run(feeds)["y"])


def test_products_of_the_prompt_are_in_the_other_graph(tmp_path: Path) -> None:
    model, out = denoiser(tmp_path), tmp_path / "q.onnx"
    hoisted = rewritten(model, out, freeze=False).hoisted
    assert hoisted is not None
    assert hoisted == hoisted_prompt(load_graph(out))
    assert hoisted.sites == ("project", "to_k", "to_v")
    assert hoisted.macs_per_sample == 40 * (16 + 2 * WIDTH)
    assert 0.0 < hoisted.macs_share < 1.0
    assert (hoisted.inputs, hoisted.by_step) == (("text", "pooled"), ())
    assert set(hoisted.values) == {"p", "k", "v"}  # their Transposes are light, and stay
    assert {"project", "to_k", "to_v"} <= nodes_of(prompt_path(out))
    assert not {"project", "to_k", "to_v"} & nodes_of(out)
    assert not {"fc", "embed", "modulate"} & nodes_of(prompt_path(out))
    inputs = [value.name for value in load_graph(out).graph.input]
    assert inputs == ["x", "when", *hoisted.values]


def test_with_a_schedule_modulation_goes_too(tmp_path: Path) -> None:
    """One row per sample and step; the timestep is left to nobody, the fallback is whole."""
    model, out = denoiser(tmp_path), tmp_path / "q.onnx"
    removed = rewritten(model, out, freeze=True)
    assert removed.frozen is not None
    assert removed.hoisted is not None
    assert removed.frozen.sites == ("embed",)
    assert removed.hoisted.sites == ("project", "modulate", "to_k", "to_v")
    assert removed.hoisted.by_step == ("m",)
    assert [v.name for v in load_graph(out).graph.input] == ["x", "m", "k", "v"]
    assert {"embed", "modulate", "to_k"} <= nodes_of(fallback_path(out))
    assert "Gather" not in {node.op_type for node in load_graph(out).graph.node}
    second = load_graph(prompt_path(out))
    assert frozen_steps(second) is None
    feeds = feeds_at([981.0, 1.0])
    rows = {"when": np.tile(np.array(STEPS, np.float32), 2), "sample_of_row": np.repeat([0, 1], 6)}
    given = {name: feeds[name] for name in PROMPTS} | rows
    m = OnnxRuntime().open(prompt_path(out), threads=1).run(given)["m"].reshape(2, 6, -1)
    float_model = load_graph(model)
    float_model.graph.output.append(onnx.ValueInfoProto(name="m"))
    session = float_session(float_model, tmp_path, threads=1)
    for index, step in enumerate(STEPS):
        wanted = session.run({**feeds, "when": np.full(2, step, np.float32)}, ["m"])["m"]
        np.testing.assert_array_equal(m[:, index], wanted)


def test_codes_elsewhere_are_as_without_hoisting(tmp_path: Path) -> None:
    model = denoiser(tmp_path)
    for name, hoist in (("plain", False), ("hoisted", True)):
        rewritten(model, tmp_path / f"{name}.onnx", freeze=False, hoist=hoist, coded=("fc",))
    feeds = feeds_at([981.0, 1.0])
    wanted = literal_session(tmp_path / "plain.onnx", threads=1).run(feeds)["y"]
    out = tmp_path / "hoisted.onnx"
    found = open_whole(out, prompt_path(out), lambda path: literal_session(path, threads=1))
    np.testing.assert_array_equal(found.run(feeds)["y"], wanted)
    exact = float_session(load_graph(model), tmp_path, threads=1).run(feeds)["y"]
    assert np.abs(wanted - exact).max() > 1e-3


def test_hoisted_sites_stay_float_whatever_the_plan_says(tmp_path: Path) -> None:
    model, out = denoiser(tmp_path), tmp_path / "q.onnx"
    rewritten(model, out, freeze=True, coded=("project", "modulate", "to_k", "to_v", "embed"))
    feeds = feeds_at([981.0, 1.0])
    wanted = float_session(load_graph(model), tmp_path, threads=1).run(feeds)["y"]
    np.testing.assert_array_equal(opened(out).run(feeds)["y"], wanted)
    coded = literal_session(fallback_path(out), threads=1).run(feeds)["y"]
    assert np.abs(coded - wanted).max() > 1e-3


def test_scales_per_step_still_see_the_timestep(tmp_path: Path) -> None:
    """Nothing but them reads it in the main graph; codes are those of the whole graph."""
    model = denoiser(tmp_path)
    facts = analyze(model, timestep="when", prompts=PROMPTS)
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    coded = treated(WIDTH, scheme_of("symmetric"))
    factor = PerStep(edges=(0.0, 400.0), factors=(0.5, 3.0))
    segments = tuple(dataclasses.replace(part, factor=factor) for part in coded.segments)
    fc = dataclasses.replace(coded, segments=segments)
    plan = dataclasses.replace(
        plan,
        sites=tuple(
            dataclasses.replace(s, treatment=fc) if s.site == "fc" else s for s in plan.sites
        ),
    )
    out = tmp_path / "q.onnx"
    rewrite(model, tmp_path, facts, plan, out, freezing=FREEZING, hoisting=True)
    assert [v.name for v in load_graph(out).graph.input] == ["x", "when", "m", "k", "v"]
    feeds = feeds_at([981.0, 1.0, 501.0])
    found = open_whole(out, prompt_path(out), lambda path: literal_session(path, threads=1))
    wanted = literal_session(fallback_path(out), threads=1).run(feeds)["y"]
    np.testing.assert_array_equal(found.run(feeds)["y"], wanted)


MIXING = {
    "softmax over samples": [helper.make_node("Softmax", ["m"], ["n"], name="n", axis=0)],
    "samples in reverse": [
        helper.make_node("Slice", ["m", "last", "least", "first", "back"], ["n"], name="n")
    ],
    "difference from the mean": [
        helper.make_node("ReduceMean", ["m", "first"], ["mean"], name="mean", keepdims=1),
        helper.make_node("Sub", ["m", "mean"], ["n"], name="n"),
    ],
    "samples as channels": [
        helper.make_node("Transpose", ["m"], ["mt"], name="mt", perm=[1, 0]),
        helper.make_node("MatMul", ["m", "mt"], ["mm"], name="mm"),
        helper.make_node("MatMul", ["mm", "m"], ["n"], name="n"),
    ],
    "shape of the latent": [
        helper.make_node("Shape", ["x"], ["sizes"], name="sizes"),
        helper.make_node("Gather", ["sizes", "first"], ["samples"], name="samples"),
        helper.make_node("Concat", ["samples", "back"], ["wanted"], name="wanted", axis=0),
        helper.make_node("Reshape", ["m", "wanted"], ["n"], name="n"),
    ],
    "shape of the prompt": [
        helper.make_node("Shape", ["pooled"], ["sizes"], name="sizes"),
        helper.make_node("Gather", ["sizes", "first"], ["samples"], name="samples"),
        helper.make_node("Concat", ["samples", "back"], ["wanted"], name="wanted", axis=0),
        helper.make_node("Reshape", ["m", "wanted"], ["n"], name="n"),
    ],
}


@pytest.mark.parametrize("case", MIXING)
def test_what_one_sample_knows_of_others_stays(tmp_path: Path, case: str) -> None:
    """A product behind it may not be computed for other rows than those of the call."""
    numbers = {"last": -1, "least": -99, "first": 0, "back": -1}
    extra = [
        helper.make_node("Constant", [], [name], name=name, value_ints=[value])
        for name, value in numbers.items()
    ]
    extra += [
        *MIXING[case],
        helper.make_node("Transpose", ["modulate.t"], ["again.w"], name="again.w", perm=[1, 0]),
        helper.make_node("MatMul", ["n", "again.w"], ["o"], name="again"),
        helper.make_node("ReduceMean", ["o", "back"], ["o1"], name="o1", keepdims=1),
        helper.make_node("Unsqueeze", ["o1", "one"], ["o2"], name="o2"),
        helper.make_node("Add", ["y", "o2"], ["z"], name="z"),
    ]
    model, out = denoiser(tmp_path, *extra, output="z"), tmp_path / "q.onnx"
    hoisted = rewritten(model, out, freeze=True).hoisted
    assert hoisted is not None
    assert "again" in nodes_of(out)
    assert hoisted.by_step == ("m",)
    before = float_session(load_graph(model), tmp_path, threads=1)
    for steps in ([1.0], [981.0, 7.5, 121.0]):
        feeds = feeds_at(steps)
        np.testing.assert_array_equal(opened(out).run(feeds)["z"], before.run(feeds)["z"])


def test_rows_per_token_are_not_kept_for_every_step(tmp_path: Path) -> None:
    """They would cost as much once for all steps, and T times the memory."""
    extra = [
        helper.make_node("Unsqueeze", ["gate", "one"], ["gate1"], name="gate1"),
        helper.make_node("ReduceMean", ["gate1", "ends"], ["level"], name="level", keepdims=1),
        helper.make_node("Mul", ["v", "level"], ["v2"], name="v2"),
        helper.make_node("Transpose", ["fc.t"], ["late.w"], name="late.w", perm=[1, 0]),
        helper.make_node("MatMul", ["v2", "late.w"], ["late.y"], name="late"),
        helper.make_node("ReduceMean", ["late.y", "one"], ["late.z"], name="late.z", keepdims=1),
        helper.make_node("Add", ["y", "late.z"], ["z"], name="z"),
    ]
    extra.insert(0, helper.make_node("Constant", [], ["ends"], name="ends", value_ints=[-1]))
    model, out = denoiser(tmp_path, *extra, output="z"), tmp_path / "q.onnx"
    hoisted = rewritten(model, out, freeze=True).hoisted
    assert hoisted is not None
    assert "late" in nodes_of(out)
    feeds = feeds_at([1.0, 501.0])
    wanted = float_session(load_graph(model), tmp_path, threads=1).run(feeds)["z"]
    np.testing.assert_array_equal(opened(out).run(feeds)["z"], wanted)


def test_same_bytes_every_time(tmp_path: Path) -> None:
    model = denoiser(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rewritten(model, tmp_path / name / "q.onnx", freeze=True, coded=("fc",))
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"q.onnx", "q.weights", "q.fallback.onnx", "q.prompt.onnx"}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rewritten(model, tmp_path / "a" / "q.onnx", freeze=False, hoist=False)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"q.onnx", "q.weights"}


def test_nothing_to_hoist_is_an_error(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
             helper.make_node("Add", ["h", "text"], ["y"], name="y")]  # fmt: skip
    inputs = {"x": ["batch", WIDTH], "when": ["batch"], "text": ["batch", WIDTH]}
    weights = {"w": np.eye(WIDTH, dtype=np.float32)}
    model = save_graph(tmp_path / "model.onnx", nodes, inputs, ["y"], weights, external=False)
    facts = analyze(model, timestep="when", prompts=("text",))
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    with pytest.raises(SegQuantError, match=r"depends on prompt inputs alone \(text\), so hoist"):
        rewrite(model, tmp_path, facts, plan, tmp_path / "q.onnx", hoisting=True)
    facts = dataclasses.replace(facts, prompt_inputs=())
    with pytest.raises(SegQuantError, match=r"\(none is known\)"):
        rewrite(model, tmp_path, facts, plan, tmp_path / "q.onnx", hoisting=True)
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_real_denoisers_without_what_a_prompt_fixes(
    kind: str, exported_tiny: LazyFolders, tmp_path: Path
) -> None:
    """Cross-attention's K and V, text embedders and, with a schedule, all modulation are gone."""
    from segquant_trt.models import family_for
    from segquant_trt.pipeline.run import RunFolder
    from segquant_trt.records.options import CompileOptions
    from segquant_trt.records.progress import Silent
    from segquant_trt.records.stage import Work

    run = exported_tiny[kind]
    work = Work(run=RunFolder(run), options=CompileOptions(out=run), progress=Silent())
    spec, folder, model = work.spec(), work.weights(), run / "model.onnx"
    facts = analyze(model, timestep=spec.timestep)
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    floats = (dataclasses.replace(s, treatment=left_in_float(1)) for s in plan.sites)
    plan = dataclasses.replace(plan, sites=tuple(floats))
    steps = table_steps(np.array(STEPS) / (1000.0 if kind == "flux" else 1.0))
    assert spec.timestep is not None
    before = float_session(load_graph(model), folder, threads=1)
    for freezing in (None, dataclasses.replace(FREEZING, timesteps=steps, fallback=False)):
        out = tmp_path / "q.onnx"
        removed = rewrite(
            model, folder, facts, plan, out, timestep=spec.timestep, hoisting=True,
            freezing=freezing,
        )  # fmt: skip
        left = {*facts.prompt_constant, *facts.prompt_and_timestep} & nodes_of(out)
        tokens = {site.name for site in facts.sites if "norm1_context" not in site.name}
        tokens &= {site.name for site in facts.sites if ".add_" in site.name}
        wanted = set() if freezing is not None else {*facts.prompt_and_timestep}
        assert left == wanted | (tokens & {*facts.prompt_and_timestep})
        assert not {*facts.prompt_constant} & nodes_of(out)
        assert removed.hoisted is not None
        lengths = {axis.name: axis.typical for axis in spec.axes} | {"batch": 2}
        feeds = family_for(spec.class_name).example_inputs(tiny_denoiser(kind).config, lengths)
        feeds[spec.timestep] = np.array(steps[1:3], dtype=np.float32)
        name = spec.output.name
        np.testing.assert_array_equal(opened(out).run(feeds)[name], before.run(feeds)[name])
