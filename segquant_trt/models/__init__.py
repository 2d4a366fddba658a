"""Model families, where a model comes from, and how its denoising loop runs."""

from __future__ import annotations

from segquant_trt.errors import SegQuantError
from segquant_trt.models.family import Family
from segquant_trt.models.flux import Flux
from segquant_trt.models.sd3 import SD3
from segquant_trt.models.unet2d_condition import UNet2DCondition

FAMILIES: tuple[Family, ...] = (UNet2DCondition(), SD3(), Flux())


def family_for(class_name: str) -> Family:
    """The family of a diffusers denoiser class.

    Raises:
        SegQuantError: no family knows the class; the supported ones are listed.
    """
    for family in FAMILIES:
        if family.class_name == class_name:
            return family
    supported = ", ".join(family.class_name for family in FAMILIES)
    raise SegQuantError(
        f"denoiser class '{class_name}' is not supported; supported: {supported}",
        hint="choose a model of a supported class, or add a family under segquant_trt/models",
    )
