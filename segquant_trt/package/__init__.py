"""Write model repositories that a Triton server loads."""

from segquant_trt.package.built_engines import package_of, told_apart
from segquant_trt.package.bundle import package_bundle
from segquant_trt.package.engine_repository import package_engines
from segquant_trt.package.engines import EngineFile, EnginePackage, EngineProfile
from segquant_trt.package.options import ServingOptions

__all__ = [
    "EngineFile",
    "EnginePackage",
    "EngineProfile",
    "ServingOptions",
    "package_bundle",
    "package_engines",
    "package_of",
    "told_apart",
]
