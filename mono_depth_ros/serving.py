"""The estimator that serves, and how a better one takes its place without a frame being lost.

What can be opened at once serves. Where TensorRT could run the model but has no engine of it for
the camera yet, one is built meanwhile and takes over between two frames. An engine that fails is
replaced by one that needs no GPU. Another model takes over only once its answers are right.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
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
from mono_depth_ros.parity import TOLERANCES, Agreement, parity, parity_images

# Images that another model is checked on before it takes over.
CHECKED = 4
# An engine on the GPU is for one size of image. This many more than the one at work are kept, for
# cameras of several sizes that take turns.
KEPT_SIZES = 3
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


@dataclass(frozen=True)
class _Opened:
    """An engine that can serve at once.

    Attributes:
        engine: opened.
        wants_gpu: whether one on the GPU is to be fetched for the camera's images.
        warning: why it is not what was asked for; empty if it is.
    """

    engine: Engine
    wants_gpu: bool
    warning: str


class Serving:
    """Opens, builds, swaps and replaces engines.

    `current` and `replace` belong to the thread that estimates; the rest may be called from any.
    One more thread at most loads or builds.

    Args:
        choice: what to open.
        info, warn: log a line; called from any thread.

    Attributes:
        choice: what was accepted, last.
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
        # Held while the following are changed together, and never while anything is waited for.
        self._lock = threading.Lock()
        self._next: DepthEstimator | None = None
        self._build: BackgroundBuild | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        # Of the last frame, and those that an engine on the GPU was asked for.
        self._camera_size: CameraSize | None = None
        self._asked_sizes: set[CameraSize] = set()
        # What serves frames of other sizes than the last one's, by the size that it is for; what
        # takes any size is under None. All of them, and `_estimator`, are of `_kept_model`.
        self._kept: OrderedDict[CameraSize | None, DepthEstimator] = OrderedDict()
        self.choice, self.progress, self.warning = choice, "", ""
        # Kept, not read again: the file may have become one that nobody has accepted.
        self._kept_model = self._model = read_model(choice.path)
        opened = _open(self._model, choice, None)
        self._estimator, self._wants_gpu = DepthEstimator(opened.engine), opened.wants_gpu
        self._set_warning(opened.warning)

    # What serves

    @property
    def input_size(self) -> CameraSize:
        """Height and width of the network's input."""
        return self._model.metadata.height, self._model.metadata.width

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
                of another one is fetched, or built, meanwhile, and both are kept: several cameras
                may take turns.

        Raises:
            EngineError: no engine takes images of this size.
        """
        with self._lock:
            self._camera_size = camera_size
            new, self._next = self._next, None
            model = self._model
        if new is not None:
            self._info(f"{new.engine.describe()} takes over")
            if model is not self._kept_model:
                # What is there is of the model before.
                self._close_kept()
                self._kept_model = model
                self._estimator.close()
                self._estimator = new
            else:
                self._keep(new)
        if self._estimator.engine.camera_size != camera_size:
            self._switch(camera_size, new)
        known = (*self._asked_sizes, self._estimator.engine.camera_size)
        if self._wants_gpu and camera_size not in known:
            self._start(self._fetch, camera_size)
        return self._estimator

    def _switch(self, camera_size: CameraSize, new: DepthEstimator | None) -> None:
        """Has the best estimator for a size serve that does not serve yet."""
        old, best = self._estimator, self._kept.pop(camera_size, None)
        if best is None:
            if old.engine.camera_size is None:
                return
            best = self._kept.pop(None, None)
        self._estimator = best or DepthEstimator(_without_gpu(self._kept_model, self.choice)[0])
        if best is new and old.engine.camera_size is None:
            # It stood in for the one that has come; who else needs it opens it again.
            old.close()
        else:
            self._keep(old)

    def _keep(self, estimator: DepthEstimator) -> None:
        """Keeps an estimator for frames of another size than the last one's."""
        size = estimator.engine.camera_size
        replaced = self._kept.pop(size, None)
        self._kept[size] = estimator
        if replaced is None and len(self._kept) > KEPT_SIZES:
            _, replaced = self._kept.popitem(last=False)
        if replaced is not None:
            replaced.close()

    def _close_kept(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()

    def replace(self, reason: str) -> DepthEstimator | None:
        """Puts an engine that needs no GPU in the place of one on a GPU that failed.

        Returns:
            What serves now, or None where the failed one is not on a GPU.

        Raises:
            EngineError: no engine can take its place; the next frame may try again.
        """
        failed = self._estimator.engine
        if not isinstance(failed, TensorRtEngine):
            return None
        # They may hold all of the memory that there is.
        failed.close()
        self._close_kept()
        self._wants_gpu = False
        engine, _ = _without_gpu(self._model, self.choice)
        engine.declined = (f"tensorrt: {reason}", *engine.declined)
        self._set_warning(f"tensorrt: {reason}; {engine.describe()} serves")
        self._estimator = DepthEstimator(engine)
        return self._estimator

    def close(self) -> None:
        """Stops a build and frees the networks. Once is enough."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            build, thread = self._build, self._thread
        if build is not None:
            build.stop()
        if thread is not None:
            thread.join()
        for estimator in filter(None, (self._estimator, self._next)):
            estimator.close()
        self._close_kept()
        self._next = None

    # What takes over

    def start_reload(self, choice: Choice) -> None:
        """Starts to open another choice, which takes over once it is there and its answers are
        those of ONNX Runtime in float32. Meanwhile, and if it fails, what serves goes on serving.

        Raises:
            ModelError: there is no such model file.
            EngineError: a reload is under way already.
        """
        try:
            is_there = choice.path.is_file()
        except OSError as error:  # such as a folder on the way that may not be entered
            raise ModelError(f"{choice.path}: {error.strerror}; set the parameter model") from None
        if not is_there:
            raise ModelError(f"{choice.path}: no such model file; set the parameter model")
        with self._lock:
            build, thread = self._build, self._thread
        if build is not None and thread is not None:
            # What is being built is for what is no longer wanted.
            build.stop()
            thread.join()
        if not self._start(self._reload, choice):
            raise EngineError("another model is being loaded; wait for it, then call again")

    def _start(self, work: Callable[[Any], None], argument: Any) -> bool:
        """Runs something in the thread that loads and builds; False where that is busy."""

        def run() -> None:
            try:
                work(argument)
            except _StoppedError:
                # What comes instead may fail, and then this is still wanted.
                self._asked_sizes.clear()
            finally:
                self.progress = ""

        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return False
            self.progress = "loading an engine"
            self._thread = threading.Thread(target=run, name="engine")
            self._thread.start()
        return True

    def _fetch(self, camera_size: CameraSize) -> None:
        """Has an engine on the GPU for a camera's images take over."""
        self._asked_sizes.add(camera_size)
        try:
            engine = self._open_or_build(self._model, self.choice, camera_size)
        except _StoppedError:
            raise
        except Exception as error:  # whatever it is, depth goes on, and somebody should know
            self._set_warning(f"tensorrt: {error}; {self._estimator.engine.describe()} serves")
        else:
            with self._lock:
                passed_over, self._next = self._next, DepthEstimator(engine)
            if passed_over is not None:
                passed_over.close()

    def _reload(self, choice: Choice) -> None:
        size = self._camera_size
        try:
            model = read_model(choice.path)
            opened = self._open_checked(model, choice, size)
        except _StoppedError:
            raise
        except Exception as error:  # as above
            self._asked_sizes.clear()
            serving = f"{self.choice.path.name} on {self._estimator.engine.describe()} serves on"
            self._set_warning(f"reload of {choice.path.name} is refused: {error}; {serving}")
            return
        with self._lock:
            passed_over, self._next = self._next, DepthEstimator(opened.engine)
            self.choice, self._model, self._wants_gpu = choice, model, opened.wants_gpu
            self._asked_sizes = {size} if size and opened.engine.camera_size else set()
        self._set_warning(opened.warning)
        if passed_over is not None:
            passed_over.close()

    def _open_checked(self, model: DepthModel, choice: Choice, size: CameraSize | None) -> _Opened:
        """What is to take over, with the answers that it should have.

        Raises:
            EngineError: it cannot be opened or built, or answers otherwise.
            _StoppedError: `close` or another reload came first.
        """
        opened = _open(model, choice, size)
        try:
            if opened.wants_gpu and size is not None and opened.engine.camera_size is None:
                on_gpu = self._open_or_build(model, choice, size)
                opened.engine.close()
                opened = _Opened(on_gpu, True, "")
            # A GPU that has no room for both is no reason to give up the one that works.
            has_gpu = isinstance(self._estimator.engine, TensorRtEngine)
            if opened.warning and (choice.engine == "tensorrt" or has_gpu):
                raise EngineError(opened.warning)
            # Plans were held to float32 when they were built.
            if not isinstance(opened.engine, TensorRtEngine):
                agreement = _check(opened.engine, model, choice)
                self._info(f"{choice.path.name} on {opened.engine.describe()}: {agreement}")
        except BaseException:
            opened.engine.close()
            raise
        return opened

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

        with self._lock:
            if self._closed:
                raise _StoppedError
            build = BackgroundBuild(choice.path, choice.precision, choice.cache_dir, size)
            self._build = build
        try:
            error = build.follow(report)
        finally:
            with self._lock:
                self._build = None
        if build.stopped:
            raise _StoppedError
        if error:
            raise EngineError(error)
        try:
            return open_plan(*arguments)
        except NotBuiltError as missing:
            # The build read the file again.
            raise EngineError(
                f"{missing}; if {choice.path} has changed, call ~/reload_model"
            ) from None

    def _set_warning(self, text: str) -> None:
        self.warning = text
        if text:
            self._warn(text)


class _StoppedError(Exception):
    """A build that is no longer wanted."""


def _open(model: DepthModel, choice: Choice, camera_size: CameraSize | None) -> _Opened:
    """What can serve a choice at once.

    Args:
        camera_size: of the camera's images; None takes the one that an engine was last used for.

    Raises:
        EngineError: no engine takes the model.
    """
    if choice.engine in CPU_ENGINES:
        names = (choice.engine,)
        return _Opened(open_first(names, model, choice.precision, choice.cache_dir), False, "")
    arguments = model, choice.precision, choice.cache_dir
    try:
        size = camera_size or last_camera_size(*arguments)
        if size is None:
            raise NotBuiltError("waits for the camera's first image, to build for its size")
        return _Opened(open_plan(*arguments, size), True, "")
    except EngineError as error:
        engine, warning = _without_gpu(model, choice)
        engine.declined = (f"tensorrt: {error}", *engine.declined)
        if isinstance(error, NotBuiltError):
            return _Opened(engine, True, "")
        # Who asked for nothing in particular need not hear that there is no GPU.
        if choice.engine == "tensorrt" or not isinstance(error, UnavailableError):
            warning = f"tensorrt: {error}; {engine.describe()} serves"
        return _Opened(engine, False, warning)


def _without_gpu(model: DepthModel, choice: Choice) -> tuple[Engine, str]:
    """The best engine that needs no GPU, and why it is not of the precision that was asked for.

    Raises:
        EngineError: none takes the model.
    """
    try:
        return open_first(CPU_ENGINES, model, choice.precision, choice.cache_dir), ""
    except EngineError as error:
        if choice.precision in ("auto", "float32"):
            raise
        engine = open_first(CPU_ENGINES, model, "float32", choice.cache_dir)
        engine.declined = (str(error), *engine.declined)
        return engine, f"{error}; {engine.describe()} serves"


def _check(engine: Engine, model: DepthModel, choice: Choice) -> Agreement:
    """Holds an engine to ONNX Runtime in float32.

    Raises:
        EngineError: its answers are others.
    """
    size = (model.metadata.height, model.metadata.width)
    with closing(OnnxEngine(model, "auto", None)) as reference:
        agreement = parity(engine, reference, parity_images(None, CHECKED, size))
    own = engine.metadata.document.get("precision")
    # What a file says of itself, and what was asked of a file that says nothing.
    precision = own if own in TOLERANCES and own != "float32" else choice.precision
    if faults := agreement.faults(*TOLERANCES.get(precision, TOLERANCES["float32"])):
        raise EngineError(f"{engine.describe()}: {'; '.join(faults)}")
    return agreement
