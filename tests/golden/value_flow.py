"""Follow values through a torch module while it runs: a second opinion on the labels.

Torch functions are watched by name, tensors by identity. It knows the constructs of diffusers'
sources and no ONNX.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

LAYERS = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_SAME = {"dropout", "to", "float", "contiguous", "type_as"}
_SHAPING = {"reshape", "view", "transpose", "permute", "flatten", "unflatten", "unsqueeze"}
_NORMS = {"group_norm", "layer_norm"}
_ATTENTION = {"scaled_dot_product_attention", "matmul"}
_GATED = {"silu": "swiglu", "gelu": "geglu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Channels `start` to `start + width` of a module's output, along `axis`."""

    module: str
    axis: int
    start: int
    width: int
    rows: bool = False  # a 2-D output folded to [B, rows, width]


@dataclass(slots=True, kw_only=True)
class Flow:
    """What was seen, by module name."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    joined: dict[str, tuple[int, ...]] = field(default_factory=dict)
    merged: dict[str, tuple[int, ...]] = field(default_factory=dict)
    activations: set[tuple[str, int | None, str]] = field(default_factory=set)
    pieces: dict[str, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))

    def divided(self, module: str) -> tuple[int, ...]:
        """Widths of the finest pieces of the module's output."""
        found = self.pieces[module]
        edges = sorted({edge for start, width in found for edge in (start, start + width)})
        return tuple(b - a for a, b in itertools.pairwise(edges))


