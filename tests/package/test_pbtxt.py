"""The text format, read back by protocol buffers themselves."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.package.pbtxt import Word, entries, pbtxt

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(name=names, others=st.lists(names, max_size=3), number=st.integers(-(2**31), 2**31 - 1))
def test_strings_numbers_and_lists(name: str, others: list[str], number: int) -> None:
    text = pbtxt(
        {
            "name": name,
            "dependency": others,
            "message_type": [{"name": other, "field": {"number": number}} for other in others],
        }
    )
    found = text_format.Parse(text, FileDescriptorProto())
    assert found.name == name
    assert list(found.dependency) == others
    assert [message.name for message in found.message_type] == others
    assert [message.field[0].number for message in found.message_type] == [number] * len(others)


@given(values=st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_maps_of_floats(values: dict[str, float]) -> None:
    fields = entries({key: {"number_value": value} for key, value in values.items()})
    found = text_format.Parse(pbtxt({"fields": fields}), Struct())
    assert {key: value.number_value for key, value in found.fields.items()} == values


@pytest.mark.parametrize("flag", [False, True])
def test_enums_truths_and_what_is_left_out(flag: bool) -> None:
    text = pbtxt(
        {"name": None, "type": Word("TYPE_BOOL"), "options": {"packed": flag, "targets": []}}
    )
    found = text_format.Parse(text, FieldDescriptorProto())
    assert found.type == FieldDescriptorProto.TYPE_BOOL
    assert found.options.packed is flag
    assert not found.HasField("name")


def test_what_has_no_text() -> None:
    with pytest.raises(TypeError, match="no place in a text message"):
        pbtxt({"name": b"bytes"})
