"""Every name of TensorRT that the sources use, found by walking them.

Types are followed from annotations (`config: trt.IBuilderConfig`), from constructors and from what
methods return, as the snapshot says; the module itself is `module`, `trt` or anything's `.module`.
What a variable is that nothing tells, is not known; such uses are left to the fakes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.tensorrt.fake import Signature, load_snapshot, plain_type

MODULE = frozenset({"<module>"})
NOTHING: frozenset[str] = frozenset()
Types = frozenset[str]  # names of classes; "=Name" is the class itself, "Name.method" a method


@dataclass(frozen=True)
class Fault:
    """A use that a version does not admit."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


class Walker:
    """Checks sources against one version; `uses` are the names that were found to be there."""

    def __init__(self, version: str) -> None:
        snapshot = load_snapshot(version)
        self.classes: Mapping[str, Any] = snapshot["classes"]
        self.functions: Mapping[str, Any] = snapshot["functions"]
        self.faults: list[Fault] = []
        self.uses: set[str] = set()
        self.returned: dict[str, ast.AST] = {}  # by function of our own

    def walk(self, source: str, file: str) -> None:
        tree = ast.parse(source)
        self.learn(tree)
        fields = {
            node.name: _fields(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
        }
        for owner, function in _functions(tree):
            _Scope(self, file, fields.get(owner, {})).run(function)

    def learn(self, tree: ast.Module) -> None:
        """Remember what our own functions return."""
        for node in ast.walk(tree):
            returns = node.returns if isinstance(node, ast.FunctionDef) else None
            if isinstance(node, ast.FunctionDef) and returns and "trt." in ast.unparse(returns):
                self.returned[node.name] = returns

    def member(self, name: str, attribute: str, where: tuple[str, int]) -> Types:
        """Types of `name.attribute`, for `name` a type as in `Types`."""
        if name == "<module>":
            found = f"={attribute}" if attribute in self.classes else f".{attribute}"
            known = (
                attribute in self.classes or attribute in self.functions or attribute[:2] == "__"
            )
        elif name.startswith("="):
            found, known = self._of_class(name[1:], attribute)
        else:
            found, known = self._of_object(name, attribute)
        shown = f"{name.lstrip('=').replace('<module>', 'tensorrt')}.{attribute}"
        if known:
            self.uses.add(shown)
            return frozenset({found}) if found else NOTHING
        self.faults.append(Fault(*where, f"{shown} does not exist"))
        return NOTHING

    def _entries(self, name: str) -> Iterator[Mapping[str, Any]]:
        waiting = [name]
        while waiting:
            entry = self.classes.get(waiting.pop(0))
            if entry is not None:
                yield entry
                waiting += entry.get("bases", [])

    def _of_class(self, name: str, attribute: str) -> tuple[str, bool]:
        for entry in self._entries(name):
            if attribute in entry.get("members", {}):
                return name, True
            if attribute in entry.get("nested", {}):
                return "", True
            if attribute in entry.get("methods", {}):
                return "", True
        return "", False

    def _of_object(self, name: str, attribute: str) -> tuple[str, bool]:
        for entry in self._entries(name):
            if "members" in entry:
                return "", attribute in ("name", "value")
            if attribute in entry["methods"]:
                return f"{name}.{attribute}", True
            if attribute in entry["properties"]:
                return self._known(entry["properties"][attribute][0]), True
        return "", False

    def _known(self, kind: str) -> str:
        plain = plain_type(kind)
        return plain if plain in self.classes else ""

    def settable(self, name: str, attribute: str, where: tuple[str, int]) -> None:
        for entry in self._entries(name):
            found = entry.get("properties", {}).get(attribute)
            if found is not None:
                self.uses.add(f"{name}.{attribute}=")
                if not found[1]:
                    self.faults.append(Fault(*where, f"{name}.{attribute} cannot be set"))
                return
        self.faults.append(Fault(*where, f"{name}.{attribute} does not exist"))

    def call(self, name: str, node: ast.Call, where: tuple[str, int]) -> Types:
        """What calling a class or method gives; its arguments are counted."""
        if name.startswith("="):
            texts, returns = self._constructor(name[1:]), name[1:]
        elif "." in name:
            texts, returns = self._signatures(name), ""
        else:
            return NOTHING
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return NOTHING
        keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        fitting = [
            signature
            for signature in map(Signature.of, texts)
            if signature.bind([None] * len(node.args), keywords) is not None
        ]
        if not fitting:
            shown = f"{name.lstrip('=')} takes {texts}, not {ast.unparse(node)}"
            self.faults.append(Fault(*where, shown))
            return NOTHING
        result = returns or self._known(fitting[0].returns)
        return frozenset({result}) if result else NOTHING

    def _constructor(self, name: str) -> list[str]:
        return next((e["methods"]["__init__"] for e in self._entries(name) if e.get("methods")), [])

    def _signatures(self, name: str) -> list[str]:
        owner, _, method = name.partition(".")
        if not owner:
            return list(self.functions[method])
        return next(e["methods"][method] for e in self._entries(owner) if method in e["methods"])

    def annotation(self, node: ast.AST | None, where: tuple[str, int]) -> Types:
        """Classes that an annotation speaks of."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        if isinstance(node, ast.BinOp):
            return self.annotation(node.left, where) | self.annotation(node.right, where)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "trt":
            found = self.member("<module>", node.attr, where)
            return frozenset(name.lstrip("=") for name in found)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("trt."):
            outer = self.annotation(node.value, where)
            for name in outer:
                self.member(f"={name}", node.attr, where)
        return NOTHING


class _Scope:
    """The variables of one function, with those of the functions around it."""

    def __init__(self, walker: Walker, file: str, fields: Mapping[str, ast.AST]) -> None:
        self._walker = walker
        self._file = file
        self._fields = fields
        self._types: dict[str, Types] = {"module": MODULE, "trt": MODULE}

    def run(self, function: ast.FunctionDef) -> None:
        for argument in (
            *function.args.posonlyargs,
            *function.args.args,
            *function.args.kwonlyargs,
        ):
            found = self._walker.annotation(argument.annotation, self._at(argument))
            if found:
                self._types[argument.arg] = found
        self._walker.annotation(function.returns, self._at(function))
        for statement in function.body:
            self._visit(statement)

    def _at(self, node: ast.AST) -> tuple[str, int]:
        return self._file, getattr(node, "lineno", 0)

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef):
            inner = _Scope(self._walker, self._file, self._fields)
            inner._types |= self._types
            inner.run(node)
            return
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                self._type(base)
            for child in node.body:
                self._visit(child)
            return
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            self._assign(node)
            return
        if isinstance(node, ast.expr):
            self._type(node)
            return
        for child in ast.iter_child_nodes(node):
            self._visit(child)

    def _assign(self, node: ast.Assign | ast.AnnAssign) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        value = self._type(node.value) if node.value is not None else NOTHING
        if isinstance(node, ast.AnnAssign):
            value = self._walker.annotation(node.annotation, self._at(node)) or value
        for target in targets:
            if isinstance(target, ast.Tuple):
                self._unpack(target, node.value)
            elif isinstance(target, ast.Name):
                self._types[target.id] = value
            elif isinstance(target, ast.Attribute):
                for name in self._type(target.value):
                    if not name.startswith(("=", "<")) and "." not in name:
                        self._walker.settable(name, target.attr, self._at(target))

    def _unpack(self, target: ast.Tuple, value: ast.AST | None) -> None:
        annotation = self._own(value)
        parts = annotation.slice.elts if _is_tuple(annotation) else []
        for name, part in zip(target.elts, parts, strict=False):
            if isinstance(name, ast.Name):
                self._types[name.id] = self._walker.annotation(part, self._at(name))

    def _own(self, node: ast.AST | None) -> ast.AST | None:
        """What the function of ours that is called here is annotated to return."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._walker.returned.get(node.func.id)
        return None

    def _type(self, node: ast.AST) -> Types:
        if isinstance(node, ast.Name):
            return self._types.get(node.id, NOTHING)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)):
            for generator in node.generators:
                self._type(generator.iter)
        if isinstance(node, ast.Lambda):
            return self._type(node.body)
        for child in ast.iter_child_nodes(node):
            self._type(child)
        return NOTHING

    def _attribute(self, node: ast.Attribute) -> Types:
        if (
            isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and node.attr in self._fields
        ):
            return self._walker.annotation(self._fields[node.attr], self._at(node))
        outer = self._type(node.value)
        if node.attr == "module" and not outer:
            return MODULE
        found = NOTHING
        for name in outer:
            found |= self._walker.member(name, node.attr, self._at(node))
        return found

    def _call(self, node: ast.Call) -> Types:
        callee = self._type(node.func)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self._type(argument)
        own = self._own(node)
        found = self._walker.annotation(own, self._at(node)) if own is not None else NOTHING
        for name in callee:
            found |= self._walker.call(name, node, self._at(node))
        return found


def _is_tuple(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Outermost functions, with the class that they belong to."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef):
                    yield node.name, child


def _fields(owner: ast.ClassDef) -> dict[str, ast.AST]:
    """Annotated attributes of a class: `self.x: T = ...` and dataclass fields."""
    found: dict[str, ast.AST] = {}
    for node in ast.walk(owner):
        if isinstance(node, ast.AnnAssign):
            if isinstance(node.target, ast.Name):
                found[node.target.id] = node.annotation
            elif isinstance(node.target, ast.Attribute):
                found[node.target.attr] = node.annotation
    return found


def sources(package: Path) -> Iterable[Path]:
    """What is written against the package `tensorrt`; TensorRT-RTX has an API of its own."""
    for path in sorted(package.rglob("*.py")):
        if re.search(r"^\s*import tensorrt\b(?!_)", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield path


def walked(version: str, package: Path) -> Walker:
    """All sources, checked against one version."""
    walker = Walker(version)
    texts = {path: path.read_text(encoding="utf-8") for path in sources(package)}
    for text in texts.values():
        walker.learn(ast.parse(text))
    for path, text in texts.items():
        walker.walk(text, path.relative_to(package).as_posix())
    return walker
