"""Tables over the steps of a schedule: exact, without GEMMs, found by dependence alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from segquant_trt.analyze import analyze
from segquant_trt.backends.onnxruntime import OnnxRuntime, float_session, literal_session
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import external_range, load_graph
from segquant_trt.graph.frozen_stamp import fallback_path, frozen_steps
from segquant_trt.graph.remove_unused import RemoveUnused
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import FrozenSteps, KeepFloat
from segquant_trt.records.step_rows import table_steps
from segquant_trt.rewrite import Freezing, rewrite
from segquant_trt.rewrite.freeze_steps import FreezeSteps
from tests.shared import LazyFolders
from tests.small_graphs import full_range_weight, linear_nodes, plan_of, save_graph, scheme_of
from tests.tiny_pipelines import TINY_KINDS, tiny_denoiser

STEPS = (1.0, 7.5, 120.25, 121.0, 501.0, 981.0)
WIDTH = 24


def denoiser(folder: Path, *extra: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> Path:
    """`y = fc(x) * (1 + scale) + shift` with scale and shift of the timestep alone.

    Waves and embeddings are whole vectors of 16: ONNX Runtime's sine rounds the last few elements
    of a batch differently, so that its own answer for a sample would depend on the others.
    """
    nodes = [
        helper.make_node("Unsqueeze", ["when", "one"], ["column"], name="column"),
        helper.make_node("Mul", ["column", "frequencies"], ["angles"], name="angles"),
        helper.make_node("Sin", ["angles"], ["sine"], name="sine"),
        helper.make_node("Cos", ["angles"], ["cosine"], name="cosine"),
        helper.make_node("Concat", ["sine", "cosine"], ["waves"], name="waves", axis=-1),
        *linear_nodes("embed", "waves", "e", bias=True, stored=True, gemm=True),
        helper.make_node("Sigmoid", ["e"], ["gate"], name="gate"),
        helper.make_node("Mul", ["e", "gate"], ["silu"], name="silu"),
        *linear_nodes("modulate", "silu", "m", bias=True, stored=True),
        helper.make_node("Split", ["m"], ["shift", "scale"], name="halves", axis=-1, num_outputs=2),
        helper.make_node("Unsqueeze", ["shift", "one"], ["shift1"], name="shift1"),
        helper.make_node("Unsqueeze", ["scale", "one"], ["scale1"], name="scale1"),
        *linear_nodes("fc", "x", "h", bias=True, stored=True),
        helper.make_node("Add", ["scale1", "unit"], ["factor"], name="factor"),
        helper.make_node("Mul", ["h", "factor"], ["scaled"], name="scaled"),
        helper.make_node("Add", ["scaled", "shift1"], ["y"], name="shifted"),
        *extra,
    ]
    random = np.random.default_rng(3)
    shapes = {"embed": (16, 32), "modulate": (2 * WIDTH, 16), "fc": (WIDTH, WIDTH)}
    weights = {f"{n}.weight": full_range_weight(s, 1).astype("f2") for n, s in shapes.items()}
    weights |= {f"{n}.bias": random.standard_normal(s[0]).astype("f2") for n, s in shapes.items()}
    weights["frequencies"] = random.standard_normal((1, 16)).astype(np.float32)
    weights["one"] = np.array([1], dtype=np.int64)
    weights["unit"] = np.array(1, dtype=np.float32)
    inputs = {"x": ["batch", "tokens", WIDTH], "when": ["batch"]}
    return save_graph(folder / "model.onnx", nodes, inputs, list(outputs), weights, external=False)


def frozen_graph(
    model: Path, timestep: str, steps: tuple[float, ...], folder: Path | None = None
) -> onnx.ModelProto:
    graph = load_graph(model)
    FreezeSteps(timestep, steps, folder or model.parent).run(graph)
    RemoveUnused().run(graph)
    return graph


def run(graph: onnx.ModelProto, folder: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    output = graph.graph.output[0].name
    return float_session(graph, folder, threads=1).run(feeds)[output]


def feeds_at(steps: np.ndarray, seed: int = 0, tokens: int = 5) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).standard_normal((len(steps), tokens, WIDTH))
    return {"x": x.astype(np.float32), "when": np.asarray(steps, dtype=np.float32)}


def test_tables_equal_the_graph_at_every_step(tmp_path: Path) -> None:
    """Bit for bit: alone, all at once in any order, and a little beside the steps."""
    model = denoiser(tmp_path)
    before, after = load_graph(model), frozen_graph(model, "when", STEPS)
    sites = {site.name for site in analyze(model, timestep="when").sites}
    assert sites & {node_name(node) for node in after.graph.node} == {"fc"}
    assert not {"Sin", "Cos", "Sigmoid"} & {node.op_type for node in after.graph.node}
    for batch in ([step] for step in STEPS):
        feeds = feeds_at(np.array(batch))
        np.testing.assert_array_equal(run(after, tmp_path, feeds), run(before, tmp_path, feeds))
    mixed = feeds_at(np.random.default_rng(1).permutation(STEPS + STEPS[::2]))
    wanted = run(before, tmp_path, mixed)
    np.testing.assert_array_equal(run(after, tmp_path, mixed), wanted)
    nudged = {**mixed, "when": mixed["when"] + np.float32(0.3)}
    np.testing.assert_array_equal(run(after, tmp_path, nudged), wanted)


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_tables_equal_real_denoisers(kind: str, exported_tiny: LazyFolders) -> None:
    """The prediction and every GEMM's absence, for the denoisers that diffusers has."""
    from segquant_trt.models import family_for
    from segquant_trt.pipeline.run import RunFolder
    from segquant_trt.records.options import CompileOptions
    from segquant_trt.records.progress import Silent
    from segquant_trt.records.stage import Work

    run_folder = exported_tiny[kind]
    work = Work(
        run=RunFolder(run_folder), options=CompileOptions(out=run_folder), progress=Silent()
    )
    spec, folder = work.spec(), work.weights()
    model = run_folder / "model.onnx"
    scale = 1000.0 if kind == "flux" else 1.0
    steps = table_steps(np.array(STEPS) / scale)
    assert spec.timestep is not None
    facts = analyze(model, timestep=spec.timestep)
    after = frozen_graph(model, spec.timestep, steps, folder)
    present = {node_name(node) for node in after.graph.node}
    gone = {site.name for site in facts.sites} - present
    assert gone == {site.site for site in facts.timestep_only}
    assert len(gone) == {"sd15": 10}.get(kind, 2)
    lengths = {axis.name: axis.typical for axis in spec.axes} | {"batch": len(steps)}
    feeds = family_for(spec.class_name).example_inputs(tiny_denoiser(kind).config, lengths)
    feeds[spec.timestep] = np.array(steps[::-1], dtype=np.float32)
    before = load_graph(model)
    np.testing.assert_array_equal(run(after, folder, feeds), run(before, folder, feeds))


