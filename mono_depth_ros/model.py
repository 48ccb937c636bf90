"""Model files: ONNX, and what the network says of itself in its metadata or in a card beside it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mono_depth_ros.shipped_file import shipped_file

if TYPE_CHECKING:
    import onnx

METADATA_KEY = "mono_depth"
SCHEMA = 1
# Protobuf serialises less than 2 GiB; the rest is for the graph itself.
MAX_BYTES = 2**31 - 2**24


class ModelError(ValueError):
    """A model file that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class ModelMetadata:
    """Facts that travel inside the ONNX file under the key `mono_depth`.

    Attributes:
        architecture: name of the network, as in `training.models`.
        height, width: input size in pixels.
        focal: geometric mean of the training focal lengths, in pixels at that input size.
        min_depth, max_depth: range of the output in metres.
        document: the whole JSON object.
    """

    architecture: str
    height: int
    width: int
    focal: float
    min_depth: float
    max_depth: float
    document: dict[str, Any]

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelMetadata:
        """Parses and checks the document; `source` names the file in errors.

        Raises:
            ModelError: not JSON, another schema, or a field is missing or out of range.
        """
        try:
            document = json.loads(text)
            if document["schema"] != SCHEMA:
                raise ModelError(
                    f"{source}: metadata schema {document['schema']} is not {SCHEMA};"
                    " export the model again with this version"
                )
            fx, fy = (float(document["training_focal_px"][name]) for name in ("fx", "fy"))
            metadata = cls(
                architecture=str(document["architecture"]),
                height=int(document["input"]["height"]),
                width=int(document["input"]["width"]),
                focal=math.sqrt(fx * fy),
                min_depth=float(document["depth_m"]["min"]),
                max_depth=float(document["depth_m"]["max"]),
                document=document,
            )
        except ModelError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ModelError(
                f"{source}: metadata '{METADATA_KEY}' is malformed"
                f" ({type(error).__name__}: {error})"
            ) from None
        usable = fx > 0 and 0 < metadata.focal < math.inf
        if min(metadata.height, metadata.width) < 1 or not usable:
            raise ModelError(f"{source}: metadata has no usable input size or focal length")
        if not 0 <= metadata.min_depth < metadata.max_depth < math.inf:
            raise ModelError(f"{source}: metadata has no usable depth range")
        return metadata


def default_model() -> Path:
    """The compact network that ships with the package.

    Raises:
        ModelError: it is not there.
    """
    try:
        return shipped_file("models/compact.onnx")
    except FileNotFoundError as error:
        raise ModelError(str(error)) from None


@dataclass(frozen=True)
class DepthModel:
    """A network in the one form that every runtime reads.

    Attributes:
        path: the file that it was read from, for messages.
        digest: SHA-256 of what was read, in hexadecimal; engines are cached under it.
        onnx: serialised ONNX without external data: `image` uint8 1xHxWx3 RGB in, `depth` float32
            1xhxw metres out.
        metadata: what it says of itself.
        camera_size: where the steps around the network are part of its graph (`camera_graph`),
            height and width of the camera's images, which then are those of `image` and `depth`.
    """

    path: Path
    digest: str
    onnx: bytes
    metadata: ModelMetadata
    camera_size: tuple[int, int] | None = None


def read_model(path: str | Path) -> DepthModel:
    """Reads a model without loading it into a runtime.

    Args:
        path: ONNX file; weights that it keeps in other files are read, too. One that does not say
            what it is needs a model card beside it, NAME.yaml (see docs/models.md).

    Raises:
        ModelError: a file is missing or not what it should be, or the network has neither a card
            nor `mono_depth` metadata.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; set the parameter model")
    try:
        content = path.read_bytes()
        proto = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not an ONNX file ({type(error).__name__})") from None
    if not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX file (no graph in it)")
    digest = hashlib.sha256(content)
    if _load_external_data(proto, path):
        content = proto.SerializeToString()
        digest.update(content)
    card = path.with_suffix(".yaml")
    if card.is_file() and all(entry.key != METADATA_KEY for entry in proto.metadata_props):
        from mono_depth_ros.card_graph import apply_card
        from mono_depth_ros.model_card import parse_card

        try:
            text = card.read_bytes()
        except OSError as error:
            raise ModelError(f"{card}: {error.strerror}; make it readable") from None
        digest.update(text)
        proto = apply_card(proto, parse_card(text, str(card)), str(path))
        content = proto.SerializeToString()
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in entries:
        raise ModelError(
            f"{path}: has no '{METADATA_KEY}' metadata; export it with python -m training.export,"
            f" or describe it in a model card beside it, {card.name} (docs/models.md)"
        )
    metadata = ModelMetadata.from_json(entries[METADATA_KEY], str(path))
    return DepthModel(path, digest.hexdigest(), content, metadata)


def _load_external_data(proto: onnx.ModelProto, path: Path) -> bool:
    """Reads weights that a network keeps in files of their own into it; False if there are none.

    Raises:
        ModelError: such a file is missing or too small, lies outside the model's folder, or all is
            more than ONNX holds in one piece.
    """
    import onnx
    from onnx.external_data_helper import (
        ExternalDataInfo,
        load_external_data_for_model,
        uses_external_data,
    )

    size = 0
    tensors = [tensor for tensor in proto.graph.initializer if uses_external_data(tensor)]
    try:
        for info in map(ExternalDataInfo, tensors):
            file = path.parent / info.location
            if not file.is_file():
                raise ModelError(f"{path}: its weights {info.location} are not there; copy both")
            size += file.stat().st_size if info.length is None else info.length
        if size > MAX_BYTES:
            raise ModelError(
                f"{path}: has {size / 2**30:.1f} GiB of weights, ONNX in one piece ends at 2 GiB;"
                " take a smaller network, or float16 weights"
            )
        # It refuses what is not within the folder, absolute paths and links.
        load_external_data_for_model(proto, str(path.parent))
    except ModelError:
        raise
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        text = " ".join(str(error).split())
        raise ModelError(f"{path}: its weights cannot be read ({text:.200})") from None
    return bool(tensors)


def read_metadata(path: str | Path) -> ModelMetadata:
    """What a model file says of itself; errors as `read_model`."""
    return read_model(path).metadata
