"""Counted work against torch's own count, formulas against graphs, and FLUX by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from segquant_trt.bench.published import PUBLISHED, Published, published_for
from segquant_trt.bench.work import Work, has_codes, repeats_of, work_of
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.qdq import mark_product
from segquant_trt.models import family_for
from tests.bundles import WIDTH, make_bundle
from tests.golden.catalogue import GRAPHS, packed_path, read_graph
from tests.golden.families import FAMILIES
from tests.small_graphs import save_graph

# The exporter drops what the module computes for nobody: Qwen's last text stream. Its optimiser
# computes DiT's embedding of the timestep once, the module once per block.
UNUSED_MACS = {"qwen": 145_152 + 18_144, "dit.optimized": 21_024}
# Products without bias are batched ones for torch, as attention's are; Sana's own attention has
# no softmax.
ATTENTION_ALONE = ("sd15", "flux", "pixart", "dit", "hunyuan", "wan", "cogvideox", "qwen")


def everything(_: str) -> bool:
    return True


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors by underscored name."""
    found: dict[str, tuple[int, ...]] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}_")
        elif hasattr(value, "shape"):
            found[f"{prefix}{name}"] = tuple(value.shape)
    return found


def torch_counts(family: str) -> tuple[int, int, dict[str, tuple[int, ...]]]:
    """All multiply-accumulates of the module as torch runs it, those of batched products among
    them, and the shapes of its inputs."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    example = FAMILIES[family]()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        example.module(**example.inputs, **example.constants)
    counts = {str(op): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}
    batched = sum(macs for op, macs in counts.items() if "bmm" in op)
    return sum(counts.values()), batched, flat(example.inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_work_is_what_torch_counts(family: str) -> None:
    total, batched, shapes = torch_counts(family)
    names = [name for name, (owner, _) in GRAPHS.items() if owner == family]
    assert names
    for name in names:
        model = read_graph(packed_path(name))
        given = {
            value.name: shapes.get(value.name.replace(".", "_"), ()) for value in model.graph.input
        }
        found = work_of(model, given, coded=everything)
        unused = UNUSED_MACS.get(family, 0) + UNUSED_MACS.get(name, 0)
        assert found.total == total - unused, name
        assert 0 < found.attention <= batched, name
        if family in ATTENTION_ALONE:
            assert (found.attention, found.other) == (batched, 0), name


def attention_graph(folder: Path) -> Path:
    """Queries from `x` by a linear, keys and values `x` itself; a product that is no attention."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], name="to_q"),
        helper.make_node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["raw"], name="scores"),
        helper.make_node("Mul", ["raw", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["o"], name="mix"),
        helper.make_node("MatMul", ["k", "o"], ["y"], name="gram"),
    ]
    weights = {"w": np.ones((5, 5), np.float32), "scale": np.float32(0.5)}
    inputs = {"x": ["batch", "tokens", 5]}
    return save_graph(folder / "model.onnx", nodes, inputs, ["y"], weights)


def test_each_product_is_counted_as_what_it_is(tmp_path: Path) -> None:
    model = load_graph(attention_graph(tmp_path))
    rows, width = 3 * 7, 5
    linear, attention = rows * width * width, 2 * rows * 7 * width
    found = work_of(model, {"x": (3, 7, 5)}, coded=everything)
    assert found == Work(coded=linear, attention=attention, other=width * width * rows)
    in_float = work_of(model, {"x": (3, 7, 5)}, coded=lambda site: site != "to_q")
    assert in_float == Work(coded=0, attention=attention, other=linear + width * width * rows)
    assert not has_codes(model)


def test_a_rewritten_graph_says_itself_what_is_coded(tmp_path: Path) -> None:
    bundle, _ = make_bundle(tmp_path)
    model = load_graph(bundle / "model.onnx")
    found = work_of(model, {"x": (3, 8, WIDTH), "e": (3, WIDTH)}, folder=bundle)
    assert has_codes(model)
    assert found == Work(coded=3 * 8 * WIDTH**2 + 3 * WIDTH**2, attention=0, other=0)


def dual_graph(folder: Path, *, shared: bool) -> Path:
    """`fc` as a product per polarity, of one weight's codes or of two copies of them."""
    nodes = [helper.make_node("Relu", ["x"], ["high"]), helper.make_node("Neg", ["x"], ["low"])]
    codes = np.ones((6, 4), np.int8)
    weights: dict[str, Any] = {"w0": codes, "w1": codes, "s": np.float32(0.1), "z": np.int8(0)}
    for at, source in enumerate(("high", "low")):
        nodes += [
            helper.make_node("QuantizeLinear", [source, "s", "z"], [f"c{at}"]),
            helper.make_node("DequantizeLinear", [f"c{at}", "s", "z"], [f"d{at}"]),
            helper.make_node("DequantizeLinear", ["w0" if shared else f"w{at}", "s"], [f"v{at}"]),
            helper.make_node("MatMul", [f"d{at}", f"v{at}"], [f"p{at}"], name=f"fc_{at}"),
        ]
        mark_product(nodes[-1], "fc")
    nodes.append(helper.make_node("Sub", ["p0", "p1"], ["y"]))
    return save_graph(folder / "model.onnx", nodes, {"x": ["rows", 6]}, ["y"], weights)


