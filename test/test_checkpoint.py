"""Checkpoints give the same network back, and nothing in a file is ever run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from training.checkpoint import (
    KEY,
    CheckpointInfo,
    describe,
    load_checkpoint,
    load_network,
    load_weights,
    save_weights,
)
from training.models import build_unet

INFO = CheckpointInfo(
    architecture="mobilenetv2-unet",
    target="log",
    height=64,
    width=96,
    fx=77.0,
    fy=78.0,
    data=["walls (3 frames)"],
    training={"seed": 1},
)


def test_weights_give_the_same_network_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_unet("mobilenetv2-unet")
    save_weights(network, INFO, tmp_path / "a.ckpt")
    loaded, info = load_network(tmp_path / "a.ckpt")
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(loaded(image), network.eval()(image))
    assert not loaded.training
    assert info == INFO
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


class Intruder:
    """Unpickling one creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    mark, bad = tmp_path / "mark", tmp_path / "bad.ckpt"
    torch.save({KEY: describe(INFO), "state_dict": {}, "other": Intruder(mark)}, bad)
    with pytest.raises(ValueError, match=r"bad\.ckpt"):
        load_checkpoint(bad)
    assert not mark.exists()
    torch.load(bad, weights_only=False)
    assert mark.exists()  # the file would have done it


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04N."])
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    for path in (tmp_path / "bad.ckpt", tmp_path / "missing.ckpt"):
        with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_a_half_written_checkpoint_is_one_line(tmp_path: Path) -> None:
    save_weights(build_unet("mobilenetv2-unet"), INFO, tmp_path / "a.ckpt")
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.ckpt.*damaged"):
        load_checkpoint(tmp_path / "half.ckpt")


@pytest.mark.parametrize(
    "content",
    [
        {},
        [1],
        {"model": 1},
        {KEY: {"format": 1}, "state_dict": {}},
        {KEY: {"format": 2}},
        {KEY: 3, "state_dict": {}},
    ],
)
def test_another_format_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of this package"):
        load_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"target": "sqrt"}, "sqrt"),
        ({"architecture": "vgg"}, "vgg"),
        ({"fx": None}, "fx"),
        ({"height": "tall"}, "height"),
        ({"data": 3}, "data"),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    content = {"state_dict": {}, KEY: describe(INFO) | change}
    if change.get("fx", 1) is None:
        del content[KEY]["fx"]
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match=text):
        load_network(tmp_path / "odd.ckpt")


def test_weights_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    network = build_unet("mobilenetv2-unet")
    save_weights(network, INFO, tmp_path / "a.ckpt")
    content = load_checkpoint(tmp_path / "a.ckpt")
    content["state_dict"]["network.head.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(content, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match=r"b\.ckpt.*do not fit") as caught:
        load_weights(network, tmp_path / "b.ckpt", "mobilenetv2-unet")
    assert "\n" not in str(caught.value)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    network = build_unet("mobilenetv2-unet")
    save_weights(network, replace(INFO), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="mobilenetv2-unet, not a densenet121-unet"):
        load_weights(network, tmp_path / "a.ckpt", "densenet121-unet")
