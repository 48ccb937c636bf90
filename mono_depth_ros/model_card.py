"""Model cards: YAML that says of somebody else's depth network what ours say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import yaml

from mono_depth_ros.model import SCHEMA, ModelError

MAX_SIDE = 8192
_FLOAT32 = np.finfo(np.float32)
_LAYOUTS = ("nchw", "nhwc")
_COLOURS = ("rgb", "bgr")
_MEANINGS = ("metric", "inverse", "relative")
_FITTING = (
    "relative depth has no metres: measure some distances Z in an image, fit"
    " 1/Z = scale * y + shift to the network's outputs y there by least squares, and give both"
)


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Attributes:
        name, licence, source: of the network, for people.
        height, width: input size in pixels.
        layout: order of the network's input, `nchw` or `nhwc`.
        colour: order of its channels, `rgb` or `bgr`.
        scale: factor on the bytes, before `mean` and `std`; None where the network takes bytes.
        mean, std: one number a channel, in the network's order.
        multiple_of: what height and width must be multiples of.
        output: name of the output that is depth; None where there is one output.
        meaning: `metric` (metres = out_scale * y), `inverse` (metres = out_scale / y) or `relative`
            (metres = 1 / (out_scale * y + out_shift)).
        fx, fy: focal lengths of the training images in pixels, resized to height x width.
        min_depth, max_depth: metres; the output is clipped to them.
    """

    name: str
    licence: str
    source: str
    height: int
    width: int
    layout: str
    colour: str
    scale: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    multiple_of: int
    output: str | None
    meaning: str
    out_scale: float
    out_shift: float
    fx: float
    fy: float
    min_depth: float
    max_depth: float

    def document(self) -> dict[str, Any]:
        """The card as the metadata of `mono_depth_ros.model.ModelMetadata`."""
        return {
            "schema": SCHEMA,
            "architecture": self.name,
            "input": {"height": self.height, "width": self.width, "multiple_of": self.multiple_of},
            "training_focal_px": {"fx": self.fx, "fy": self.fy},
            "depth_m": {"min": self.min_depth, "max": self.max_depth},
            "data": [],
            "metrics": {},
            "licence": self.licence,
            "source": self.source,
        }


class _Section:
    """One mapping of a card, from which keys are taken; what is left is unknown.

    Raises:
        ValueError: it is not a mapping, or a value is not what it must be; names the key.
    """

    def __init__(self, content: object, name: str = "") -> None:
        if not isinstance(content, dict):
            raise ValueError(f"{name or 'the card'} must be a mapping of keys to values")
        self._left = dict(content)
        self._prefix = f"{name}." if name else ""

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def _refuse(self, key: str, value: object, wanted: str) -> NoReturn:
        # Collections are not written out: YAML's anchors make small files of enormous ones.
        known = isinstance(value, (str, int, float, type(None)))
        given = repr(value)[:40] if known else f"a {type(value).__name__}"
        raise ValueError(f"{self._prefix}{key} must be {wanted}, not {given}")

    def take(self, key: str) -> object:
        """The value of a key that must be there."""
        if key not in self._left:
            raise ValueError(f"{self._prefix}{key} is missing")
        return self._left.pop(key)

    def section(self, key: str) -> _Section:
        return _Section(self.take(key), f"{self._prefix}{key}")

    def text(self, key: str) -> str:
        value = self.take(key)
        if not isinstance(value, str) or not value.strip():
            self._refuse(key, value, "text")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        value = self.take(key)
        if not isinstance(value, str) or value not in choices:
            self._refuse(key, value, f"one of {', '.join(choices)}")
        return value

    def integer(self, key: str, most: int) -> int:
        value = self.take(key)
        if type(value) is not int or not 1 <= value <= most:
            self._refuse(key, value, f"a whole number from 1 to {most}")
        return value

    def number(self, key: str, positive: bool = False) -> float:
        return self._number(key, self.take(key), positive)

    def channels(self, key: str, default: float, positive: bool = False) -> tuple[float, ...]:
        """Three numbers; `default` three times where the key is not there."""
        if key not in self:
            return (default,) * 3
        value = self.take(key)
        if not isinstance(value, list) or len(value) != 3:
            self._refuse(key, value, "a list of three numbers, one a channel")
        return tuple(self._number(key, item, positive) for item in value)

    def _number(self, key: str, value: object, positive: bool) -> float:
        if isinstance(value, str):
            self._refuse(key, value, "a number (YAML reads 1e-3 as text: write 1.0e-3)")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._refuse(key, value, "a number")
        # What float32 cannot hold would be infinite, or zero, in the graph.
        least, most = (_FLOAT32.tiny, _FLOAT32.max) if positive else (-_FLOAT32.max, _FLOAT32.max)
        if not float(least) <= value <= float(most):
            self._refuse(key, value, "a positive number" if positive else "a finite number")
        return float(value)

    def end(self) -> None:
        """Refuses what was not taken."""
        for key in self._left:
            raise ValueError(
                f"{self._prefix}{str(key)[:40]} is unknown; remove it or correct its spelling"
            )


