"""A strongly typed network from an ONNX graph, its weights read from where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.errors import SegQuantError

if TYPE_CHECKING:
    import tensorrt as trt

    from segquant_trt.backends.tensorrt.installed import Installed

_SHOWN_ERRORS = 5
_HINTS = {
    "UNSUPPORTED_NODE": "TensorRT has no such operator: give the plugin library that has it, or "
    "keep this part out of the graph",
    "INVALID_GRAPH": "the graph is ill-formed; export or rewrite the model again",
    "MODEL_DESERIALIZE_FAILED": "the file is no ONNX model, or a weight file is missing beside it",
    "MEM_ALLOC_FAILED": "this machine has not enough memory for the weights; close other programs",
}
_OTHERWISE = "'segquant-trt lint' names rules that a graph breaks; see the verbose log for more"


def make_network(
    tensorrt: Installed, builder: trt.Builder, graph: bytes, folder: Path
) -> tuple[trt.INetworkDefinition, trt.OnnxParser]:
    """Parse `graph`, whose external data is in `folder`.

    The parser is handed back too: it owns the weights, and has to outlive the network.

    Raises:
        SegQuantError: TensorRT refuses the graph; every error is told with its node.
    """
    module = tensorrt.module
    # The flag's number differs between 10.x and 11.
    flags = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: trt.INetworkDefinition = builder.create_network(flags)
    logger = tensorrt.log.logger(module)
    parser: trt.OnnxParser = module.OnnxParser(network, logger)
    # Only the path's folder is used: it is where external data is sought.
    if not parser.parse(graph, str(folder / "model.onnx")):
        raise _refused(_errors(parser), tensorrt.log.reason())
    if network.num_outputs == 0:
        raise SegQuantError("TensorRT found no output in the graph", hint="export the model again")
    return network, parser


def parser_messages(parser: trt.OnnxParser | trt.OnnxParserRefitter) -> list[str]:
    """Every error of a parser, in its words, with the node that it speaks of."""
    return [text for text, _ in _errors(parser)]


def _errors(parser: trt.OnnxParser | trt.OnnxParserRefitter) -> list[tuple[str, str]]:
    return [_error(parser.get_error(index)) for index in range(parser.num_errors)]


def _error(error: trt.ParserError) -> tuple[str, str]:
    where = ""
    if error.node_name() or error.node_operator():
        where = f"node '{error.node_name()}' ({error.node_operator()}): "
    stack = error.local_function_stack()
    inside = f" [in {' > '.join(stack)}]" if stack else ""
    return f"{where}{error.desc()}{inside}", error.code().name


def _refused(errors: Sequence[tuple[str, str]], reason: str) -> SegQuantError:
    if not errors:
        return SegQuantError(f"TensorRT refuses the graph: {reason}", hint=_OTHERWISE)
    shown = [text for text, _ in errors[:_SHOWN_ERRORS]]
    more = len(errors) - len(shown)
    if more:
        shown.append(f"and {more} more")
    (_, code) = errors[0]
    head = "TensorRT refuses the graph"
    return SegQuantError(
        f"{head}: {shown[0]}" if len(shown) == 1 else "\n    ".join([f"{head}:", *shown]),
        hint=next((hint for key, hint in _HINTS.items() if code.startswith(key)), _OTHERWISE),
    )


def input_shapes(network: trt.INetworkDefinition) -> dict[str, tuple[int, ...]]:
    """Shapes of the network's inputs; -1 where a length is dynamic."""
    tensors: list[Any] = [network.get_input(index) for index in range(network.num_inputs)]
    return {_name(tensor): _shape(tensor) for tensor in tensors}


def _name(tensor: trt.ITensor) -> str:
    return str(tensor.name)


def _shape(tensor: trt.ITensor) -> tuple[int, ...]:
    return tuple(int(length) for length in tensor.shape)
