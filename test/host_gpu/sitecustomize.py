"""Gives a Python process the GPU and the TensorRT of `host_cuda` and `host_tensorrt`.

Python runs this at its start where this folder is on PYTHONPATH. HOST_GPU says what there is, as
JSON: {"flavour": "tensorrt 10.3", "build_s": 2.0, "fail": {"execute_async_v3": 5}}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

STEPS = 10


def install(flavour: str, build_s: float = 0.0, fail: dict[str, int] | None = None) -> None:
    """Puts the stand-ins where imports find them.

    Args:
        flavour: of `host_tensorrt.FLAVOURS`.
        build_s: how long a build lasts, in steps that it reports.
        fail: how many calls of each function of CUDA or TensorRT go well before all others fail.
    """
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    import host_tensorrt
    from host_cuda import HostCuda

    cuda = HostCuda()
    host = host_tensorrt.HostTensorRt(flavour, cuda)
    sys.modules["cuda.bindings.runtime"] = cuda.module()
    import cuda.bindings as bindings

    bindings.runtime = sys.modules["cuda.bindings.runtime"]
    for name in host_tensorrt.MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    sys.modules[host.module.__name__] = host.module
    for name, after in (fail or {}).items():
        for i in range(1000):
            if name.startswith("cuda"):
                code = cuda.module().cudaError_t.cudaErrorIllegalAddress
                cuda.fail(name, code, after if i == 0 else 0)
            else:
                host.fail(name, after if i == 0 else 0)
    build = host.module.Builder.build_serialized_network

    def slowly(self: Any, network: Any, config: Any) -> Any:
        monitor = config.progress_monitor
        monitor.phase_start("Measuring kernels", None, STEPS)
        for step in range(STEPS):
            time.sleep(build_s / STEPS)
            if not monitor.step_complete("Measuring kernels", step):
                return None
        monitor.phase_finish("Measuring kernels")
        config.progress_monitor = None
        return build(self, network, config)

    if build_s:
        host.module.Builder.build_serialized_network = slowly


if "HOST_GPU" in os.environ:
    install(**json.loads(os.environ["HOST_GPU"]))
