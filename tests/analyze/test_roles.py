"""Sites and roles of small denoisers, labelled by hand from diffusers' modules."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from segquant_trt.analyze import analyze
from segquant_trt.errors import SegQuantError
from segquant_trt.records import GraphFacts

# Written from the modules' forward methods, not from what analyze answers.
EXPECTED = {
    "sd15": {
        "embedder": ["conv_in"],
        "modulation": ["time_embedding.*", "*.time_emb_proj"],
        "final": ["conv_out"],
    },
    "sdxl": {
        "embedder": ["conv_in"],
        "modulation": ["time_embedding.*", "add_embedding.*", "*.time_emb_proj"],
        "final": ["conv_out"],
    },
    "sd3": {
        "embedder": ["pos_embed.proj", "context_embedder"],
        "modulation": ["time_text_embed.*", "*.norm1.linear", "*.norm1_context.linear",
                       "norm_out.linear"],
        "final": ["proj_out"],
    },
    "flux": {
        "embedder": ["x_embedder", "context_embedder"],
        "modulation": ["time_text_embed.*", "*.norm1.linear", "*.norm1_context.linear",
                       "*.norm.linear", "norm_out.linear"],
        "final": ["proj_out"],
    },
}  # fmt: skip


def label(kind: str, module: str) -> str:
    """The hand label of a module."""
    for role, patterns in EXPECTED[kind].items():
        if any(fnmatch.fnmatchcase(module, pattern) for pattern in patterns):
            return role
    return "body"


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_roles_are_those_of_the_modules(kind: str, exported_tiny: dict[str, Path]) -> None:
    facts = analyze(exported_tiny[kind] / "model.onnx")
    wrong = {
        site.module: (site.role, label(kind, site.module or ""))
        for site in facts.sites
        if site.role != label(kind, site.module or "")
    }
    assert wrong == {}
    assert {site.role for site in facts.sites} == {"body", "embedder", "modulation", "final"}


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_every_linear_and_convolution_is_a_site(
    kind: str, exported_tiny: dict[str, Path], tiny_linears: dict[str, dict[str, tuple[int, int]]]
) -> None:
    facts = analyze(exported_tiny[kind] / "model.onnx")
    found = {site.module: (site.in_features, site.out_features) for site in facts.sites}
    assert found == tiny_linears[kind]


def test_layouts_and_biases_of_flux(exported_tiny: dict[str, Path]) -> None:
    facts = analyze(exported_tiny["flux"] / "model.onnx")
    assert all(site.weight_layout == "NK" for site in facts.sites)
    assert all(site.bias == f"{site.module}.bias" for site in facts.sites)
    assert all(site.weight == f"{site.module}.weight" for site in facts.sites)


def test_what_hangs_on_the_timestep_alone(exported_tiny: dict[str, Path]) -> None:
    assert modules(analyze(exported_tiny["flux"] / "model.onnx")) == {
        "time_text_embed.timestep_embedder.linear_1",
        "time_text_embed.timestep_embedder.linear_2",
    }
    in_sd15 = modules(analyze(exported_tiny["sd15"] / "model.onnx"))
    assert {"time_embedding.linear_1", "time_embedding.linear_2"} < in_sd15
    assert all("time_" in module for module in in_sd15)


def modules(facts: GraphFacts) -> set[str]:
    """Modules of the sites that depend on the timestep alone."""
    only = {entry.site for entry in facts.timestep_only}
    return {site.module or "" for site in facts.sites if site.name in only}


def test_an_unknown_timestep_is_refused(exported_tiny: dict[str, Path]) -> None:
    with pytest.raises(SegQuantError, match="no input 'time'"):
        analyze(exported_tiny["flux"] / "model.onnx", timestep="time")


def test_files_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(SegQuantError, match="does not exist"):
        analyze(path)
    path.write_bytes(b"not a protobuf at all, certainly no graph")
    with pytest.raises(SegQuantError, match=r"model\.onnx"):
        analyze(path)


def test_inputs_of_unknown_rank_are_no_vectors(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    weights = [numpy_helper.from_array(np.ones((8, 8), np.float32), name) for name in "abc"]
    names = ["x", "one", "two", "y"]
    nodes = [
        helper.make_node("MatMul", [names[i], "abc"[i]], [names[i + 1]], name=f"site{i}")
        for i in range(3)
    ]
    path = tmp_path / "bare.onnx"
    graph = helper.make_graph(nodes, "bare", [x], [y], weights)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    roles = {site.name: site.role for site in analyze(path).sites}
    assert roles == {"site0": "embedder", "site1": "body", "site2": "final"}
