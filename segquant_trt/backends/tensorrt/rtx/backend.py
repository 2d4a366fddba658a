"""TensorRT-RTX as a target: float16 graphs whose codes are signed, built without a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.backends.base import Array, Runner, SiteProof
from segquant_trt.backends.onnxruntime import float_session, literal_session
from segquant_trt.backends.placement import Placement
from segquant_trt.backends.tensorrt.rtx.builder import available, build
from segquant_trt.backends.tensorrt.rtx.prove import products_of, prove
from segquant_trt.backends.tensorrt.rtx.shapes import ShapeRange
from segquant_trt.errors import MissingDependencyError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import Target

if TYPE_CHECKING:
    import onnx


class TensorRtRtx:
    """GeForce and RTX PRO GPUs.

    Where there is none, graphs run on ONNX Runtime as they are written: the same codes, sums in
    float32, and every tensor between operators in float16.
    """

    target: Target = "tensorrt-rtx"
    stand_in: str | None = "ONNX Runtime on the CPU, which executes the graph as it is written"
    placement = Placement(
        schemes=("symmetric", "shifted", "dual_scale", "dual_full"),
        linear_factors=("static", "per_token", "per_step"),
        convolution_factors=("static", "per_token", "per_step"),
        split_convolutions=False,
        dual_convolutions=True,
        mixed_segments=True,
        weight_bits=(8,),
        weight_only_bits=(),
        requantize_conv_output=False,
        output_channels=False,
        lift_linear_bias=False,
        signed_codes=True,
        scalar_weight_scales=True,
        float_type="float16",
    )

    def float_session(
        self, model: onnx.ModelProto | bytes, folder: Path, *, threads: int | None = None
    ) -> Runner:
        """Open a float graph whose external data is in `folder`, on ONNX Runtime."""
        return float_session(model, folder, threads=threads)

    def open(self, model_path: Path, *, threads: int | None = None) -> Runner:
        """Open a rewritten graph as it is written, on ONNX Runtime; its data is beside it."""
        return literal_session(model_path, threads=threads)

    def integer_sites(
        self, model_path: Path, sites: Sequence[str], *, example: Mapping[str, Array]
    ) -> dict[str, SiteProof]:
        """Build an engine, and look every site up in the builder's report of its layers."""
        products = products_of(load_graph(model_path))
        profile = {name: ShapeRange.fixed(*array.shape) for name, array in example.items()}
        engine = build(model_path, profiles=(profile,))
        wanted = {site: products.get(site, ()) for site in sites}
        return dict(prove(engine.report, wanted))

    def versions(self) -> dict[str, str]:
        """Version of TensorRT-RTX, and of what stands in for a GPU."""
        version = available()
        if version is None:
            raise MissingDependencyError(
                "tensorrt-rtx-cu13-bindings", extra="rtx", why="the target tensorrt-rtx"
            )
        import onnxruntime

        return {"tensorrt-rtx": version, "onnxruntime": str(onnxruntime.__version__)}
