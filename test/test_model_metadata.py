"""Model files that cannot be used: one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mono_depth_ros.model import METADATA_KEY, ModelError, ModelMetadata, read_metadata

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde"


def document() -> dict[str, Any]:
    return {
        "schema": 1,
        "architecture": "mobilenetv2-unet",
        "input": {"height": 192, "width": 256},
        "training_focal_px": {"fx": 200.0, "fy": 242.0},
        "depth_m": {"min": 0.1, "max": 10.0},
        "licence": "MIT",
    }


def with_field(path: str, value: object) -> dict[str, Any]:
    """The document with one field, named `outer.inner`, replaced; the value `...` removes it."""
    result = document()
    *outer, name = path.split(".")
    place = result
    for key in outer:
        place = place[key]
    if value is ...:
        del place[name]
    else:
        place[name] = value
    return result


def write_onnx(path: Path, metadata: str | None, key: str = METADATA_KEY) -> Path:
    pixel = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 4, 6, 3])
    metre = helper.make_tensor_value_info("depth", TensorProto.UINT8, [1, 4, 6, 3])
    node = helper.make_node("Identity", ["image"], ["depth"])
    model = helper.make_model(helper.make_graph([node], "g", [pixel], [metre]))
    if metadata is not None:
        helper.set_model_props(model, {"other": "1", key: metadata})
    onnx.save(model, str(path))
    return path


def complaint(path: Path) -> str:
    """The error of reading `path`, which must be one line and name the file."""
    with pytest.raises(ModelError) as error:
        read_metadata(path)
    text = str(error.value)
    assert str(path) in text and "\n" not in text
    return text


def test_a_good_file_tells_what_it_says(tmp_path: Path) -> None:
    metadata = read_metadata(write_onnx(tmp_path / "m.onnx", json.dumps(document())))
    assert (metadata.architecture, metadata.height, metadata.width) == (
        "mobilenetv2-unet",
        192,
        256,
    )
    assert metadata.focal == pytest.approx(220.0)
    assert (metadata.min_depth, metadata.max_depth) == (0.1, 10.0)
    assert metadata.document == document()


def test_a_path_may_be_text(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", json.dumps(document()))
    assert read_metadata(str(path)) == read_metadata(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "no such model file" in complaint(tmp_path / "none.onnx")
    assert "no such model file" in complaint(tmp_path)


@pytest.mark.parametrize("name", ["m.onnx", "m", "m.json", "m.onnxtxt", "m.textproto"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"hello world\n", b"{}", PNG, bytes(range(256)) * 8],
    ids=["empty", "zeros", "text", "json", "png", "bytes"],
)
def test_what_is_not_onnx_is_called_so(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert "not an ONNX file" in complaint(path)


def test_a_truncated_onnx_is_an_error(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", json.dumps(document()))
    path.write_bytes(path.read_bytes()[:-20])
    complaint(path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_give_a_model_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    complaint(path)


def test_onnx_without_our_metadata_says_how_to_get_it(tmp_path: Path) -> None:
    for name, metadata, key in (("a", None, METADATA_KEY), ("b", "{}", "mono_depth_2")):
        text = complaint(write_onnx(tmp_path / f"{name}.onnx", metadata, key))
        assert "training.export" in text and f"{name}.yaml (docs/models.md)" in text


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_named(tmp_path: Path, schema: object) -> None:
    path = write_onnx(tmp_path / "m.onnx", json.dumps(with_field("schema", schema)))
    assert f"schema {schema}" in complaint(path)


@pytest.mark.parametrize(
    "text", ["", "{", "no json", "[]", "1", "null", '"text"', "{}", "[" * 100_000]
)
def test_a_malformed_document_is_called_so(tmp_path: Path, text: str) -> None:
    assert "malformed" in complaint(write_onnx(tmp_path / "m.onnx", text))


@pytest.mark.parametrize("value", [..., None, "wide", [], {}], ids=repr)
@pytest.mark.parametrize(
    "field",
    [
        *("input", "input.height", "input.width"),
        *("training_focal_px", "training_focal_px.fx", "training_focal_px.fy"),
        *("depth_m", "depth_m.min", "depth_m.max"),
    ],
)
def test_a_field_that_is_missing_or_no_number_is_malformed(
    tmp_path: Path, field: str, value: object
) -> None:
    path = write_onnx(tmp_path / "m.onnx", json.dumps(with_field(field, value)))
    assert "malformed" in complaint(path)


def test_the_architecture_must_be_there(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", json.dumps(with_field("architecture", ...)))
    assert "architecture" in complaint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -200.0, 0.0])
@pytest.mark.parametrize("field", ["training_focal_px.fx", "training_focal_px.fy"])
def test_a_focal_length_must_be_positive_and_finite(
    tmp_path: Path, field: str, value: float
) -> None:
    complaint(write_onnx(tmp_path / "m.onnx", json.dumps(with_field(field, value))))


def test_two_negative_focal_lengths_do_not_make_a_positive_one(tmp_path: Path) -> None:
    both = with_field("training_focal_px", {"fx": -200.0, "fy": -200.0})
    complaint(write_onnx(tmp_path / "m.onnx", json.dumps(both)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -192, 0])
@pytest.mark.parametrize("field", ["input.height", "input.width"])
def test_an_input_size_must_be_positive_and_finite(
    tmp_path: Path, field: str, value: float
) -> None:
    complaint(write_onnx(tmp_path / "m.onnx", json.dumps(with_field(field, value))))


@pytest.mark.parametrize(
    ("low", "high"), [(float("nan"), 10.0), (0.1, float("nan")), (10.0, 0.1), (-1.0, 10.0)]
)
def test_an_empty_depth_range_is_an_error(tmp_path: Path, low: float, high: float) -> None:
    odd = with_field("depth_m", {"min": low, "max": high})
    assert "depth" in complaint(write_onnx(tmp_path / "m.onnx", json.dumps(odd)))


def test_the_source_is_named_when_there_is_no_file() -> None:
    with pytest.raises(ModelError, match=r"^here: "):
        ModelMetadata.from_json("{", "here")