def test_one_step_alone(tmp_path: Path) -> None:
    model = denoiser(tmp_path)
    feeds = feeds_at(np.array([981.0, 981.0, 981.0]))
    wanted = run(load_graph(model), tmp_path, feeds)
    found = run(frozen_graph(model, "when", (981.0,)), tmp_path, feeds)
    np.testing.assert_array_equal(found, wanted)


def test_what_lacks_rows_stays_and_what_it_is_made_of_is_frozen(tmp_path: Path) -> None:
    """A sum over the batch, a shape of the part itself, and a stretch to the length of x."""
    nodes = (
        helper.make_node("ReduceMean", ["m"], ["total"], name="total", keepdims=0),
        helper.make_node("Shape", ["silu"], ["shape"], name="shape"),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"], name="zeros"),
        helper.make_node("ReduceSum", ["zeros"], ["nothing"], name="nothing", keepdims=0),
        helper.make_node("Shape", ["x"], ["x_shape"], name="x_shape"),
        helper.make_node("Expand", ["shift1", "x_shape"], ["wide"], name="wide"),
        helper.make_node("Sum", ["y", "total", "nothing", "wide"], ["z"], name="z"),
    )
    model = denoiser(tmp_path, *nodes, outputs=("z",))
    after = frozen_graph(model, "when", STEPS)
    present = {node_name(node) for node in after.graph.node}
    assert {"total", "wide"} <= present
    assert not {"embed", "modulate"} & present
    feeds = feeds_at(np.array(STEPS))
    np.testing.assert_array_equal(
        run(after, tmp_path, feeds), run(load_graph(model), tmp_path, feeds)
    )


@pytest.mark.parametrize("steps", [STEPS, STEPS[:1]])
def test_samples_that_look_at_each_other_are_refused(
    tmp_path: Path, steps: tuple[float, ...]
) -> None:
    """A row of the batch for every step would not be the row of a call."""
    nodes = (
        helper.make_node("ReduceMean", ["m", "nought"], ["mean"], name="mean", keepdims=1),
        helper.make_node("Sub", ["m", "mean"], ["apart"], name="apart"),
        helper.make_node("ReduceMean", ["apart", "last"], ["level"], name="level", keepdims=1),
        helper.make_node("Unsqueeze", ["level", "one"], ["level1"], name="level1"),
        helper.make_node("Add", ["y", "level1"], ["z"], name="z"),
    )
    numbers = [
        helper.make_node("Constant", [], [name], name=name, value_ints=[value])
        for name, value in (("nought", 0), ("last", -1))
    ]
    model = denoiser(tmp_path, *numbers, *nodes, outputs=("z",))
    with pytest.raises(SegQuantError, match="of one sample depends on the timesteps of the others"):
        frozen_graph(model, "when", steps)


def test_a_timestep_for_all_samples_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["weight", "when"], ["row"], name="row"),
        helper.make_node("Add", ["x", "row"], ["y"], name="y"),
    ]
    inputs = {"x": ["batch", 3], "when": []}
    weights = {"weight": np.ones((1, 3), np.float32)}
    model = save_graph(tmp_path / "model.onnx", nodes, inputs, ["y"], weights, external=False)
    with pytest.raises(SegQuantError, match="'when' has rank 0"):
        frozen_graph(model, "when", STEPS)
    with pytest.raises(SegQuantError, match="no input 'then'"):
        frozen_graph(model, "then", STEPS)


