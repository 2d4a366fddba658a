"""From a fake module to an ONNX graph whose weights have names and no values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segquant_trt.export.lower import lower
from segquant_trt.export.sizes import TRACED, lengths_of
from segquant_trt.models.family import Family, concrete_shape

if TYPE_CHECKING:
    import onnx_ir as ir


def trace(module: Any, mode: Any, family: Family, config: Mapping[str, Any]) -> ir.Model:
    """Trace `module` with dynamic axes; every weight keeps its state-dict name.

    Args:
        module: a module from `fake_module`, and `mode` its FakeTensorMode.

    Raises:
        SegQuantError: the module does not run on inputs that its configuration describes.
    """
    import torch

    with family.described():
        lengths = lengths_of(family.sizes(config), TRACED)
        specs = family.inputs(config)
    with mode:
        inputs = {
            spec.name: torch.zeros(concrete_shape(spec, lengths), dtype=getattr(torch, spec.dtype))
            for spec in specs
        }
    # Named dimensions would reject batch 1 (torch guards against broadcasting it); these accept
    # every length that the check at other sizes then proves.
    shapes = {
        name: dict.fromkeys(named, torch.export.Dim.DYNAMIC)
        for name, named in family.input_axes(config).items()
    }
    with family.described(), warnings.catch_warnings(), torch.no_grad(), mode:
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module,
            args=(),
            kwargs=family.nest(inputs) | {"return_dict": False},
            dynamic_shapes=family.nest(shapes) | {"return_dict": None},
            strict=False,
        )
    model = lower(program)
    _name_interface(model, tuple(spec.name for spec in specs))
    return model


def _name_interface(model: ir.Model, names: tuple[str, ...]) -> None:
    """Give graph inputs their flat dotted names; torch writes dots as underscores."""
    by_torch_name = {name.replace(".", "_"): name for name in names}
    for value in model.graph.inputs:
        assert value.name is not None
        value.name = by_torch_name.pop(value.name)
    assert not by_torch_name, f"inputs lost in the trace: {sorted(by_torch_name.values())}"
    by_name = {value.name: value for value in model.graph.inputs}
    model.graph.inputs.clear()
    model.graph.inputs.extend(by_name[name] for name in names)
