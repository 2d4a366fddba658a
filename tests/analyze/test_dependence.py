"""What sites depend on, against perturbed inputs; guesses and their overrides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from segquant_trt.analyze import analyze
from segquant_trt.errors import SegQuantError
from segquant_trt.records import GraphFacts
from tests.analyze.graphs import Array, Drawing, reasons

B, S = "batch", "tokens"


def denoiser() -> Drawing:
    """Modulation of two blocks from the timestep and a prompt, as in FLUX, and a text branch."""
    d = Drawing()
    latent = d.input("hidden_states", B, S, 8)
    text = d.input("encoder_hidden_states", B, 7, 6)
    pooled, time = d.input("pooled_projections", B, 6), d.input("timestep", B)
    angles = d.op("Mul", d.unsqueeze(time, 1), d.constant(np.linspace(1, 2, 4)[None]))
    wave = d.op("Concat", d.op("Sin", angles), d.op("Cos", angles), axis=1)
    temb = d.silu(d.linear("time_2", d.silu(d.linear("time_1", wave, 8, 8)), 8, 8))
    both = d.op("Add", temb, d.linear("pooled_1", pooled, 6, 8))
    keys = d.linear("keys", text, 6, 8)
    for block in ("a", "b"):
        shift, scale = d.split(d.linear(f"own_{block}", temb, 8, 16), 8, 8)
        gate = d.linear(f"joint_{block}", d.silu(both), 8, 8)
        shift, scale, gate = (d.unsqueeze(part, 1) for part in (shift, scale, gate))
        latent = d.op("Add", d.op("Mul", latent, scale), shift)
        scores = d.op("MatMul", latent, d.op("Transpose", keys, perm=[0, 2, 1]))
        read = d.op("MatMul", d.op("Softmax", scores), keys)
        latent = d.op("Add", latent, d.op("Mul", gate, d.linear(f"body_{block}", read, 8, 8)))
    d.linear("final", latent, 8, 4)
    return d


def feeds(drawing: Drawing, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    lengths = {B: 2, S: 5}
    return {
        name: rng.normal(size=[lengths.get(str(d), d) for d in dims]).astype(np.float32)
        for name, dims in drawing.inputs.items()
    }


def measured(drawing: Drawing, facts: GraphFacts) -> dict[str, set[str]]:
    """The inputs that change each site's activation when they change."""
    names = [site.activation for site in facts.sites]
    before = feeds(drawing, 0)
    base = drawing.run(before, *names)
    found: dict[str, set[str]] = {site.name: set() for site in facts.sites}
    for name, other in feeds(drawing, 1).items():
        for site, old, new in zip(
            facts.sites, base, drawing.run(before | {name: other}, *names), strict=True
        ):
            if not np.array_equal(old, new):
                found[site.name].add(name)
    return found


def test_dependence_is_what_changes_with_the_inputs(tmp_path: Path) -> None:
    drawing = denoiser()
    facts = drawing.facts(tmp_path)
    truth = measured(drawing, facts)
    prompts = {"encoder_hidden_states", "pooled_projections"}
    assert facts.timestep == "timestep"
    assert set(facts.prompt_inputs) == prompts
    assert {e.site for e in facts.timestep_only} == {
        name for name, inputs in truth.items() if inputs == {"timestep"}
    }
    assert set(facts.prompt_constant) == {
        name for name, inputs in truth.items() if inputs and inputs <= prompts
    }
    assert set(facts.prompt_and_timestep) == {
        name
        for name, inputs in truth.items()
        if "timestep" in inputs and inputs & prompts and "hidden_states" not in inputs
    }
    assert facts.timestep_only
    assert facts.prompt_constant
    assert facts.prompt_and_timestep


def test_frontier_values_replace_the_timestep(tmp_path: Path) -> None:
    drawing = denoiser()
    facts = drawing.facts(tmp_path)
    values = {entry.site: entry.values for entry in facts.timestep_only}
    frontier = set().union(*values.values())
    assert set(values["time_1"]) == set(values["time_2"]) == frontier
    assert set(values["own_a"]).isdisjoint(values["own_b"])
    assert len(values["own_a"]) == 2  # shift and scale
    # With these values given, the output no longer needs the timestep.
    output = next(site.output for site in facts.sites if site.name == "final")
    given = feeds(drawing, 0)
    names = sorted(frontier)
    table = dict(zip(names, drawing.run(given, *names), strict=True))
    expected = drawing.run(given, output)[0]
    cut = Drawing(opset=drawing.opset, nodes=drawing.nodes, constants=drawing.constants)
    cut.inputs = {**drawing.inputs, **{name: [None] * table[name].ndim for name in names}}  # type: ignore[list-item]
    cut.nodes = [node for node in drawing.nodes if not frontier.intersection(node.output)]
    other = given | table | {"timestep": given["timestep"] + 1}
    np.testing.assert_array_equal(cut.run(other, output)[0], expected)


