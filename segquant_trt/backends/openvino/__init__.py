"""OpenVINO on x86 CPUs: the second target, an extra."""

from segquant_trt.backends.openvino.backend import OpenVino
from segquant_trt.backends.openvino.session import float_session

__all__ = ["OpenVino", "float_session"]