@pytest.mark.parametrize("shared", [True, False])
def test_a_product_per_polarity_is_work_on_top(shared: bool, tmp_path: Path) -> None:
    model = load_graph(dual_graph(tmp_path, shared=shared))
    one, three = {"x": (1, 6)}, {"x": (3, 6)}
    wanted = Work(coded=3 * 24, attention=0, other=0, repeated=3 * 24)
    repeats = repeats_of(model, one, {"fc": 24, "gone": 7}, folder=tmp_path)
    assert repeats == {"fc": 2.0}
    assert repeats_of(model, one, {"fc": 11}, folder=tmp_path) == {"fc": 1.0}
    assert work_of(model, three, folder=tmp_path, repeats=repeats) == wanted
    assert (work_of(model, three, folder=tmp_path) == wanted) is shared


def test_a_shape_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unknown", ["x"], ["u"], domain="somewhere"),
        helper.make_node("MatMul", ["u", "w"], ["y"], name="fc"),
    ]
    path = tmp_path / "model.onnx"
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", 1, ["n", 4])],
            [helper.make_tensor_value_info("y", 1, None)],
            [helper.make_tensor("w", 1, [4, 4], np.ones(16, np.float32))],
        ),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("somewhere", 1)],
    )
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SegQuantError, match=r"the shape of '.' at MatMul 'fc' cannot be told"):
        work_of(load_graph(path), {"x": (2, 4)})


def torch_macs(module: Any, arguments: dict[str, Any]) -> int:
    """What torch runs, attention taken apart into its two products."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(**arguments)
    return int(counter.get_total_flops()) // 2


SMALL = {"num_attention_heads": 3, "joint_attention_dim": 40, "pooled_projection_dim": 24}
UNET = {
    "block_out_channels": [32, 64, 96],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"],
    "norm_num_groups": 8,
    "attention_head_dim": 8,
    "cross_attention_dim": 20,
}
VARIANTS = {
    "flux": ("FluxTransformer2DModel", {**SMALL, "num_single_layers": 1}),
    "flux guided": ("FluxTransformer2DModel", {**SMALL, "guidance_embeds": True}),
    "sd3": ("SD3Transformer2DModel", {**SMALL, "caption_projection_dim": 192}),
    "sd3.5 medium": (
        "SD3Transformer2DModel",
        {**SMALL, "caption_projection_dim": 192, "dual_attention_layers": [0]},
    ),
    "unet": ("UNet2DConditionModel", UNET),
    "unet, deeper": (
        "UNet2DConditionModel",
        {
            **UNET,
            "layers_per_block": 2,
            "transformer_layers_per_block": [1, 2, 3],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 64,
        },
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_formulas_agree_with_torch(variant: str) -> None:
    import torch

    class_name, changes = VARIANTS[variant]
    family = family_for(class_name)
    config = family.complete({})
    config = (config if variant.startswith("unet") else family.cut(config)) | changes
    lengths = {"height": 8, "width": 12, "tokens": 12, "text": 7, "batch": 1}
    inputs = family.example_inputs(config, lengths)
    arguments = family.nest({name: torch.from_numpy(x) for name, x in inputs.items()})
    count = next(one.count for one in PUBLISHED if one.class_name == class_name)
    assert count(config, lengths).total == torch_macs(family.build(config), arguments)


# What the formulas do not ask for, and torch must know to build the module.
BESIDE_WORK: dict[str, dict[str, Any]] = {
    "FluxTransformer2DModel": {"axes_dims_rope": [16, 56, 56]},
    "SD3Transformer2DModel": {"caption_projection_dim": 2432, "pos_embed_max_size": 192},
    "UNet2DConditionModel": {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "sample_size": 128,
    },
}


@pytest.mark.parametrize("published", PUBLISHED, ids=[one.name for one in PUBLISHED])
def test_published_work_is_what_torch_counts(published: Published) -> None:
    """The whole model at its whole size, without weights or values."""
    import torch

    family = family_for(published.class_name)
    given = {**published.config, **BESIDE_WORK[published.class_name]}
    config = family.complete({k: list(v) if isinstance(v, tuple) else v for k, v in given.items()})
    lengths = {**published.lengths, "batch": 1}
    shapes = {name: x.shape for name, x in family.example_inputs(config, lengths).items()}
    with torch.device("meta"):
        module = family.build(config)
        arguments = family.nest({name: torch.empty(shape) for name, shape in shapes.items()})
        assert published.work().total == torch_macs(module, arguments)


def test_published_sizes_are_those_of_the_families() -> None:
    for published in PUBLISHED:
        family = family_for(published.class_name)
        config = family.complete({**published.config, **BESIDE_WORK[published.class_name]})
        typical = {axis.name: axis.typical for axis in family.sizes(config)}
        assert published.lengths == {name: typical[name] for name in published.lengths}
    assert published_for("UNet1DModel") is published_for(None) is None


def test_flux_by_hand() -> None:
    """Width 3072, 19 + 38 blocks, 4096 image and 512 text tokens: a fifth is attention."""
    tokens, width, blocks = 4608, 3072, 57
    linears = blocks * tokens * 12 * width * width
    attention = blocks * 2 * tokens * tokens * width
    flux = published_for("FluxTransformer2DModel")
    assert flux is not None
    found = flux.work()
    assert (found.coded, found.attention) == (linears, attention)
    assert 0.199 < found.attention / found.total < 0.201
    assert found.other / found.total < 0.001