def test_overrides(tmp_path: Path) -> None:
    drawing = denoiser()
    facts = drawing.facts(tmp_path, timestep="pooled_projections", prompts=["timestep", "timestep"])
    assert facts.timestep == "pooled_projections"
    assert facts.prompt_inputs == ("timestep",)
    assert [entry.site for entry in facts.timestep_only] == ["pooled_1"]
    assert "time_1" in facts.prompt_constant
    assert not any("is taken" in note or "taken for" in note for note in facts.notes)
    for options in ({"timestep": "t"}, {"prompts": ["text"]}):
        with pytest.raises(SegQuantError, match="its inputs are hidden_states"):
            drawing.facts(tmp_path, **options)


def test_guesses_are_noted(tmp_path: Path) -> None:
    notes = denoiser().facts(tmp_path).notes
    assert any("'timestep' is taken for the timestep" in note for note in notes)
    assert any("encoder_hidden_states, pooled_projections: taken for prompt" in n for n in notes)


def test_a_timestep_without_its_name_is_told_by_its_sinusoid(tmp_path: Path) -> None:
    d = Drawing()
    latent, time = d.input("arg0", B, S, 8), d.input("arg1", B)
    angles = d.op("Mul", d.unsqueeze(time, 1), d.constant(np.ones((1, 4))))
    wave = d.op("Concat", d.op("Sin", angles), d.op("Cos", angles), axis=1)
    shift = d.unsqueeze(d.linear("time", wave, 8, 8), 1)
    d.linear("body", d.op("Add", latent, shift), 8, 8)
    facts = d.facts(tmp_path)
    assert (facts.timestep, facts.prompt_inputs) == ("arg1", ())
    assert [entry.site for entry in facts.timestep_only] == ["time"]


def test_without_a_timestep_nothing_is_timestep_only(tmp_path: Path) -> None:
    d = Drawing()
    d.linear("site", d.input("x", B, 8), 8, 8)
    facts = d.facts(tmp_path)
    assert facts.timestep is None
    assert facts.timestep_only == ()
    assert any("--timestep" in note for note in facts.notes)


def test_shapes_and_types_are_no_values(tmp_path: Path) -> None:
    d = Drawing()
    latent, time = d.input("hidden_states", B, S, 8), d.input("timestep", "one")
    batch = d.op("Shape", latent, end=1)
    wide = d.op("CastLike", d.op("Expand", time, batch), latent)
    zeros = d.op("ConstantOfShape", batch)
    d.linear("site", d.op("Add", d.unsqueeze(wide, 1), d.unsqueeze(zeros, 1)), 1, 8)
    assert [e.site for e in d.facts(tmp_path).timestep_only] == ["site"]


def test_a_random_operator_is_no_constant(tmp_path: Path) -> None:
    d = Drawing()
    time = d.unsqueeze(d.input("timestep", B), 1)
    noise = d.op("RandomNormalLike", time)
    d.linear("noisy", d.op("Add", time, noise), 1, 8)
    d.linear("quiet", time, 1, 8)
    assert [e.site for e in d.facts(tmp_path).timestep_only] == ["quiet"]


def test_unknown_operators_pass_every_input_on_and_are_noted(tmp_path: Path) -> None:
    d = Drawing()
    latent, time = d.input("hidden_states", B, 8), d.unsqueeze(d.input("timestep", B), 1)
    d.linear("mixed", d.op("Mystery", time, latent, domain="my.ops"), 8, 8)
    d.linear("alone", d.op("Mystery", time, domain="my.ops"), 1, 8)
    # An operator of another domain that is merely called Shape reads values, for all we know.
    d.linear("called shape", d.op("Shape", latent, time, domain="my.ops"), 8, 8)
    facts = d.facts(tmp_path)
    assert [e.site for e in facts.timestep_only] == ["alone"]
    notes = [note for note in facts.notes if "unknown" in note]
    assert notes == [
        "operator my.ops::Mystery (2 nodes) is unknown: taken as opaque, its outputs depend on "
        "all of its inputs",
        "operator my.ops::Shape (1 node) is unknown: taken as opaque, its outputs depend on "
        "all of its inputs",
    ]


