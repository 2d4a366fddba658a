"""The OpenVINO backend: what its low-precision transformations fuse, and the proof of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.backends.base import Array, Runner, SiteProof, proof_of
from segquant_trt.backends.openvino.channels import name_channels
from segquant_trt.backends.openvino.kernels import kernels_of_products
from segquant_trt.backends.openvino.probe import exact_way, prepared
from segquant_trt.backends.openvino.session import (
    Session,
    compile_graph,
    float_session,
    openvino_module,
)
from segquant_trt.backends.placement import Placement
from segquant_trt.backends.widening import widen_int4
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.qdq import coded_products, site_of
from segquant_trt.graph.wiring import Wiring, node_name
from segquant_trt.records import Target

if TYPE_CHECKING:
    import onnx


class OpenVino:
    """Activations are uint8, weights int8 per output channel; outputs stay float.

    Symmetric codes are uint8 around 128 too. Of int8 codes OpenVINO (2025.3 to 2026.4, on every
    CPU) makes something else where nothing but their QuantizeLinear reads a Concat that feeds a
    convolution: it moves the step in front of the Concat and forgets the scale, so that values
    are rounded to whole numbers. A UNet's skips are such Concats: quantised as for TensorRT, with
    zero point 0, it came out at 2 dB instead of 22. Linears, and uint8 with any zero point, are
    exact.
    """

    target: Target = "openvino"
    stand_in: str | None = None
    placement = Placement(
        schemes=("symmetric", "shifted", "dual_scale", "dual_full"),
        linear_factors=("static", "per_token", "per_step"),
        convolution_factors=("static", "per_token", "per_step"),
        split_convolutions=True,
        dual_convolutions=True,
        mixed_segments=True,
        weight_bits=(8, 4),
        weight_only_bits=(8, 4),
        requantize_conv_output=False,
        output_channels=False,
        lift_linear_bias=False,
    )

    def float_session(
        self, model: onnx.ModelProto | bytes, folder: Path, *, threads: int | None = None
    ) -> Runner:
        """Open a float graph whose external data is in `folder`.

        Raises:
            SegQuantError: OpenVINO refuses the graph, or is not installed.
        """
        return float_session(model, folder, threads=threads)

    def open(self, model_path: Path, *, threads: int | None = None) -> Runner:
        """Open a rewritten graph; its data is beside it.

        Raises:
            SegQuantError: OpenVINO refuses the graph, or is not installed.
        """
        return _open(model_path, threads)

    def integer_sites(
        self, model_path: Path, sites: Sequence[str], *, example: Mapping[str, Array]
    ) -> dict[str, SiteProof]:
        """Look every site up in the runtime model, which lists the kernels that were chosen."""
        session = _open(model_path, 1)
        session.run(example)
        emitted = load_graph(model_path)
        kernels = kernels_of_products(session.compiled, emitted)
        products: dict[str, list[str | None]] = {site: [] for site in sites}
        for node, _ in coded_products(Wiring(emitted.graph)):
            if site_of(node) in products:
                products[site_of(node)] += kernels.get(node_name(node), [None])
        return {site: proof_of(found, _is_integer) for site, found in products.items()}

    def versions(self) -> dict[str, str]:
        """Version of OpenVINO."""
        return {"openvino": str(openvino_module().__version__).split("-")[0]}


def _open(model_path: Path, threads: int | None) -> Session:
    folder = model_path.parent
    model = name_channels(load_graph(model_path))
    widened = widen_int4(model, folder)
    graph, arrays = prepared(model, folder, exact_way(), widened)
    return Session(compile_graph(graph, folder, arrays, threads=threads))


def _is_integer(kernel: str) -> bool:
    # A float kernel on compressed weights reports int8 as its precision; only the kernel's
    # name tells what it multiplies.
    return kernel.lower().endswith("_i8")
