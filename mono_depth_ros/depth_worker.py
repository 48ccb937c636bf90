"""What the cameras of one process share: the thread that estimates, and the engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

from mono_depth_ros.mailbox import Mailboxes
from mono_depth_ros.serving import Choice, Serving


class DepthWorker:
    """One thread for the images of all cameras, which takes them in turn, newest first.

    An engine uses all cores or the whole GPU, so a second thread would only make both slower.
    """

    def __init__(self) -> None:
        self._mailboxes: Mailboxes[Hashable, Any] = Mailboxes()
        self._work: dict[Hashable, Callable[[Any], None]] = {}
        self._thread: threading.Thread | None = None
        self._servings: list[tuple[Serving, set[Hashable]]] = []

    # The thread

    def attach(self, camera: Hashable, work: Callable[[Any], None]) -> None:
        """Has `work` called with what is then put for a camera; it must not raise."""
        self._work[camera] = work
        self._mailboxes.add(camera)
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._mailboxes,), name="depth", daemon=True
            )
            self._thread.start()

    def put(self, camera: Hashable, message: Any) -> bool:
        """Leaves a message; returns whether an older one was dropped for it."""
        return self._mailboxes.put(camera, message)

    def detach(self, camera: Hashable) -> None:
        """Ends the work for a camera, after the frame that it is at; the last one ends the
        thread.
        """
        if camera not in self._work:
            return
        self._mailboxes.remove(camera)
        del self._work[camera]
        if not self._work and self._thread is not None:
            self._mailboxes.close()
            self._thread.join()
            self._thread, self._mailboxes = None, Mailboxes()

    def _run(self, mailboxes: Mailboxes[Hashable, Any]) -> None:
        while (taken := mailboxes.take()) is not None:
            camera, message = taken
            self._work[camera](message)

    # The engines

    def open(
        self,
        camera: Hashable,
        choice: Choice,
        info: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> Serving:
        """The engine for a camera: that of another camera with the same choice, or a new one.

        Raises:
            ModelError, EngineError: as `Serving`.
        """
        for serving, cameras in self._servings:
            if serving.choice == choice:
                cameras.add(camera)
                return serving
        serving = Serving(choice, info, warn)
        self._servings.append((serving, {camera}))
        return serving

    def sharers(self, camera: Hashable) -> set[Hashable]:
        """The other cameras that use the engine of a camera."""
        users = (cameras for _, cameras in self._servings if camera in cameras)
        return next(users, set()) - {camera}

    def release(self, camera: Hashable) -> None:
        """Frees the engine of a camera if no other camera uses it."""
        for serving, cameras in self._servings:
            cameras.discard(camera)
            if not cameras:
                serving.close()
        self._servings = [(s, cameras) for s, cameras in self._servings if cameras]