def rewritten(model: Path, out: Path, *, fallback: bool, steps=STEPS, scheme=None) -> FrozenSteps:
    facts = analyze(model, timestep="when")
    plan = plan_of(facts, "onnxruntime", scheme or (lambda _: scheme_of("symmetric")))
    freezing = Freezing(schedule="default:6", timesteps=steps, fallback=fallback)
    frozen = rewrite(model, model.parent, facts, plan, out, freezing=freezing).frozen
    assert frozen is not None
    return frozen


def test_the_rewritten_graph_and_its_fallback_share_their_data(tmp_path: Path) -> None:
    model = denoiser(tmp_path)
    facts = analyze(model, timestep="when")
    frozen = rewritten(model, tmp_path / "q.onnx", fallback=True)
    assert frozen.sites == ("embed", "modulate")
    assert frozen.macs_per_sample == 32 * 16 + 16 * 2 * WIDTH
    main, other = load_graph(tmp_path / "q.onnx"), load_graph(fallback_path(tmp_path / "q.onnx"))
    assert frozen_steps(main) == frozen
    assert frozen_steps(other) is None
    plain = tmp_path / "plain.onnx"
    plan = plan_of(facts, "onnxruntime", lambda _: scheme_of("symmetric"))
    assert rewrite(model, tmp_path, facts, plan, plain).sites == ()
    feeds = feeds_at(np.array([3.0, 981.0]))
    wanted = OnnxRuntime().open(plain, threads=1).run(feeds)["y"]
    found = OnnxRuntime().open(fallback_path(tmp_path / "q.onnx"), threads=1).run(feeds)["y"]
    np.testing.assert_array_equal(found, wanted)
    weights = (tmp_path / "q.weights").stat().st_size
    tables = sum(
        external_range(t).length for t in main.graph.initializer if t.name.endswith("_by_step")
    )
    assert weights <= plain.with_suffix(".weights").stat().st_size + tables + 64 * 4
    rewritten(model, tmp_path / "q.onnx", fallback=False)
    assert not fallback_path(tmp_path / "q.onnx").exists()
    assert (tmp_path / "q.weights").stat().st_size < weights


def test_temporal_features_are_exact_beside_quantised_sites(tmp_path: Path) -> None:
    """fc in float, so that everything that is left of the error would be the timestep's."""
    model = denoiser(tmp_path)
    kept = {"fc": KeepFloat()}
    rewritten(
        model, tmp_path / "q.onnx", fallback=True,
        scheme=lambda name: kept.get(name, scheme_of("symmetric")),
    )  # fmt: skip
    feeds = feeds_at(np.array(STEPS))
    wanted = run(load_graph(model), tmp_path, feeds)
    found = literal_session(tmp_path / "q.onnx", threads=1).run(feeds)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    found = OnnxRuntime().open(tmp_path / "q.onnx", threads=1).run(feeds)["y"]
    np.testing.assert_array_equal(found, wanted)
    coded = literal_session(fallback_path(tmp_path / "q.onnx"), threads=1).run(feeds)["y"]
    assert np.abs(coded - wanted).max() > 1e-3


def test_same_bytes_every_time(tmp_path: Path) -> None:
    model = denoiser(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rewritten(model, tmp_path / name / "q.onnx", fallback=True)
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"q.onnx", "q.weights", "q.fallback.onnx"}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_to_freeze_is_an_error(tmp_path: Path) -> None:
    nodes = [
        *linear_nodes("fc", "x", "h", bias=True, stored=True),
        helper.make_node("Unsqueeze", ["when", "axes"], ["w"], name="w"),
        helper.make_node("Add", ["h", "w"], ["y"], name="y"),
    ]
    weight = full_range_weight((WIDTH, WIDTH), 1).astype("f2")
    weights = {"fc.weight": weight, "fc.bias": weight[0], "axes": np.array([1, 2])}
    inputs = {"x": ["batch", "tokens", WIDTH], "when": ["batch"]}
    model = save_graph(tmp_path / "model.onnx", nodes, inputs, ["y"], weights, external=False)
    with pytest.raises(SegQuantError, match="no GEMM or convolution depends on 'when' alone"):
        rewritten(model, tmp_path / "q.onnx", fallback=True)
    assert not (tmp_path / "q.onnx").exists()


def test_unknown_sites_are_not_taken_for_frozen_ones(tmp_path: Path) -> None:
    model = denoiser(tmp_path)
    facts = analyze(model, timestep="when")
    plan = plan_of(facts, "onnxruntime", lambda _: scheme_of("symmetric"))
    renamed = tuple(
        dataclasses.replace(site, site="nowhere") if site.site == "embed" else site
        for site in plan.sites
    )
    freezing = Freezing(schedule="default:6", timesteps=STEPS, fallback=False)
    with pytest.raises(SegQuantError, match="names site 'nowhere'"):
        rewrite(
            model, tmp_path, facts, dataclasses.replace(plan, sites=renamed), tmp_path / "q.onnx",
            freezing=freezing,
        )  # fmt: skip