class _Watch(TorchFunctionMode):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        self.layer: str | None = None
        self._alive: list[torch.Tensor] = []
        self._activation: dict[int, str] = {}
        self._parts: dict[int, tuple[int, tuple[int, ...], tuple[str | None, ...]]] = {}
        self._heads: dict[int, tuple[int, int]] = {}
        self._merged: dict[int, tuple[int, ...]] = {}
        self._piece: dict[int, Piece] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = (resolve_name(func) or "").rsplit(".", 1)[-1]
        outputs = result if isinstance(result, tuple | list) else (result,)
        self._alive += [tensor for tensor in outputs if isinstance(tensor, torch.Tensor)]
        if isinstance(result, torch.Tensor):
            self._one(name, result, args, kwargs)
        elif name in ("chunk", "split", "split_with_sizes"):
            self._divided(args[0], result, kwargs.get("dim", args[2] if len(args) > 2 else 0))
        return result

    def _one(self, name: str, out: torch.Tensor, args: Any, kwargs: Any) -> None:
        source = args[0] if args else None
        if name in ("linear", "conv1d", "conv2d", "conv3d") and self.layer:
            self._called(self.layer, source, out, axis=out.ndim - 1 if name == "linear" else 1)
        elif name in ("silu", "gelu"):
            tanh = kwargs.get("approximate") == "tanh"
            self._activation[id(out)] = f"{name}_tanh" if tanh else name
            self._keep(out, source, self._parts)
        elif name in ("cat", "concat"):
            self._cat(out, source, kwargs.get("dim", args[1] if len(args) > 1 else 0))
        elif name in ("mul", "__mul__"):
            tags = [self._activation.get(id(x)) for x in args]
            gates = [tag for tag in tags if tag in _GATED]
            if gates and all(isinstance(x, torch.Tensor) for x in args):
                self._activation[id(out)] = _GATED[str(gates[0])]
        elif name in ("add", "__add__"):
            for source in args:
                if id(source) in self._piece and self._piece[id(source)].rows:
                    self._keep(out, source, self._piece)
        else:
            self._shaped(name, out, args)

    def _shaped(self, name: str, out: torch.Tensor, args: Any) -> None:
        source = args[0] if args else None
        if name in _ATTENTION and out.ndim == 4:
            self._heads[id(out)] = (out.shape[1], out.shape[3 if name != "matmul" else 2])
        if name in _SAME | _SHAPING:
            self._keep(out, source, self._activation)
        if name in _SAME | _NORMS:
            self._keep(out, source, self._parts)
        if name in _SAME | {"unsqueeze"}:
            self._keep(out, source, self._piece)
        if name == "__getitem__":
            self._sliced(source, out, args[1])
        if name in ("reshape", "unflatten") and out.ndim == 3:
            self._folded(source, out)
        self._merge(name, source, out)

    def _merge(self, name: str, source: Any, out: torch.Tensor) -> None:
        heads = self._heads.get(id(source))
        if heads and name in ("reshape", "flatten") and heads[0] * heads[1] in out.shape[1:]:
            self._merged[id(out)] = (heads[1],) * heads[0]
        elif heads and out.ndim == 4:
            # A row of sums that linear attention carries along is cut off again.
            rows = out.shape[2] if name == "__getitem__" else heads[1]
            self._heads[id(out)] = (heads[0], rows)
        elif name in _SAME | {"transpose", "__getitem__"} and out.ndim == 3:
            self._keep(out, source, self._merged)

    def _called(self, layer: str, source: torch.Tensor, out: torch.Tensor, *, axis: int) -> None:
        contraction = source.ndim - 1 if axis != 1 or source.ndim == 2 else 1
        self.flow.inputs[layer] = source
        parts = self._parts.get(id(source))
        if parts and parts[0] == contraction:
            self.flow.joined[layer] = parts[1]
        if id(source) in self._activation:
            self.flow.activations.add((layer, None, self._activation[id(source)]))
        elif parts and parts[0] == contraction:
            tagged = ((layer, i, tag) for i, tag in enumerate(parts[2]) if tag)
            self.flow.activations.update(tagged)
        if id(source) in self._merged:
            self.flow.merged[layer] = self._merged[id(source)]
        self._piece[id(out)] = Piece(module=layer, axis=axis, start=0, width=out.shape[axis])

    def _cat(self, out: torch.Tensor, tensors: Iterable[torch.Tensor], dim: int) -> None:
        axis = dim % out.ndim
        sizes: list[int] = []
        tags: list[str | None] = []
        for tensor in tensors:
            inner = self._parts.get(id(tensor))
            if inner and inner[0] == axis:
                sizes += inner[1]
                tags += inner[2]
            else:
                sizes.append(tensor.shape[axis])
                tags.append(self._activation.get(id(tensor)))
        self._parts[id(out)] = (axis, tuple(sizes), tuple(tags))

    def _divided(self, source: torch.Tensor, outputs: Iterable[torch.Tensor], dim: int) -> None:
        piece, axis = self._piece.get(id(source)), dim % source.ndim
        heads = self._merged.get(id(source))
        start = piece.start if piece else 0
        for out in outputs:
            if heads and axis == 1:
                self._merged[id(out)] = heads
            if piece and axis == (1 if piece.rows else self._axis(piece, source)):
                width = piece.width if piece.rows else out.shape[axis]
                self._found(piece, out, start, width)
                start += width

    def _sliced(self, source: torch.Tensor, out: torch.Tensor, index: Any) -> None:
        piece = self._piece.get(id(source))
        if piece is None or not isinstance(index, tuple) or index[0] is not Ellipsis:
            return
        last = index[-1]
        if isinstance(last, slice) and out.shape[-1] < source.shape[-1]:
            self._found(piece, out, piece.start + (last.start or 0), out.shape[-1])

    def _found(self, piece: Piece, out: torch.Tensor, start: int, width: int) -> None:
        self.flow.pieces[piece.module].add((start, width))
        self._piece[id(out)] = Piece(module=piece.module, axis=piece.axis, start=start, width=width)

    def _folded(self, source: Any, out: torch.Tensor) -> None:
        piece = self._piece.get(id(source))
        if piece and source.ndim == 2 and out.shape[1] * out.shape[2] == piece.width:
            self._piece[id(out)] = Piece(
                module=piece.module, axis=1, start=0, width=out.shape[2], rows=True
            )

    def _axis(self, piece: Piece, tensor: torch.Tensor) -> int:
        return 1 if piece.axis == 1 and tensor.ndim == 4 else tensor.ndim - 1

    def _keep(self, out: torch.Tensor, source: Any, tags: dict[int, Any]) -> None:
        if id(source) in tags:
            tags[id(out)] = tags[id(source)]


@contextmanager
def watched(module: torch.nn.Module) -> Iterator[Flow]:
    """Watch every Linear and convolution of `module` while the block runs it."""
    flow = Flow()
    watch = _Watch(flow)

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: setattr(watch, "layer", name)

    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, LAYERS):
            hooks.append(layer.register_forward_pre_hook(enter(name)))
            hooks.append(layer.register_forward_hook(lambda *_: setattr(watch, "layer", None)))
    try:
        with torch.no_grad(), watch:
            yield flow
    finally:
        for hook in hooks:
            hook.remove()
