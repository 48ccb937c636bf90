"""One thread for several cameras: newest first, in turn, and it ends when it should."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import networks
import numpy as np
import pytest

from mono_depth_ros.depth_worker import DepthWorker
from mono_depth_ros.mailbox import Mailboxes
from mono_depth_ros.serving import Choice

# What waits for this long has failed.
DEADLINE_S = 30.0


class Camera:
    """Work that records what it is given, and holds the thread until it is let go."""

    def __init__(self, log: list[tuple[str, int]], name: str) -> None:
        self.name, self._log = name, log
        self.started, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, item: int) -> None:
        self.started.release()
        assert self.may_end.acquire(timeout=DEADLINE_S)
        self._log.append((self.name, item))


@pytest.fixture
def worker() -> Iterator[DepthWorker]:
    made = DepthWorker()
    yield made
    for name in "abc":
        made.detach(name)
    assert not any(thread.name == "depth" for thread in threading.enumerate())


def test_the_newest_item_is_worked_on_and_the_one_it_replaces_is_reported(
    worker: DepthWorker,
) -> None:
    log: list[tuple[str, int]] = []
    a = Camera(log, "a")
    worker.attach("a", a)
    assert not worker.put("a", 0)
    assert a.started.acquire(timeout=DEADLINE_S)
    assert [worker.put("a", i) for i in (1, 2, 3)] == [False, True, True]
    for _ in range(2):
        a.may_end.release()
    assert a.started.acquire(timeout=DEADLINE_S)
    worker.detach("a")
    assert log == [("a", 0), ("a", 3)]


def test_cameras_take_turns_however_fast_one_is(worker: DepthWorker) -> None:
    log: list[tuple[str, int]] = []
    cameras = [Camera(log, name) for name in "abc"]
    for camera in cameras:
        worker.attach(camera.name, camera)
    worker.put("a", 0)
    assert cameras[0].started.acquire(timeout=DEADLINE_S)
    for i in range(1, 6):
        # All have something new, the fast one most.
        for name in "aabca":
            worker.put(name, i)
        at_work = cameras[(i - 1) % 3]
        at_work.may_end.release()
        assert cameras[i % 3].started.acquire(timeout=DEADLINE_S)
    cameras[2].may_end.release()
    for name in "abc":
        for camera in cameras:
            camera.may_end.release()
        worker.detach(name)
    assert [name for name, _ in log[:6]] == list("abcabc")
    # Nothing is older than what was there when its turn came.
    assert log[:6] == [("a", 0), ("b", 1), ("c", 2), ("a", 3), ("b", 4), ("c", 5)]


def test_detach_waits_for_the_item_at_hand_and_drops_the_next(worker: DepthWorker) -> None:
    log: list[tuple[str, int]] = []
    a = Camera(log, "a")
    worker.attach("a", a)
    worker.put("a", 1)
    assert a.started.acquire(timeout=DEADLINE_S)
    worker.put("a", 2)
    ended = threading.Event()

    def detach() -> None:
        worker.detach("a")
        ended.set()

    threading.Thread(target=detach, daemon=True).start()
    assert not ended.wait(0.1) and log == []
    a.may_end.release()
    assert ended.wait(DEADLINE_S) and log == [("a", 1)]


def test_one_camera_leaves_and_comes_back_while_another_goes_on(worker: DepthWorker) -> None:
    log: list[tuple[str, int]] = []
    a, b = Camera(log, "a"), Camera(log, "b")
    worker.attach("a", a)
    worker.attach("b", b)
    for i in range(5):
        worker.put("b", i)
        assert b.started.acquire(timeout=DEADLINE_S)
        b.may_end.release()
        worker.detach("a")
        # Its mailbox is gone.
        assert not worker.put("a", i)
        worker.attach("a", a)
        worker.put("a", i)
        assert a.started.acquire(timeout=DEADLINE_S)
        a.may_end.release()
    worker.detach("a")
    worker.detach("a")
    worker.detach("b")
    assert log == [entry for i in range(5) for entry in (("b", i), ("a", i))]
    # The thread has ended; another camera starts another.
    worker.attach("c", Camera(log, "c"))


def test_closed_mailboxes_end_every_take() -> None:
    mailboxes: Mailboxes[str, int] = Mailboxes()
    mailboxes.add("a")
    mailboxes.put("a", 1)
    mailboxes.close()
    assert mailboxes.take() is None and mailboxes.take() is None


def test_cameras_with_the_same_choice_share_an_engine_until_the_last_one_releases_it(
    tmp_path: Path,
) -> None:
    model = str(networks.red_channel(tmp_path / "red.onnx"))
    worker, logged = DepthWorker(), list[str]()
    choice = Choice(model, "onnx", "auto", tmp_path / "cache")
    other = Choice(model, "openvino", "auto", tmp_path / "cache")
    first = worker.open("a", choice, logged.append, logged.append)
    assert worker.open("b", choice, logged.append, logged.append) is first
    third = worker.open("c", other, logged.append, logged.append)
    assert third is not first
    image = np.full((networks.HEIGHT, networks.WIDTH, 3), 100, np.uint8)
    engine = first.current((networks.HEIGHT, networks.WIDTH)).engine
    worker.release("a")
    worker.release("a")
    np.testing.assert_allclose(engine.infer(image), 100 * networks.RED_SCALE, rtol=1e-5)
    worker.release("b")
    # Closed: the next one is another.
    again = worker.open("a", choice, logged.append, logged.append)
    assert again is not first
    worker.release("a")
    worker.release("c")
