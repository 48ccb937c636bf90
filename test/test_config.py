"""Configurations: the shipped ones are valid, and mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")

from training.config import Config, ConfigError, Stage, parse_config, read_config

CONFIGS = Path(__file__).parents[1] / "training" / "configs"
MINIMAL: dict[str, Any] = {
    "architecture": "mobilenetv2-unet",
    "loss": "log",
    "data": {"nyu": {"path": "nyu", "split": "fit"}},
    "validation": {"path": "nyu", "split": "validation"},
    "stages": [{"height": 64, "width": 96, "epochs": 2}, {"height": 96, "width": 128, "epochs": 3}],
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    config = read_config(path)
    assert config.epochs == sum(stage.epochs for stage in config.stages)
    # What is written down reads back as the same configuration.
    again = yaml.safe_load(yaml.safe_dump(config.document()))
    assert parse_config(again, "again") == config


def test_the_articles_recipe_is_the_one_that_was_published() -> None:
    config = read_config(CONFIGS / "article.yaml")
    assert (config.architecture, config.loss, config.target) == (
        "densenet169-unet",
        "article",
        "normalised",
    )
    assert (config.optimiser.lr, config.optimiser.weight_decay) == (1e-4, 1e-6)
    assert not config.optimiser.decoupled
    assert (config.epochs, config.batch, config.augmentation.flip) == (10, 8, 0.5)
    assert config.stages == [Stage(480, 640, 10)]


def test_epochs_belong_to_stages_in_order() -> None:
    config = parse_config(MINIMAL, "here")
    heights = [config.stage_of(epoch).height for epoch in range(7)]
    assert heights == [64, 64, 96, 96, 96, 96, 96]
    assert config.epochs == 5


def altered(**changes: Any) -> dict[str, Any]:
    return {**MINIMAL, **changes}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (altered(learning_rate=1), "learning_rate"),
        (altered(optimiser={"lr": -1}), "optimiser.lr"),
        (altered(optimiser={"rate": 1}), "optimiser.rate"),
        (altered(augmentation={"flipp": 0.5}), "augmentation.flipp"),
        (altered(architecture="vgg"), "known: "),
        (altered(loss="mse"), "known: "),
        (altered(stages=[]), "stages"),
        (altered(stages=[{"height": 33, "width": 64, "epochs": 1}]), "stages.0.height"),
        (altered(data={}), "data"),
        (altered(data={"a": {"path": "a", "share": 0.5}}), "0.5"),
        (altered(data={"a": {"path": "a", "split": "tset"}}), "data.a.split"),
        (altered(batch=0), "batch"),
        ({k: v for k, v in MINIMAL.items() if k != "loss"}, "loss"),
        ([1, 2], "mapping"),
        (None, "mapping"),
    ],
)
def test_mistakes_are_one_line_that_names_file_and_key(document: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(document, "my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml: ") and text in message and "\n" not in message


def test_shares_may_leave_the_rest_to_others() -> None:
    data = {"a": {"path": "a", "share": 0.4}, "b": {"path": "b"}, "c": {"path": "c"}}
    assert isinstance(parse_config(altered(data=data), "x"), Config)


def test_values_can_be_replaced_by_dotted_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    config = read_config(path, {"optimiser.lr": 0.5, "data.nyu.path": "/elsewhere", "batch": 3})
    assert (config.optimiser.lr, config.batch) == (0.5, 3)
    assert config.data["nyu"].path == Path("/elsewhere")
    with pytest.raises(ConfigError, match=r"loss\.weight"):
        read_config(path, {"loss.weight": 1})


@pytest.mark.parametrize("text", ["a: [", "\x00", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_safe_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    for bad in (path, tmp_path / "missing.yaml"):
        with pytest.raises(ConfigError) as caught:
            read_config(bad)
        assert bad.name in str(caught.value) and "\n" not in str(caught.value)
