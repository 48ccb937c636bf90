"""A training run as one YAML file: network, loss, data, augmentation, schedule.

Unknown keys and impossible values are refused, so that a misspelt option never trains silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, Gt, Interval, MultipleOf
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from training.data.augment import Augmentation
from training.losses import LOSSES
from training.models import ARCHITECTURES

_STRICT = ConfigDict(extra="forbid")
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
Count = Annotated[int, Ge(1)]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, the key and the remedy."""


@dataclass(frozen=True, config=_STRICT)
class Source:
    """A data set to draw from.

    Attributes:
        path: any layout of `training.data.sources`; relative to `--data-root`.
        split: train, fit, validation or test.
        share: of every epoch's images; None divides what is left by size.
        in_memory: read once and keep (1 to 3 MB a frame).
    """

    path: Path
    split: Literal["train", "fit", "validation", "test"] = "train"
    share: Share | None = None
    in_memory: bool = False


@dataclass(frozen=True, config=_STRICT)
class Stage:
    """`epochs` at input `height` x `width`; small images first make long trainings cheaper."""

    height: Annotated[int, Ge(32), MultipleOf(2)]
    width: Annotated[int, Ge(32), MultipleOf(2)]
    epochs: Count


@dataclass(frozen=True, config=_STRICT)
class Optimiser:
    """Adam with linear warm-up and polynomial decay: lr * (1 - t)^power.

    Attributes:
        lr: peak rate of the decoder.
        encoder_lr_scale: the encoder's rate is this times `lr`.
        weight_decay: of all weights.
        decoupled: AdamW instead of Adam with L2.
        warmup: share of the run.
        power: of the decay.
        gradient_clip: largest norm of the gradient; None does not clip.
    """

    lr: Positive = 1e-4
    encoder_lr_scale: Positive = 1.0
    weight_decay: Annotated[float, Ge(0)] = 1e-6
    decoupled: bool = False
    warmup: Share = 0.0
    power: Positive = 0.9
    gradient_clip: Positive | None = None


@dataclass(frozen=True, config=_STRICT)
class Config:
    """Everything that a run depends on, but for where the data are.

    Attributes:
        architecture: of `training.models`.
        loss: of `training.losses`; decides what the network predicts (log depth, 10 / depth, ...).
        encoder_weights: ImageNet weights for the encoder, relative to `--data-root`; None starts
            from random ones.
        freeze_encoder: train the decoder only.
        freeze_norms: keep batch-norm statistics as they are, for small sets and small batches.
        teacher: checkpoint of a larger network whose answers are learned beside the truth, also
            where there is no truth; relative to `--data-root`.
        teacher_weight: share of the loss that they have.
        data: sources by name; an epoch has as many images as the first has frames, unless
            `epoch_images` says otherwise.
        validation: what is watched during training.
        stages: input sizes and epochs, in order.
        batch: images per optimiser step, over all GPUs.
        ema_decay: averages the weights over steps; None does not.
        early_stop: epochs without a better validation delta1 after which training stops.
    """

    architecture: str
    loss: str
    data: dict[str, Source]
    validation: Source
    stages: list[Stage]
    augmentation: Augmentation = Field(default_factory=Augmentation)
    optimiser: Optimiser = Field(default_factory=Optimiser)
    encoder_weights: Path | None = None
    freeze_encoder: bool = False
    freeze_norms: bool = False
    teacher: Path | None = None
    teacher_weight: Share = 0.5
    epoch_images: Count | None = None
    batch: Count = 8
    ema_decay: Annotated[float, Interval(gt=0, lt=1)] | None = None
    early_stop: Count | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    seed: int = 1

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"architecture '{self.architecture}' is unknown; known: {known}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss '{self.loss}' is unknown; known: {', '.join(LOSSES)}")
        if not self.data or not self.stages:
            raise ValueError("data and stages need at least one entry each")
        shares = [source.share for source in self.data.values()]
        given = sum(share for share in shares if share is not None)
        if given > 1 + 1e-6 or (None not in shares and given < 1 - 1e-6):
            raise ValueError(f"shares of data add up to {given:g}, not to 1")
        return self

    @property
    def target(self) -> str:
        """What the network predicts, of `training.targets`."""
        return LOSSES[self.loss].target

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def stage_of(self, epoch: int) -> Stage:
        """The stage that a 0-based epoch belongs to; the last one from its end on."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        return self.stages[-1]

    def document(self) -> dict[str, Any]:
        """The configuration as plain data, as YAML and checkpoints hold it."""
        document: dict[str, Any] = _plain(asdict(self))
        return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def parse_config(document: Any, source: str) -> Config:
    """Checks a configuration; `source` names the file in errors.

    Raises:
        ConfigError: a key is unknown or missing, or a value is out of range.
    """
    if not isinstance(document, Mapping):
        raise ConfigError(f"{source}: is not a mapping of keys to values")
    try:
        return TypeAdapter(Config).validate_python(dict(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source}: {f'{where}: ' if where else ''}{message}") from None


def read_config(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads a YAML file; `overrides` replaces values by dotted key (`optimiser.lr`).

    Raises:
        ConfigError: the file or a key cannot be used.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read as YAML ({reason})") from None
    for key, value in (overrides or {}).items():
        *parents, last = key.split(".")
        level: Any = document
        for parent in parents:
            level = level.setdefault(parent, {}) if isinstance(level, dict) else None
        if not isinstance(level, dict):
            raise ConfigError(f"--set {key}: {path} has no such key")
        level[last] = value
    return parse_config(document, str(path))
