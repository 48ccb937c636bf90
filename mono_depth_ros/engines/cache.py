"""Where built engines, timing caches, runtime caches and calibrated models are kept on disk.

An engine file is code, so a file is handed out only when this user owns it and its SHA-256 is the
one that the index noted when it was stored.

    <directory>/                 0700, owned by this user
        index.json               key, size, SHA-256, time and facts of every file, 0600
        index.lock               held shared to read and exclusive to write the index or the files
        MODEL-RUNTIME-...-ID.plan
        .engine-ID.lock          held while the file ID is being built
        .engine-RANDOM.tmp       a file that is being written; its writer holds a lock on it

All locks are `flock`: the kernel frees them when their process ends, however it ends.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pwd
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from mono_depth_ros.engines.engine import EngineError

KINDS = ("plan", "timing", "runtime", "onnx", "choice")
# Part of every key: raise it when the same model, built by this package, becomes another engine.
FORMAT = 1
INDEX_SCHEMA = 1
MAX_BYTES = 4 << 30

_STORED = re.compile(rf"[\w.+-]*[0-9a-f]{{16}}\.({'|'.join(KINDS)})", re.ASCII)
_TRANSIENT = re.compile(r"\.engine-\w+\.(tmp|lock)", re.ASCII)
# What a file system says of data that its medium has lost.
_DAMAGED = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)
_OTHER_FOLDER = "name another folder with --cache-dir (parameter cache_dir)"


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/mono_depth_ros`, or the same below `~/.cache`.

    A relative `XDG_CACHE_HOME` is ignored, as the XDG base directory specification asks.

    Raises:
        EngineError: there is neither this variable nor a home directory.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            raise EngineError(
                f"this user has no home directory to keep engines in; {_OTHER_FOLDER}"
            ) from None
    return base / "mono_depth_ros"


def open_cache(cache_dir: str | Path | None) -> EngineCache:
    """The cache in a folder that a user named, which stays as it is; None takes the default.

    Raises:
        EngineError: it cannot be used.
    """
    return EngineCache(Path(cache_dir or default_cache_dir()) / "engines")


@dataclass(frozen=True)
class CacheKey:
    """All that an engine depends on; two engines are interchangeable when their keys are equal.

    Attributes:
        kind: what the file holds, one of `KINDS`; also its suffix.
        model: stem of the model file, for people.
        digest: SHA-256 of the model, hexadecimal; "" for what does not depend on a model.
        runtime, version: such as "tensorrt" and "10.7.0".
        device: name of the GPU and version of its driver; "" for an engine that was built ahead
            of time for every GPU of a compute capability.
        compute_capability: such as "sm86"; "" where it does not matter.
        precision: one of `PRECISIONS`.
        shape: of the input, such as "240x320".

    Raises:
        ValueError: unknown kind.
    """

    kind: str
    model: str
    digest: str
    runtime: str
    version: str
    device: str
    compute_capability: str
    precision: str
    shape: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind '{self.kind}' is unknown; known: {', '.join(KINDS)}")

    @property
    def id(self) -> str:
        """SHA-256, hexadecimal, of all fields and `FORMAT`."""
        fields = json.dumps([FORMAT, *dataclasses.astuple(self)], ensure_ascii=False)
        # File names that are no UTF-8 reach Python as lone surrogates.
        return hashlib.sha256(fields.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def filename(self) -> str:
        """Readable, of at most 200 letters, digits and `_.+-`, not hidden, and unlike any other's.

        >>> key = CacheKey("plan", "compact", "", "tensorrt", "10.7.0", "", "sm86", "int8", "2x3")
        >>> key.filename
        'compact-tensorrt-10.7.0-sm86-int8-2x3-f008cc98dc71bcf3.plan'
        """
        target = self.device or self.compute_capability
        parts = (self.model, self.runtime, self.version, target, self.precision, self.shape)
        readable = [re.sub(r"[^A-Za-z0-9.+]+", "_", part) for part in parts if part]
        return f"{'-'.join(readable)[:160]}-{self.id[:16]}.{self.kind}".lstrip(".-")

    def difference(self, current: CacheKey) -> str:
        """What sets this key apart from the `current` one, in words; "" when they are equal.

        >>> old = CacheKey("plan", "compact", "", "tensorrt", "10.3.0", "", "sm86", "int8", "2x3")
        >>> old.difference(dataclasses.replace(old, version="10.7.0", compute_capability="sm89"))
        'version 10.3.0, now 10.7.0; compute capability sm86, now sm89'
        """
        words = []
        for name, now in dataclasses.asdict(current).items():
            before = getattr(self, name)
            if before != now and name == "digest":
                words.append("another model file")
            elif before != now:
                words.append(f"{name.replace('_', ' ')} {before or 'any'}, now {now or 'any'}")
        return "; ".join(words)


@dataclass(frozen=True)
class CacheEntry:
    """One stored file.

    Attributes:
        key: what it was stored under.
        path: where it is.
        bytes: its size.
        sha256: of its content, hexadecimal.
        created, used: when it was stored, and when last stored or loaded (ISO 8601, UTC).
        facts: what is known of it, such as its parity.
        reason: of a stale entry, in what it differs from the key that was asked for.
    """

    key: CacheKey
    path: Path
    bytes: int
    sha256: str
    created: str
    used: str
    facts: dict[str, Any]
    reason: str = ""


class _BrokenError(Exception):
    """A file that must not be believed, and why."""


class EngineCache:
    """Built engines in one directory, which threads and processes of one user may share.

    Args:
        directory: for this cache alone; made, private to this user, where it does not exist.
        max_bytes: what the stored files may take together; those unused for longest go first.

    Attributes:
        rejected: one line for each file that was found broken and was removed, with the reason.

    Raises:
        EngineError: the directory cannot be made, locked or written to, is not this user's, or
            others can write to it. Every method raises it, too, when it has come to that since.
    """

    def __init__(self, directory: Path, max_bytes: int = MAX_BYTES) -> None:
        self.directory = directory.absolute()
        self.max_bytes = max_bytes
        self.rejected: list[str] = []
        self._index = self.directory / "index.json"
        with self._locked(fcntl.LOCK_SH):
            pass

    def load(self, key: CacheKey) -> bytes | None:
        """What was stored under `key`, or None.

        A file that is not, byte for byte, what was stored is removed and noted in `rejected`.
        """
        path = self.directory / key.filename
        with self._locked(fcntl.LOCK_SH):
            entry = self._read_index().get(key)
            try:
                if entry is None:
                    _check_own(path.lstat())
                    raise _BrokenError("foreign (in no index)")
                data = _read_own(path, entry.bytes)
                # Of what was read: the file may be another by the time that it is read again.
                if hashlib.sha256(data).hexdigest() != entry.sha256:
                    raise _BrokenError("changed (its SHA-256 is not that of what was stored)")
                _touch(path)
            except FileNotFoundError:
                return None
            except _BrokenError as fault:
                path.unlink(missing_ok=True)
                self.rejected.append(f"engine {path.name}: {fault}; it will be rebuilt")
                return None
        return data

    def store(self, key: CacheKey, data: bytes | memoryview, facts: Mapping[str, Any]) -> Path:
        """Keeps `data` under `key`, in place of what was there, and makes room for it.

        Args:
            key: all that `data` depends on.
            data: contiguous.
            facts: anything that JSON can hold.

        Raises:
            EngineError: no room on the disk, or `data` is larger than the cache may become. What
                was stored before is still there.
        """
        path = self.directory / key.filename
        size = memoryview(data).nbytes
        if size > self.max_bytes:
            raise EngineError(
                f"{path.name}: {size} bytes are more than the {self.max_bytes} that"
                f" {self.directory} may hold; raise max_bytes of the EngineCache"
            )
        now = _iso(time.time())
        entry = CacheEntry(key, path, size, hashlib.sha256(data).hexdigest(), now, now, dict(facts))
        with self._explained(), ExitStack() as stack:
            with self._locked(fcntl.LOCK_SH):  # none sweeps before the new file is locked
                file, temporary = stack.enter_context(_temporary(self.directory))
            _write(file, data)
            with self._locked(fcntl.LOCK_EX):
                entries = self._read_index()
                entries.pop(key, None)
                self._evict(entries, self.max_bytes - size)
                entries[key] = entry
                with self._replacing_index(entries):
                    temporary.replace(path)
                    _touch(path)
                self._sweep(entries)
        return path

    def facts(self, key: CacheKey) -> dict[str, Any] | None:
        """What is known of the file stored under `key`, or None where there is none."""
        with self._locked(fcntl.LOCK_SH):
            entry = self._read_index().get(key)
        return None if entry is None else entry.facts

    def entries(self) -> list[CacheEntry]:
        """What is stored, the last used first."""
        with self._locked(fcntl.LOCK_SH):
            entries = self._read_index().values()
        return sorted(entries, key=lambda entry: entry.used, reverse=True)

    def stale(self, key: CacheKey) -> list[CacheEntry]:
        """Entries of the kind, model name and precision of `key` that another field rules out."""
        return [
            dataclasses.replace(entry, reason=entry.key.difference(key))
            for entry in self.entries()
            if entry.key != key
            and (entry.key.kind, entry.key.model, entry.key.precision)
            == (key.kind, key.model, key.precision)
        ]

    def clear(self) -> int:
        """Removes every file of this cache except those being written; returns how many.

        Files of other names are not touched, whoever put them there.
        """
        with self._locked(fcntl.LOCK_EX):
            self._index.unlink(missing_ok=True)
            return self._sweep({})

    @contextmanager
    def building(self, key: CacheKey, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Lets one thread of one process at a time build `key`; the others wait for their turn.

        Who had to wait should `load` again inside: the one before has probably stored it. A thread
        that holds the turn for `key` must not ask for it again.

        Args:
            key: what is about to be built.
            on_wait: called once before a wait; what it raises ends the attempt.
        """
        path = self.directory / f".engine-{key.id[:16]}.lock"
        while True:
            with self._locked(fcntl.LOCK_SH):  # none sweeps before the new file is locked
                lock = _open_lock(path)
                taken = _try_lock(lock)
            with lock:
                if not taken:
                    if on_wait is not None:
                        on_wait()
                        on_wait = None
                    with self._explained():
                        fcntl.flock(lock, fcntl.LOCK_EX)
                # The builder before removed the file; a third may have made and locked another.
                if not _is_at(lock, path):
                    continue
                try:
                    yield
                finally:
                    with self._explained():
                        path.unlink(missing_ok=True)
                return

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what the operating system refuses into an EngineError that names a remedy."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                reason = f"the disk is full; free some of it, or {_OTHER_FOLDER}"
            else:
                reason = f"cannot keep engines there ({error}); {_OTHER_FOLDER}"
            raise EngineError(f"{self.directory}: {reason}") from None

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        """Holds the index: `LOCK_SH` to read it or to remove broken files, `LOCK_EX` to change."""
        with self._explained():
            _claim(self.directory)
            with _open_lock(self.directory / "index.lock") as lock:
                fcntl.flock(lock, operation)
                yield

    def _read_index(self) -> dict[CacheKey, CacheEntry]:
        """All entries whose file exists; an index that cannot be believed is removed."""
        try:
            try:
                document = json.loads(_read_own(self._index))
                if document["schema"] != INDEX_SCHEMA:
                    raise _BrokenError(f"schema {document['schema']!r} is not {INDEX_SCHEMA}")
                found = [self._entry(item) for item in document["entries"]]
            except (LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
                raise _BrokenError(f"corrupt ({error!r})") from None
        except FileNotFoundError:
            return {}
        except _BrokenError as fault:
            self._index.unlink(missing_ok=True)
            self.rejected.append(f"{self._index}: {fault}; the engines there will be rebuilt")
            return {}
        return {entry.key: entry for entry in found if entry is not None}

    def _entry(self, item: dict[str, Any]) -> CacheEntry | None:
        """Parses an item of the index; None where its file is gone."""
        key = CacheKey(**{name: str(value) for name, value in dict(item["key"]).items()})
        path = self.directory / key.filename
        size, sha256, created = int(item["bytes"]), str(item["sha256"]), str(item["created"])
        facts = dict(item["facts"])
        try:
            used = _iso(path.lstat().st_mtime)
        except FileNotFoundError:
            return None
        return CacheEntry(key, path, size, sha256, created, used, facts)

    @contextmanager
    def _replacing_index(self, entries: Mapping[CacheKey, CacheEntry]) -> Iterator[None]:
        """Writes an index that takes its place when the block succeeds."""
        items = [
            {
                "key": vars(entry.key),
                "bytes": entry.bytes,
                "sha256": entry.sha256,
                "created": entry.created,
                "facts": entry.facts,
            }
            for entry in entries.values()
        ]
        document = {"schema": INDEX_SCHEMA, "entries": items}
        with _temporary(self.directory) as (file, temporary):
            _write(file, json.dumps(document, indent=1).encode())
            yield
            temporary.replace(self._index)

    @staticmethod
    def _evict(entries: dict[CacheKey, CacheEntry], room: int) -> None:
        """Drops what was not used for longest until the others fit into `room` bytes."""
        total = sum(entry.bytes for entry in entries.values())
        for entry in sorted(entries.values(), key=lambda entry: entry.used):
            if total <= room:
                return
            total -= entry.bytes
            del entries[entry.key]

    def _sweep(self, entries: Mapping[CacheKey, CacheEntry]) -> int:
        """Removes the files that are neither in `entries` nor being written; returns how many."""
        kept = {key.filename for key in entries}
        swept = [
            path
            for path in self.directory.iterdir()
            if (_STORED.fullmatch(path.name) and path.name not in kept)
            or (_TRANSIENT.fullmatch(path.name) and _is_abandoned(path))
        ]
        for path in swept:
            path.unlink(missing_ok=True)
        return len(swept)


def _iso(seconds: float) -> str:
    """Seconds since the epoch in ISO 8601, all of one length, so that they sort as text."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def _touch(path: Path) -> None:
    """Notes that a file was used now; the kernel's own notes are some milliseconds coarse."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"


def _claim(directory: Path) -> None:
    """Makes a directory, or holds one that exists to being this user's alone.

    Raises:
        EngineError: another user owns it or can write to it.
        OSError: it cannot be made.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        directory.mkdir(0o700)
    status = directory.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise EngineError(f"{directory}: is not a directory; {_OTHER_FOLDER}")
    if status.st_uid != os.geteuid():
        raise EngineError(
            f"{directory}: belongs to the user {_user_name(status.st_uid)}, and an engine is code"
            f" that its builder chose; {_OTHER_FOLDER}, or remove this one"
        )
    if status.st_mode & 0o022:
        raise EngineError(
            f"{directory}: others can write to it (mode {stat.S_IMODE(status.st_mode):04o}), so its"
            f" engines may not be yours; remove it, or {_OTHER_FOLDER}"
        )
    if status.st_mode & 0o077:
        directory.chmod(0o700)


def _check_own(status: os.stat_result) -> None:
    """Raises _BrokenError unless a file is a regular one that only this user can have written."""
    if stat.S_ISLNK(status.st_mode):
        raise _BrokenError("a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise _BrokenError("not a regular file")
    if status.st_uid != os.geteuid():
        raise _BrokenError(f"built by another user ({_user_name(status.st_uid)})")
    if status.st_mode & 0o022:
        raise _BrokenError("writable by others")


def _read_own(path: Path, size: int | None = None) -> bytes:
    """Content of a file that only this user can have written.

    Raises:
        FileNotFoundError: it is not there.
        _BrokenError: it is not such a file, has not the `size` in bytes, or the disk has lost it.
    """
    _check_own(path.lstat())
    try:
        # A pipe would otherwise be waited for until somebody writes to it.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            _check_own(status)
            if size is not None and status.st_size < size:
                raise _BrokenError(f"truncated ({status.st_size} of {size} bytes)")
            if size is not None and status.st_size > size:
                raise _BrokenError(f"changed ({status.st_size} bytes, of which {size} were stored)")
            return file.read()
    except OSError as error:
        if error.errno in _DAMAGED:
            raise _BrokenError(f"unreadable ({error.strerror})") from None
        raise


@contextmanager
def _temporary(directory: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file, 0600 and locked for as long as it is open, which is removed if it is not moved.

    Raises:
        OSError: the directory cannot be written to.
    """
    handle, name = tempfile.mkstemp(prefix=".engine-", suffix=".tmp", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _write(file: BinaryIO, data: bytes | memoryview) -> None:
    """Brings `data` to the disk, so that after a power cut no name stands for a part of it."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _open_lock(path: Path) -> FileIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return FileIO(os.open(path, flags, 0o600), "r+")


def _try_lock(lock: FileIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_abandoned(path: Path) -> bool:
    """Whether no process holds the lock on a file, since its own has ended."""
    with _open_lock(path) as lock:
        return _try_lock(lock)


def _is_at(lock: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
