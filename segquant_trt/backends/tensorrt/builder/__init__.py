"""Building engines with TensorRT 10.9 to 11.x."""

from segquant_trt.backends.tensorrt.builder.build import BuildResult, build_engine
from segquant_trt.backends.tensorrt.builder.request import (
    BuildRequest,
    Prepared,
    Preview,
    prepare,
)
from segquant_trt.backends.tensorrt.builder.trtexec import (
    make_profile,
    make_profiles,
    parse_pools,
    parse_shapes,
    trtexec_command,
)

__all__ = [
    "BuildRequest",
    "BuildResult",
    "Prepared",
    "Preview",
    "build_engine",
    "make_profile",
    "make_profiles",
    "parse_pools",
    "parse_shapes",
    "prepare",
    "trtexec_command",
]
