"""What an exported depth network says of itself: the JSON document in its ONNX metadata."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mono_depth_ros.shipped_file import shipped_file

METADATA_KEY = "mono_depth"
SCHEMA = 1


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
    """

    path: Path
    digest: str
    onnx: bytes
    metadata: ModelMetadata


def read_model(path: str | Path) -> DepthModel:
    """Reads an ONNX file without loading it into a runtime.

    Raises:
        ModelError: the file is missing, is not ONNX, or carries no `mono_depth` metadata.
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
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in entries:
        raise ModelError(
            f"{path}: has no '{METADATA_KEY}' metadata; export it with python -m training.export"
        )
    metadata = ModelMetadata.from_json(entries[METADATA_KEY], str(path))
    return DepthModel(path, hashlib.sha256(content).hexdigest(), content, metadata)


def read_metadata(path: str | Path) -> ModelMetadata:
    """What a model file says of itself; errors as `read_model`."""
    return read_model(path).metadata
