"""Fills an encoder with published ImageNet weights, tensor for tensor."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.models.unet import UNet


def load_encoder(network: UNet, path: str | Path) -> None:
    """Loads ImageNet weights into the encoder of `network`, in place.

    What the file is, an .npz of arrays or a torch state dict, is read from its content, and nothing
    in it is executed. Each tensor of the encoder must be there and in its shape, and nothing else
    but the classifier. Batch norms' `num_batches_tracked` may be absent: old files lack it.

    Raises:
        ValueError: the file cannot be read, or is not what `network.encoder.weights` says.
    """
    encoder = network.encoder
    own = encoder.state_dict()
    optional = {name for name in own if name.endswith(".num_batches_tracked")}
    optional |= {name for name in own if name.rpartition(".")[0] in encoder.fresh}
    state: dict[str, Tensor] = {}
    unexpected, misshaped = [], []
    try:
        published = _read(path)
    except Exception as error:  # torch and NumPy raise a dozen types for a bad file
        raise ValueError(
            f"{path}: cannot be read as weights ({type(error).__name__}); give {encoder.weights}"
        ) from None
    for name, tensor in published.items():
        target = encoder.own_name(name)
        if target is None:
            continue
        if target not in own:
            unexpected.append(name)
        elif tensor.shape != own[target].shape:
            misshaped.append(f"{name} {tuple(tensor.shape)}, not {tuple(own[target].shape)}")
        state[target] = tensor
    problems = {
        "lacks": [name for name in own if name not in state and name not in optional],
        "has unexpected": unexpected,
        "has": misshaped,
    }
    if any(problems.values()):
        said = "; ".join(f"{what} {_first(names)}" for what, names in problems.items() if names)
        raise ValueError(f"{path}: {said}; give {encoder.weights}")
    encoder.load_state_dict(state, strict=False)


def _read(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a file by name."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            arrays = any(name.endswith(".npy") for name in archive.namelist())
        if arrays:
            with np.load(path, allow_pickle=False) as file:
                return {name: torch.from_numpy(file[name]) for name in file.files}
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise TypeError("not a state dict")
    return content


def _first(names: list[str], count: int = 2) -> str:
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")
