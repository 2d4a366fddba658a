"""Protocol buffers' text format, as far as `config.pbtxt` needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Scalar = bool | int | float | str
Value = "Scalar | Word | Mapping[str, Value] | Sequence[Value]"
Message = Mapping[str, object]


class Word(str):
    """An enum's value: written without quotes."""

    __slots__ = ()


def pbtxt(message: Message) -> str:
    """The message as text. A list is a repeated field; None and empty lists are left out.

    Raises:
        TypeError: a value has no text form.
    """
    return "\n".join(_fields(message, "")) + "\n"


def entries(mapping: Mapping[str, object]) -> list[Message]:
    """A map field: one entry per key."""
    return [{"key": key, "value": value} for key, value in mapping.items()]


def _fields(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, Mapping):
                yield f"{indent}{name} {{"
                yield from _fields(item, indent + "  ")
                yield f"{indent}}}"
            elif item is not None:
                yield f"{indent}{name}: {_scalar(item)}"


def _scalar(value: object) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return f'"{"".join(map(_character, value.encode()))}"'
    raise TypeError(f"{value!r} has no place in a text message")


def _character(byte: int) -> str:
    """Printable ASCII as it is, everything else in octal."""
    plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
    return chr(byte) if plain else f"\\{byte:03o}"
