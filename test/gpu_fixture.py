"""Puts the GPU and TensorRT of `host_cuda` and `host_tensorrt` in the place of the real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from host_cuda import HostCuda
from host_cuda import install as install_cuda
from host_tensorrt import HostTensorRt, install

SITE = Path(__file__).parent / "host_gpu"


def put_gpu(
    monkeypatch: pytest.MonkeyPatch, flavour: str = "tensorrt 10.3", **gpu: Any
) -> HostTensorRt:
    """In this process; `gpu` as of `HostCuda`."""
    cuda = HostCuda(**gpu)
    install_cuda(monkeypatch, cuda)
    host = HostTensorRt(flavour, cuda)
    install(monkeypatch, host)
    return host


def gpu_environment(**options: Any) -> dict[str, str]:
    """For the processes of a test; options as of `host_gpu/sitecustomize.py`."""
    paths = [str(SITE), str(SITE.parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HOST_GPU": json.dumps({"flavour": "tensorrt 10.3", **options}),
    }
