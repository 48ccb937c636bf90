"""The engine cache: it hands out what was stored, byte for byte, or says why it does not."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mono_depth_ros.engines.cache import KINDS, CacheKey, EngineCache, default_cache_dir
from mono_depth_ros.engines.engine import EngineError

KEY = CacheKey(
    kind="plan",
    model="compact",
    digest="ab" * 32,
    runtime="tensorrt",
    version="10.7.0",
    device="Orin (nvgpu), driver 540.4.0",
    compute_capability="sm87",
    precision="float16",
    shape="240x320",
)
OTHER = dataclasses.replace(KEY, model="large")
PLAN = bytes(range(256)) * 4
SOMEBODY = 12345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Python in a process of its own, with `cache` on the directory that comes first."""
    prelude = """
import json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mono_depth_ros.engines.cache import CacheKey, EngineCache
cache = EngineCache(Path(sys.argv[2]))
key = CacheKey(**json.loads(sys.argv[3]))
"""
    root = Path(__file__).absolute().parents[1]
    key = json.dumps(vars(KEY))
    command = [sys.executable, "-c", prelude + script, str(root), str(arguments[0]), key]
    child = subprocess.Popen(
        [*command, *map(str, arguments[1:])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def line(child: subprocess.Popen[str]) -> str:
    """The next line that a process writes."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def visible(cache: EngineCache) -> set[str]:
    return {path.name for path in cache.directory.iterdir()} - {"index.json", "index.lock"}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def index(cache: EngineCache) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((cache.directory / "index.json").read_text())
    return document


# What is kept


@pytest.mark.parametrize("data", [PLAN, memoryview(PLAN), b""])
def test_what_is_stored_is_loaded(cache: EngineCache, data: bytes | memoryview) -> None:
    assert cache.load(KEY) is None
    path = cache.store(KEY, data, {"parity": 0.998, "refused": ["int8"]})
    again = EngineCache(cache.directory)
    assert again.load(KEY) == bytes(data) == path.read_bytes()
    assert again.facts(KEY) == {"parity": 0.998, "refused": ["int8"]}
    assert cache.rejected == again.rejected == []
    assert visible(cache) == {KEY.filename}


def test_a_second_store_replaces_the_first(cache: EngineCache) -> None:
    cache.store(KEY, PLAN, {"parity": 1})
    cache.store(KEY, b"new", {})
    assert cache.load(KEY) == b"new" and cache.facts(KEY) == {}
    assert len(cache.entries()) == 1


def test_entries_say_what_is_stored(cache: EngineCache) -> None:
    before = time.time()
    path = cache.store(KEY, PLAN, {"parity": 1})
    (entry,) = cache.entries()
    assert (entry.key, entry.path, entry.bytes, entry.facts) == (KEY, path, 1024, {"parity": 1})
    assert entry.sha256 == hashlib.sha256(PLAN).hexdigest()
    stamp = time.strftime("%Y-%m-%dT%H:", time.gmtime(before))
    assert entry.created.startswith(stamp) or time.time() // 3600 != before // 3600
    assert entry.created.endswith("+00:00") and entry.used >= entry.created


def test_facts_are_those_that_were_stored(cache: EngineCache) -> None:
    assert cache.facts(KEY) is None
    cache.store(KEY, PLAN, {"parity": 2, "built": "here"})
    assert EngineCache(cache.directory).facts(KEY) == {"parity": 2, "built": "here"}
    assert cache.load(KEY) == PLAN


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(CacheKey)])
def test_an_engine_of_another_key_is_not_loaded(cache: EngineCache, field: str) -> None:
    cache.store(KEY, PLAN, {})
    other = {"kind": "onnx"}.get(field, getattr(KEY, field) + "1")
    assert cache.load(dataclasses.replace(KEY, **{field: other})) is None
    assert cache.load(KEY) == PLAN and cache.rejected == []


def test_an_entry_whose_file_was_deleted_is_no_entry(cache: EngineCache) -> None:
    cache.store(OTHER, PLAN, {})
    cache.store(KEY, PLAN, {}).unlink()
    assert cache.load(KEY) is None and cache.facts(KEY) is None
    assert [entry.key for entry in cache.entries()] == [OTHER] and cache.rejected == []


def test_a_directory_deleted_in_use_is_made_again(cache: EngineCache) -> None:
    cache.store(KEY, PLAN, {})
    shutil.rmtree(cache.directory)
    assert cache.load(KEY) is None
    cache.store(KEY, PLAN, {})
    assert cache.load(KEY) == PLAN and mode(cache.directory) == 0o700


def test_the_default_directory_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == Path("/home/robot/.cache/mono_depth_ros")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_dir() == Path("/home/robot/.cache/mono_depth_ros")
    monkeypatch.setenv("XDG_CACHE_HOME", "/data/cache")
    assert default_cache_dir() == Path("/data/cache/mono_depth_ros")


# Keys and names


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind '\.\./x' is unknown; known: plan"):
        dataclasses.replace(KEY, kind="../x")


def test_names_tell_people_what_is_in_a_file() -> None:
    start = "compact-tensorrt-10.7.0-Orin_nvgpu_driver_540.4.0-float16-240x320-"
    assert KEY.filename == f"{start}{KEY.id[:16]}.plan"


# Anything that a Python string holds, with what paths are made of more often than chance has it.
texts = st.text(st.characters() | st.sampled_from("./\\-_~\0\n "), max_size=300)
keys = st.builds(
    CacheKey, st.sampled_from(KINDS), texts, texts, texts, texts, texts, texts, texts, texts
)


@given(keys)
def test_every_name_is_a_plain_visible_file_of_the_directory(key: CacheKey) -> None:
    name = key.filename
    assert Path(name).name == name and len(os.fsencode(name)) <= 200
    assert name[0] not in ".-" and set(name) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-"
    )
    assert name.endswith(f"{key.id[:16]}.{key.kind}")


# Alike once made safe for paths; the last two are one character in UTF-16 and JSON.
alike = st.sampled_from(["", "a", "_", "-", "/", "a/", "a_", "\ud83d\ude00", "\U0001f600"])
alike_keys = st.builds(
    CacheKey, st.sampled_from(KINDS), alike, st.just(""), alike, *[st.just("a")] * 5
)


@given(alike_keys, alike_keys)
def test_two_keys_have_one_name_only_if_they_are_equal(first: CacheKey, second: CacheKey) -> None:
    assert (first.filename == second.filename) == (first == second)
    assert (first.id == second.id) == (first == second)


@given(texts, texts, texts)
def test_text_that_moves_between_fields_makes_another_key(a: str, b: str, c: str) -> None:
    first = dataclasses.replace(KEY, model=a + b, digest=c)
    second = dataclasses.replace(KEY, model=a, digest=b + c)
    assert (first.filename == second.filename) == (b == "")


def test_an_engine_of_another_model_or_version_is_stale_and_says_in_what(
    cache: EngineCache,
) -> None:
    cache.store(dataclasses.replace(KEY, version="10.3.0", compute_capability=""), PLAN, {})
    cache.store(dataclasses.replace(KEY, digest="cd" * 32), PLAN, {})
    cache.store(dataclasses.replace(KEY, kind="timing"), PLAN, {})
    cache.store(dataclasses.replace(KEY, precision="int8"), PLAN, {})
    cache.store(OTHER, PLAN, {})
    cache.store(KEY, PLAN, {})
    assert [entry.reason for entry in cache.stale(KEY)] == [
        "another model file",
        "version 10.3.0, now 10.7.0; compute capability any, now sm87",
    ]


# What is not believed


def truncated(path: Path) -> None:
    os.truncate(path, 1000)


def extended(path: Path) -> None:
    path.write_bytes(PLAN + b"x")


def changed(path: Path) -> None:
    path.write_bytes(PLAN[:-1] + b"x")


def linked(path: Path) -> None:
    path.replace(path.parent / "elsewhere")
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def writable(path: Path) -> None:
    path.chmod(0o666)


def given_away(path: Path) -> None:
    os.chown(path, SOMEBODY, SOMEBODY)


FAULTS = [
    (truncated, "truncated (1000 of 1024 bytes)"),
    (extended, "changed (1025 bytes, of which 1024 were stored)"),
    (changed, "changed (its SHA-256 is not that of what was stored)"),
    (linked, "a symbolic link"),
    (pipe, "not a regular file"),
    (writable, "writable by others"),
    pytest.param(given_away, f"built by another user (number {SOMEBODY})", marks=as_root),
]


@pytest.mark.parametrize(("damage", "reason"), FAULTS)
def test_a_damaged_engine_is_named_and_removed(
    cache: EngineCache, damage: Callable[[Path], None], reason: str
) -> None:
    cache.store(OTHER, PLAN, {})
    path = cache.store(KEY, PLAN, {})
    damage(path)
    assert cache.load(KEY) is None
    assert cache.rejected == [f"engine {path.name}: {reason}; it will be rebuilt"]
    assert not os.path.lexists(path) and cache.facts(KEY) is None
    assert [entry.key for entry in cache.entries()] == [OTHER]
    assert cache.load(KEY) is None and len(cache.rejected) == 1
    cache.store(KEY, PLAN, {})
    assert cache.load(KEY) == PLAN and cache.load(OTHER) == PLAN


def test_an_engine_in_no_index_is_foreign(cache: EngineCache) -> None:
    path = cache.directory / KEY.filename
    path.write_bytes(PLAN)
    assert cache.load(KEY) is None and not path.exists()
    assert cache.rejected == [f"engine {path.name}: foreign (in no index); it will be rebuilt"]


def test_an_engine_under_the_name_of_another_is_changed(cache: EngineCache) -> None:
    cache.store(OTHER, PLAN[::-1], {}).replace(cache.store(KEY, PLAN, {}))
    assert cache.load(KEY) is None and "changed (its SHA-256" in cache.rejected[0]


def test_an_index_entry_for_another_key_of_the_same_name_is_not_believed(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CacheKey, "filename", "same.plan")
    cache.store(OTHER, PLAN, {})
    assert cache.load(KEY) is None and "foreign (in no index)" in cache.rejected[0]


def test_an_engine_on_a_damaged_disk_is_named_and_removed(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.store(KEY, PLAN, {})
    real = os.open

    def failing(name: Any, *arguments: Any, **keywords: Any) -> int:
        if Path(name) == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(name))
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(os, "open", failing)
    assert cache.load(KEY) is None and not path.exists()
    assert "unreadable (Input/output error)" in cache.rejected[0]


def test_an_engine_that_turns_into_a_pipe_after_a_first_look_is_not_waited_for(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.store(KEY, PLAN, {})
    real = os.open

    def swapping(name: Any, *arguments: Any, **keywords: Any) -> int:
        if Path(name) == path:
            pipe(path)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(os, "open", swapping)
    assert cache.load(KEY) is None and not path.exists()
    assert "not a regular file" in cache.rejected[0]


def test_an_engine_is_not_lost_when_the_process_is_short_of_files(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.store(KEY, PLAN, {})
    real = os.open

    def failing(name: Any, *arguments: Any, **keywords: Any) -> int:
        if Path(name) == path:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(name))
        return real(name, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(EngineError, match="Too many open files"):
            cache.load(KEY)
    assert cache.load(KEY) == PLAN and cache.rejected == []


def write(text: str) -> Callable[[Path, dict[str, Any]], None]:
    def damage(path: Path, document: dict[str, Any]) -> None:
        path.write_text(text)

    return damage


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, dict[str, Any]], None]:
    def damage(path: Path, document: dict[str, Any]) -> None:
        change(document)
        path.write_text(json.dumps(document))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (write('{"schema": 1, "ent'), "corrupt (JSONDecodeError"),
        (write(""), "corrupt (JSONDecodeError"),
        (write("[" * 100_000), "corrupt (RecursionError"),
        (write("[]"), "corrupt (TypeError"),
        (write("null"), "corrupt (TypeError"),
        (edit(lambda document: document.update(schema=2)), "schema 2 is not 1"),
        (edit(lambda document: document.pop("entries")), "corrupt (KeyError"),
        (edit(lambda document: document["entries"].append("x")), "corrupt (TypeError"),
        (edit(lambda document: document["entries"][0].pop("facts")), "corrupt (KeyError"),
        (edit(lambda document: document["entries"][0].update(bytes=1e999)), "corrupt (Overflow"),
        (edit(lambda document: document["entries"][0].update(key=[1])), "corrupt (TypeError"),
        (
            edit(lambda document: document["entries"][0]["key"].update(kind="/../x")),
            "corrupt (ValueError",
        ),
        (edit(lambda document: document["entries"][0]["key"].pop("model")), "corrupt (TypeError"),
        (lambda path, document: path.chmod(0o666), "writable by others"),
        (lambda path, document: linked(path), "a symbolic link"),
        pytest.param(
            lambda path, document: given_away(path), "built by another user", marks=as_root
        ),
    ],
)
def test_an_index_that_cannot_be_believed_is_named_and_makes_its_engines_foreign(
    cache: EngineCache, damage: Callable[[Path, dict[str, Any]], None], reason: str
) -> None:
    path = cache.store(KEY, PLAN, {})
    damage(cache.directory / "index.json", index(cache))
    assert cache.entries() == []
    (message,) = cache.rejected
    assert message.startswith(f"{cache.directory / 'index.json'}: {reason}")
    assert message.endswith("; the engines there will be rebuilt") and "\n" not in message
    assert cache.load(KEY) is None and not path.exists()
    assert cache.rejected[1:] == [f"engine {path.name}: foreign (in no index); it will be rebuilt"]
    cache.store(KEY, PLAN, {})
    assert cache.load(KEY) == PLAN and len(cache.rejected) == 2


# Who may read and write


def test_only_the_user_can_reach_what_is_stored(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = EngineCache(tmp_path / "new" / "parents" / "engines")
        path = cache.store(KEY, PLAN, {})
    finally:
        os.umask(before)
    assert mode(cache.directory) == 0o700 and mode(cache.directory.parent) == 0o777
    assert mode(path) == mode(cache.directory / "index.json") == 0o600
    assert mode(cache.directory / "index.lock") == 0o600


def test_a_directory_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    EngineCache(tmp_path)
    assert mode(tmp_path) == 0o700


@pytest.mark.parametrize("permissions", [0o777, 0o720, 0o1777, 0o775])
def test_a_directory_that_others_can_write_to_is_refused(
    cache: EngineCache, permissions: int
) -> None:
    path = cache.store(KEY, PLAN, {})
    cache.directory.chmod(permissions)
    for use in (
        lambda: EngineCache(cache.directory),
        lambda: cache.load(KEY),
        lambda: cache.store(KEY, PLAN, {}),
        cache.entries,
        cache.clear,
    ):
        with pytest.raises(EngineError) as caught:
            use()
        assert str(cache.directory) in str(caught.value) and "--cache-dir" in str(caught.value)
        assert f"others can write to it (mode {permissions:04o})" in str(caught.value)
    assert mode(cache.directory) == permissions and path.read_bytes() == PLAN


@as_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    given_away(tmp_path)
    with pytest.raises(EngineError, match=f"belongs to the user number {SOMEBODY}.*--cache-dir"):
        EngineCache(tmp_path)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(EngineError, match=r"file: is not a directory; .*--cache-dir"):
        EngineCache(file)
    with pytest.raises(EngineError, match=r"below: cannot keep engines there .*--cache-dir"):
        EngineCache(file / "below")
    assert file.read_text() == "kept"


def test_a_directory_behind_a_link_is_used(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(0o755)
    (tmp_path / "engines").symlink_to("disk")
    EngineCache(tmp_path / "engines").store(KEY, PLAN, {})
    assert (tmp_path / "disk" / KEY.filename).read_bytes() == PLAN
    assert mode(tmp_path / "disk") == 0o700


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_directory_that_cannot_be_written_to_is_an_error_of_one_line(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    cache.store(KEY, PLAN, {})
    real = os.open

    def refusing(name: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise OSError(code, os.strerror(code), str(name))
        return real(name, flags, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        with pytest.raises(EngineError) as caught:
            cache.store(KEY, b"new", {})
    message = str(caught.value)
    assert message.startswith(f"{cache.directory}: cannot keep engines there")
    assert os.strerror(code) in message and "--cache-dir (parameter cache_dir)" in message
    assert "\n" not in message and cache.load(KEY) == PLAN


# Room


def test_what_was_unused_for_longest_makes_room(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines", max_bytes=3 * len(PLAN))
    keys = [dataclasses.replace(KEY, shape=str(number)) for number in range(5)]
    for key in keys[:3]:
        cache.store(key, PLAN, {})
    assert cache.load(keys[0]) == PLAN
    cache.store(keys[3], PLAN, {})
    assert [entry.key for entry in cache.entries()] == [keys[3], keys[0], keys[2]]
    assert visible(cache) == {keys[number].filename for number in (0, 2, 3)}
    # Two must go for one that is larger, but not what it replaces.
    cache.store(keys[3], PLAN * 2, {})
    assert [entry.key for entry in cache.entries()] == [keys[3], keys[0]]
    cache.store(keys[4], PLAN * 3, {})
    assert [entry.key for entry in cache.entries()] == [keys[4]]
    assert visible(cache) == {keys[4].filename} and cache.rejected == []


def test_the_limit_is_reached_before_anything_goes(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines", max_bytes=2 * len(PLAN))
    cache.store(OTHER, PLAN, {})
    for _ in range(3):
        cache.store(KEY, PLAN, {})
    assert cache.load(OTHER) == PLAN


def test_what_is_larger_than_the_cache_is_refused(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines", max_bytes=len(PLAN))
    cache.store(KEY, PLAN, {})
    with pytest.raises(EngineError, match=r"1025 bytes are more than the 1024 .*raise max_bytes"):
        cache.store(OTHER, PLAN + b"x", {})
    assert cache.load(KEY) == PLAN and visible(cache) == {KEY.filename}


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_leaves_what_was_there(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, call: int, code: int
) -> None:
    """The first fsync is of the engine, the second of the index."""
    cache.store(KEY, PLAN, {"parity": 1})
    cache.store(OTHER, PLAN, {})
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == call:
            raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EngineError, match=r"the disk is full; .*--cache-dir \(parameter"):
            cache.store(KEY, b"new", {})
    assert len(calls) == call
    assert cache.load(KEY) == PLAN and cache.facts(KEY) == {"parity": 1}
    assert cache.load(OTHER) == PLAN and cache.rejected == []
    assert {path.name for path in cache.directory.iterdir()} == {
        "index.json",
        "index.lock",
        KEY.filename,
        OTHER.filename,
    }


def test_a_really_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(tmp_path)]
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-r", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*namespace, *mount], check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    root = Path(__file__).absolute().parents[1]
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(root)!r})
from mono_depth_ros.engines.cache import CacheKey, EngineCache
from mono_depth_ros.engines.engine import EngineError
cache = EngineCache(Path({str(tmp_path)!r}))
key = CacheKey(*["plan"] * 9)
cache.store(key, b"x" * 20_000, {{}})
try:
    cache.store(key, b"y" * 100_000, {{}})
except EngineError as error:
    print(error)
print(cache.load(key) == b"x" * 20_000, sorted(p.name for p in cache.directory.iterdir()))
"""
    shell = f'{" ".join(mount)} && exec "$0" -c "$1"'
    done = subprocess.run(
        [*namespace, "sh", "-c", shell, sys.executable, script],
        capture_output=True,
        text=True,
        check=True,
    )
    error, rest = done.stdout.splitlines()
    assert error.startswith(f"{tmp_path}: the disk is full; free some of it")
    name = CacheKey(*["plan"] * 9).filename
    assert rest == f"True ['index.json', 'index.lock', '{name}']"


# Clearing


def test_clear_removes_all_that_is_the_caches_and_nothing_else(cache: EngineCache) -> None:
    cache.store(KEY, PLAN, {})
    cache.store(OTHER, PLAN, {})
    orphan = dataclasses.replace(KEY, model="orphan").filename
    for name in (orphan, ".engine-a1b2c3d4.tmp", f".engine-{OTHER.id[:16]}.lock"):
        (cache.directory / name).write_bytes(b"x")
    mine = {"compact.onnx", "notes.txt", ".bashrc", "1234567890.blob", "x.plan"}
    for name in mine:
        (cache.directory / name).write_bytes(b"mine")
    assert cache.clear() == 5
    assert visible(cache) == mine and cache.entries() == []
    assert cache.clear() == 0 and cache.load(KEY) is None and cache.rejected == []
    cache.store(KEY, PLAN, {})
    assert cache.load(KEY) == PLAN


def test_a_store_sweeps_what_dead_builders_left(cache: EngineCache) -> None:
    orphan = dataclasses.replace(KEY, model="orphan").filename
    for name in (orphan, ".engine-a1b2c3d4.tmp"):
        (cache.directory / name).write_bytes(b"x")
    cache.store(KEY, PLAN, {})
    assert visible(cache) == {KEY.filename}


# Several at once


def test_a_writer_in_another_process_is_not_swept_away(cache: EngineCache) -> None:
    script = """
def fsync(handle):
    os.fsync = real
    print("writing", flush=True)
    sys.stdin.readline()
real, os.fsync = os.fsync, fsync
with cache.building(key):
    cache.store(key, b"theirs" * 1000, {})
print("stored", flush=True)
"""
    with process(script, cache.directory) as child:
        assert line(child) == "writing"
        assert cache.load(KEY) is None and cache.rejected == []
        cache.store(OTHER, PLAN, {})
        assert cache.clear() == 1
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert line(child) == "stored"
    assert cache.load(KEY) == b"theirs" * 1000 and visible(cache) == {KEY.filename}


def test_a_builder_killed_while_it_writes_leaves_no_half_file_and_no_lock(
    cache: EngineCache,
) -> None:
    script = """
os.fsync = lambda handle: (print("writing", flush=True), time.sleep(600))
with cache.building(key):
    cache.store(key, b"theirs" * 1000, {})
"""
    with process(script, cache.directory) as child:
        assert line(child) == "writing"
        assert any(name.endswith(".tmp") for name in visible(cache))
        child.kill()
        child.wait()
        waited: list[bool] = []
        with cache.building(KEY, lambda: waited.append(True)):
            assert waited == [] and cache.load(KEY) is None and cache.rejected == []
            cache.store(KEY, PLAN, {})
    assert cache.load(KEY) == PLAN and visible(cache) == {KEY.filename}


def test_who_waits_is_told_once_and_goes_on_when_the_builder_is_killed(
    cache: EngineCache,
) -> None:
    script = """
with cache.building(key):
    print("building", flush=True)
    time.sleep(600)
"""
    with process(script, cache.directory) as child:
        assert line(child) == "building"
        with cache.building(OTHER, lambda: pytest.fail("another engine need not be waited for")):
            pass
        waited: list[bool] = []

        def end() -> None:
            waited.append(True)
            child.kill()

        with cache.building(KEY, end):
            assert child.wait(10) == -9
    assert waited == [True] and visible(cache) == set()


def test_who_waits_for_two_builders_is_told_once(cache: EngineCache) -> None:
    first, second = cache.building(KEY), cache.building(KEY)
    first.__enter__()
    waited: list[bool] = []
    timer = threading.Timer(0.05, lambda: second.__exit__(None, None, None))

    def overtake() -> None:
        waited.append(True)
        first.__exit__(None, None, None)
        second.__enter__()
        timer.start()

    with cache.building(KEY, overtake):
        timer.join()
        assert waited == [True]


def test_who_does_not_want_to_wait_need_not(cache: EngineCache) -> None:
    class BusyError(Exception):
        pass

    def give_up() -> None:
        raise BusyError

    with cache.building(KEY):
        with pytest.raises(BusyError), EngineCache(cache.directory).building(KEY, give_up):
            pytest.fail("two build at once")
        # Who gave up has not freed the lock of who builds.
        with pytest.raises(BusyError), cache.building(KEY, give_up):
            pytest.fail("two build at once")


def test_a_failed_build_frees_its_lock_and_keeps_its_error(cache: EngineCache) -> None:
    with pytest.raises(OSError, match="of the build"), cache.building(KEY):
        raise OSError("of the build")
    with cache.building(KEY, lambda: pytest.fail("the lock is still held")):
        pass


def test_of_many_threads_one_builds_at_a_time(cache: EngineCache) -> None:
    inside, most, built = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, built
        for _ in range(10):
            with EngineCache(cache.directory).building(KEY):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                built += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, built) == (1, 60) and visible(cache) == set()


def test_of_many_processes_one_builds_and_all_load_the_same(cache: EngineCache) -> None:
    script = """
data = cache.load(key)
if data is None:
    with cache.building(key):
        data = cache.load(key)
        if data is None:
            time.sleep(0.2)
            data = str(os.getpid()).encode() * 1000
            cache.store(key, data, {})
            print("built", end=" ")
print(data[:10].decode(), cache.rejected, flush=True)
"""
    with (
        process(script, cache.directory) as first,
        process(script, cache.directory) as second,
        process(script, cache.directory) as third,
    ):
        lines = [line(child) for child in (first, second, third)]
    (builder,) = [text for text in lines if text.startswith("built ")]
    assert {text.removeprefix("built ") for text in lines} == {builder.removeprefix("built ")}
    assert lines[0].endswith(" []")


def test_stores_and_loads_of_many_processes_lose_nothing(cache: EngineCache) -> None:
    """Each stores files of its own and rewrites a shared one, and loads that whole, always."""
    script = """
import dataclasses
name = sys.argv[4]
for number in range(15):
    own = dataclasses.replace(key, model=name, shape=str(number))
    cache.store(own, name.encode() * 100, {"by": name, "number": number})
    cache.store(key, name.encode() * (1000 + number), {"by": name})
    data = cache.load(key)
    assert data is not None and len(set(data)) == 1 and len(data) >= 1000, data
print(cache.rejected, flush=True)
"""
    with (
        process(script, cache.directory, "a") as first,
        process(script, cache.directory, "b") as second,
        process(script, cache.directory, "c") as third,
    ):
        assert [line(child) for child in (first, second, third)] == ["[]"] * 3
    entries = {entry.key: entry for entry in cache.entries()}
    assert len(entries) == 46
    for name in "abc":
        for number in range(15):
            own = dataclasses.replace(KEY, model=name, shape=str(number))
            assert entries[own].facts == {"by": name, "number": number}
            assert cache.load(own) == name.encode() * 100
    assert cache.load(KEY) is not None and cache.rejected == []