def test_branches_depend_on_what_they_read(tmp_path: Path) -> None:
    d = Drawing()
    latent, time = d.input("hidden_states", B, 8), d.unsqueeze(d.input("timestep", B), 1)
    none = helper.make_tensor_value_info

    def branch(name: str, source: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(list(nodes), name, [], [none(source, 1, None)])

    product = helper.make_node("MatMul", [latent, d.constant(np.eye(8))], ["inner"])
    # The first branch answers with a tensor of the outer graph.
    chosen = d.op(
        "If",
        d.op("Greater", d.op("ReduceMax", time, keepdims=0), d.constant(0)),
        then_branch=branch("then", time),
        else_branch=branch("else", "inner", product),
    )
    d.linear("chosen", chosen, 8, 8)
    d.linear("alone", time, 1, 8)
    facts = d.facts(tmp_path)
    assert [e.site for e in facts.timestep_only] == ["alone"]
    assert "1 MatMul, Gemm or Conv inside control flow: left in float" in facts.notes


def test_weights_that_serve_two_sites_are_told(tmp_path: Path) -> None:
    d = Drawing()
    weight = d.constant(np.eye(8))
    x = d.input("x", B, 8)
    d.op("MatMul", d.op("MatMul", x, weight, name="one"), weight, name="two")
    facts = d.facts(tmp_path)
    assert len(facts.sites) == 2
    for site in facts.sites:
        (reason,) = reasons(facts, site.name)
        assert "serves 2 sites" in reason
    assert facts.rejections[0].nodes == ("n:one", "n:two")


def test_nodes_out_of_order_are_refused(tmp_path: Path) -> None:
    d = Drawing()
    d.linear("two", d.linear("one", d.input("x", B, 8), 8, 8), 8, 8)
    d.nodes.reverse()
    with pytest.raises(SegQuantError, match="before it is computed"):
        d.facts(tmp_path)


def _wired(*nodes: onnx.NodeProto) -> bytes:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 8])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 8])
    weight = onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    recursive = helper.make_function(
        "local", "Again", ["a"], ["b"],
        [helper.make_node("Again", ["a"], ["b"], domain="local")],
        [helper.make_opsetid("local", 1)],
    )  # fmt: skip
    model = helper.make_model(
        helper.make_graph(nodes, "wired", [x], [y], [weight]),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("local", 1)],
        functions=[recursive],
    )
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        (["nobody", "w"], "reads 'nobody', which nothing provides"),
        (["", "w"], "is a MatMul that lacks an operand"),
        (["w"], "is a MatMul that lacks an operand"),
    ],
)
def test_products_need_what_they_read(inputs: list[str], complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "wired.onnx"
    path.write_bytes(_wired(helper.make_node("MatMul", inputs, ["y"], name="site")))
    with pytest.raises(SegQuantError, match=f"'site' {complaint}"):
        analyze(path)


def test_tensors_are_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "wired.onnx"
    twice = [helper.make_node("MatMul", ["x", "w"], ["y"], name=name) for name in "ab"]
    path.write_bytes(_wired(*twice))
    with pytest.raises(SegQuantError, match="'a' computes 'y', and it is not alone"):
        analyze(path)


def test_functions_that_call_themselves_are_opaque(tmp_path: Path) -> None:
    path = tmp_path / "wired.onnx"
    path.write_bytes(
        _wired(
            helper.make_node("Again", ["x"], ["h"], domain="local"),
            helper.make_node("MatMul", ["h", "w"], ["y"], name="site"),
        )
    )
    facts = analyze(path)
    assert [site.name for site in facts.sites] == ["site"]
    assert any("local::Again" in note for note in facts.notes)


def test_local_functions_are_looked_into(tmp_path: Path) -> None:
    d = Drawing()
    x = d.op("Gated", d.input("x", B, 8), domain="local")
    d.linear("site", x, 8, 8)
    model = d.model()
    model.functions.append(helper.make_function(
        "local", "Gated", ["a"], ["c"],
        [helper.make_node("Sigmoid", ["a"], ["b"]), helper.make_node("Mul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 21)],
    ))  # fmt: skip
    path = tmp_path / "functions.onnx"
    path.write_bytes(model.SerializeToString())
    facts = analyze(path)
    assert [entry.activation for entry in facts.polarity] == ["silu"]
    assert not any("unknown" in note for note in facts.notes)
