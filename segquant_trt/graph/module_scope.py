"""The torch module that a node came from, as far as the exporter told."""

from __future__ import annotations

import ast

from onnx import NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"


def module_scope(node: NodeProto) -> str | None:
    """The torch module path of `node`, or None.

    torch's dynamo exporter records it in the metadata; its TorchScript exporter calls nodes
    `/down_blocks.0/attn/to_q/MatMul`.
    """
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            return _from_metadata(entry.value)
    return _from_name(node.name) if node.name.startswith("/") else None


def _from_metadata(text: str) -> str | None:
    try:
        scopes = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None
    names = [str(scope) for scope in scopes if scope]
    return names[-2] if len(names) > 1 else None


def _from_name(name: str) -> str | None:
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        # Children of a module that is called itself repeat its name: /net/net.0/proj/MatMul.
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts) or None