def parse_card(content: bytes, source: str) -> ModelCard:
    """Reads a card strictly; docs/models.md has the table of its keys.

    Args:
        content: YAML.
        source: names the file in errors.

    Raises:
        ModelError: it is not YAML, or a key is missing, unknown or not what it must be.
    """
    try:
        return _card(_Section(yaml.safe_load(content)))
    except (yaml.YAMLError, UnicodeError, RecursionError):
        raise ModelError(f"{source}: not a YAML file; docs/models.md has an example") from None
    except ValueError as error:
        text = " ".join(str(error).split())
        raise ModelError(f"{source}: {text}; docs/models.md describes every key") from None


def _card(card: _Section) -> ModelCard:
    schema = card.integer("schema", 2**31)
    if schema != SCHEMA:
        raise ValueError(f"schema {schema} is not {SCHEMA}, which this version reads")
    source, depth = card.section("input"), card.section("output")
    focal, limits = card.section("training_focal_px"), card.section("depth_m")
    multiple_of = source.integer("multiple_of", MAX_SIDE) if "multiple_of" in source else 1
    size = {key: source.integer(key, MAX_SIDE) for key in ("height", "width")}
    for key, side in size.items():
        if side % multiple_of:
            nearest = max(1, round(side / multiple_of)) * multiple_of
            raise ValueError(
                f"input.{key} {side} is no multiple of {multiple_of}; take {nearest}"
                " or correct input.multiple_of"
            )
    meaning = depth.choice("meaning", _MEANINGS)
    relative = meaning == "relative"
    if relative and not ("scale" in depth and "shift" in depth):
        raise ValueError(f"output.scale and output.shift are needed: {_FITTING}")
    result = ModelCard(
        name=card.text("name"),
        licence=card.text("licence"),
        source=card.text("source"),
        **size,
        layout=source.choice("layout", _LAYOUTS),
        colour=source.choice("colour", _COLOURS),
        scale=source.number("scale", positive=True) if "scale" in source else None,
        mean=source.channels("mean", 0.0),
        std=source.channels("std", 1.0, positive=True),
        multiple_of=multiple_of,
        output=depth.text("name") if "name" in depth else None,
        meaning=meaning,
        out_scale=depth.number("scale", positive=True) if "scale" in depth else 1.0,
        out_shift=depth.number("shift") if relative else 0.0,
        fx=focal.number("fx", positive=True),
        fy=focal.number("fy", positive=True),
        min_depth=limits.number("min"),
        max_depth=limits.number("max", positive=True),
    )
    for section in (card, source, depth, focal, limits):
        section.end()
    if not 0 <= result.min_depth < result.max_depth:
        raise ValueError(
            f"depth_m {result.min_depth:g} to {result.max_depth:g} is no range of metres"
        )
    return result
