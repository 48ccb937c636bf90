"""The estimator that serves, and how a better one takes its place without a frame being lost.

What can be opened at once serves. Where TensorRT could run the model but has no engine of it for
the camera yet, one is built meanwhile and takes over between two frames. An engine that fails is
replaced by one that needs no GPU. Another model takes over only once its answers are right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mono_depth_ros.background_build import BackgroundBuild
from mono_depth_ros.engines import (
    CPU_ENGINES,
    Engine,
    EngineError,
    NotBuiltError,
    UnavailableError,
    open_first,
)
from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.engines.tensorrt import TensorRtEngine
from mono_depth_ros.engines.tensorrt_plans import CameraSize, last_camera_size, open_plan
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.model import DepthModel, ModelError, default_model, read_model
from mono_depth_ros.parity import TOLERANCES, parity, parity_images

# Images that another model is checked on before it takes over.
CHECKED = 4
# The log hears of a build at these steps of the share that is done.
LOGGED_STEP = 0.1


@dataclass(frozen=True)
class Choice:
    """What to serve.

    Attributes:
        model: ONNX file; empty takes the one that ships.
        engine, precision: of `ENGINES` and `PRECISIONS`.
        cache_dir: where engines are kept.
    """

    model: str
    engine: str
    precision: str
    cache_dir: Path

    @property
    def path(self) -> Path:
        """The model file."""
        return Path(self.model) if self.model else default_model()


class Serving:
    """Opens, builds, swaps and replaces engines.

    `current` and `replace` belong to the thread that estimates; the rest may be called from any.

    Args:
        choice: what to open.
        info, warn: log a line; called from any thread.

    Attributes:
        choice: what was asked for, last.
        progress: what is being built and how far it is; empty while nothing is.
        warning: why what serves is not what was asked for; empty if it is.

    Raises:
        ModelError: the model cannot be read.
        EngineError: no engine takes it.
    """

    def __init__(
        self, choice: Choice, info: Callable[[str], None], warn: Callable[[str], None]
    ) -> None:
        self._info, self._warn = info, warn
        self._lock = threading.Lock()
        self._next: DepthEstimator | None = None
        self._build: BackgroundBuild | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        # Of the last frame, and of the one that an engine on the GPU was last asked for.
        self._camera_size: CameraSize | None = None
        self._asked_size: CameraSize | None = None
        self._uses_gpu = False
        self.choice, self.progress, self.warning = choice, "", ""
        self._estimator = DepthEstimator(self._open(choice, None))

    # What serves

    def describe(self) -> dict[str, str]:
        """What serves and what is under way, for diagnostics."""
        engine = self._estimator.engine
        entries = {"engine": engine.describe()}
        if engine.declined:
            entries["engines_not_taken"] = "; ".join(engine.declined)
        if self.progress:
            entries["engine_build"] = self.progress
        return entries

    def current(self, camera_size: CameraSize) -> DepthEstimator:
        """The estimator for the next frame; where another is ready, it takes over here.

        Args:
            camera_size: height and width of the frame. An engine on the GPU is for one size; that
                of another one is fetched, or built, meanwhile.

        Raises:
            ModelError, EngineError: the camera has changed, and no engine takes its images.
        """
        self._camera_size = camera_size
        with self._lock:
            old, new = self._estimator, self._next
            if new is not None:
                self._estimator, self._next = new, None
        if new is not None:
            self._info(f"{new.engine.describe()} takes over")
            old.close()
        if self._estimator.engine.camera_size not in (None, camera_size):
            self._estimator.close()
            model = read_model(self.choice.path)
            self._estimator = DepthEstimator(self._without_gpu(model, self.choice))
        if self._uses_gpu and self._asked_size != camera_size and not self._is_busy():
            self._asked_size = camera_size
            if self._estimator.engine.camera_size != camera_size:
                self._start(self._fetch, camera_size)
        return self._estimator

    def replace(self, reason: str) -> DepthEstimator | None:
        """Puts an engine that needs no GPU in the place of one on a GPU that failed.

        Returns:
            What serves now, or None where the failed one is not on a GPU.

        Raises:
            ModelError, EngineError: no engine can take its place.
        """
        failed = self._estimator.engine
        if not isinstance(failed, TensorRtEngine):
            return None
        # It may hold all of the memory that there is.
        failed.close()
        self._uses_gpu = False
        engine = self._without_gpu(read_model(self.choice.path), self.choice)
        engine.declined = (f"tensorrt: {reason}", *engine.declined)
        self._set_warning(f"tensorrt: {reason}; {engine.describe()} serves")
        self._estimator = DepthEstimator(engine)
        return self._estimator

    def close(self) -> None:
        """Stops a build and frees the networks. Once is enough."""
        if self._closed:
            return
        self._closed = True
        if self._build is not None:
            self._build.stop()
        if self._thread is not None:
            self._thread.join()
        for estimator in filter(None, (self._estimator, self._next)):
            estimator.close()
        self._next = None

    # Opening

    def _open(self, choice: Choice, camera_size: CameraSize | None) -> Engine:
        """What can serve a choice at once. Where that is not on the GPU though the GPU could do it,
        `_uses_gpu` says so, and an engine for the camera is fetched when a frame of it is there.
        """
        model = read_model(choice.path)
        self._uses_gpu = False
        if choice.engine in CPU_ENGINES:
            return open_first((choice.engine,), model, choice.precision, choice.cache_dir)
        arguments = model, choice.precision, choice.cache_dir
        try:
            size = camera_size or last_camera_size(*arguments)
            self._uses_gpu = True
            if size is None:
                raise NotBuiltError("waits for the camera's first image, to build for its size")
            return open_plan(*arguments, size)
        except EngineError as error:
            engine = self._without_gpu(model, choice)
            engine.declined = (f"tensorrt: {error}", *engine.declined)
            if not isinstance(error, NotBuiltError):
                self._uses_gpu = False
                if choice.engine == "tensorrt" or not isinstance(error, UnavailableError):
                    self._set_warning(f"tensorrt: {error}; {engine.describe()} serves")
            return engine

    def _without_gpu(self, model: DepthModel, choice: Choice) -> Engine:
        """The best engine that needs no GPU, in the precision that was asked for if it has it."""
        try:
            return open_first(CPU_ENGINES, model, choice.precision, choice.cache_dir)
        except EngineError as error:
            if choice.precision == "auto":
                raise
            engine = open_first(CPU_ENGINES, model, "auto", choice.cache_dir)
            engine.declined = (str(error), *engine.declined)
            return engine

    # What takes over

    def start_reload(self, choice: Choice) -> None:
        """Starts to open another choice, which takes over once it is there and its answers are
        those of ONNX Runtime in float32. Meanwhile, and if it fails, what serves goes on serving.

        Raises:
            ModelError: there is no such model file.
            EngineError: a reload is under way already.
        """
        if self._is_busy():
            if self._build is None:
                raise EngineError("another model is being loaded; wait for it, then call again")
            # What is being built is for what is no longer wanted.
            self._build.stop()
            assert self._thread is not None
            self._thread.join()
        if not choice.path.is_file():
            raise ModelError(f"{choice.path}: no such model file; set the parameter model")
        self._start(self._reload, choice)

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start(self, work: Callable[[Any], None], argument: Any) -> None:
        self.progress = "loading an engine"

        def run() -> None:
            try:
                work(argument)
            except _StoppedError:
                pass
            finally:
                self.progress = ""

        self._thread = threading.Thread(target=run, name="engine")
        self._thread.start()

    def _fetch(self, camera_size: CameraSize) -> None:
        """Has an engine on the GPU for a camera's images take over."""
        choice = self.choice
        try:
            model = read_model(choice.path)
            self._hand_over(self._open_or_build(model, choice, camera_size))
        except (EngineError, ModelError) as error:
            self._set_warning(f"tensorrt: {error}; {self._estimator.engine.describe()} serves")

    def _reload(self, choice: Choice) -> None:
        before = self._uses_gpu, self.warning
        self.warning = ""
        try:
            engine = self._open(choice, self._camera_size)
            try:
                if self._uses_gpu and engine.camera_size is None and self._camera_size is not None:
                    on_gpu = self._open_or_build(read_model(choice.path), choice, self._camera_size)
                    engine.close()
                    engine = on_gpu
                    self._asked_size = self._camera_size
                elif self.warning and choice.engine == "tensorrt":
                    raise EngineError(self.warning)
                if engine.camera_size is None:
                    self._check(engine, choice)
            except BaseException:
                engine.close()
                raise
        except (ValueError, RuntimeError, OSError) as error:
            self._uses_gpu, self.warning = before
            serving = f"{self.choice.path.name} on {self._estimator.engine.describe()} serves on"
            self._set_warning(f"reload of {choice.path.name} is refused: {error}; {serving}")
            return
        self.choice, self.warning = choice, ""
        self._hand_over(engine)

    def _check(self, engine: Engine, choice: Choice) -> None:
        """Holds an engine to ONNX Runtime in float32; plans were, when they were built.

        Raises:
            EngineError: its answers are others.
        """
        model = read_model(choice.path)
        size = (model.metadata.height, model.metadata.width)
        with closing(OnnxEngine(model, "auto", None)) as reference:
            agreement = parity(engine, reference, parity_images(None, CHECKED, size))
        precision = "int8" if choice.precision == "auto" else choice.precision
        if faults := agreement.faults(*TOLERANCES[precision]):
            raise EngineError(f"{engine.describe()}: {'; '.join(faults)}")
        self._info(f"{choice.path.name} on {engine.describe()}: {agreement}")

    def _hand_over(self, engine: Engine) -> None:
        with self._lock:
            passed_over, self._next = self._next, DepthEstimator(engine)
        if passed_over is not None:
            passed_over.close()

    # Building

    def _open_or_build(self, model: DepthModel, choice: Choice, size: CameraSize) -> Engine:
        """The engine on the GPU, which takes as long as it takes.

        Raises:
            EngineError: it cannot be built, or loaded.
            _StoppedError: `close` or another reload came first.
        """
        arguments = model, choice.precision, choice.cache_dir, size
        try:
            return open_plan(*arguments)
        except NotBuiltError as missing:
            self._info(str(missing))
        name, logged = choice.path.name, -LOGGED_STEP

        def report(share: float, phase: str) -> None:
            nonlocal logged
            self.progress = f"building the TensorRT engine of {name}: {share:.0%} ({phase})"
            if share >= logged + LOGGED_STEP:
                logged = share
                self._info(self.progress)

        self._build = BackgroundBuild(choice.path, choice.precision, choice.cache_dir, size)
        try:
            if self._closed:
                self._build.stop()
            error = self._build.follow(report)
            if self._build.stopped:
                raise _StoppedError
        finally:
            self._build = None
        if error:
            raise EngineError(error)
        return open_plan(*arguments)

    def _set_warning(self, text: str) -> None:
        self.warning = text
        self._warn(text)


class _StoppedError(Exception):
    """A build that is no longer wanted."""
