"""Shared libraries that define names and nothing else.

TensorRT's Python bindings come from PyPI, the libraries that they are linked to do not, and without
them the import fails. What an import asks of a library is that it defines certain functions;
nothing calls them. So bindings can be looked at with these in the libraries' place.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence
from pathlib import Path

# e_machine of the ELF header.
MACHINES = {"x86_64": 62, "aarch64": 183}
_HEADER, _SEGMENT, _SYMBOL = 64, 56, 24


def write_shared_library(path: Path, functions: Sequence[str]) -> None:
    """Writes a 64-bit ELF shared object for this machine; calling what it defines would crash.

    Layout from the System V ABI: header, program headers, symbols, their names, their hash table
    (one bucket, in which they are chained), and the dynamic section that points to all of it.

    Raises:
        KeyError: this is neither an x86-64 nor an ARM machine.
    """
    names = b"\0" + b"".join(name.encode() + b"\0" for name in functions)
    names += bytes(-len(names) % 8)
    symbols = [bytes(_SYMBOL)]
    for name in functions:
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        # A global function (0x12) at an address that is not 0, of no section in particular.
        symbols.append(struct.pack("<IBBHQQ", at, 0x12, 0, 0xFFF1, _HEADER, 0))
    count = len(symbols)
    hashes = struct.pack(f"<{count + 3}I", 1, count, 1, 0, *range(2, count), 0)
    hashes += bytes(-len(hashes) % 8)

    symbols_at = _HEADER + 3 * _SEGMENT
    names_at = symbols_at + count * _SYMBOL
    hashes_at = names_at + len(names)
    dynamic_at = hashes_at + len(hashes)
    # DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_NULL.
    entries = ((4, hashes_at), (5, names_at), (6, symbols_at), (10, len(names)), (11, _SYMBOL))
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in (*entries, (0, 0)))
    size = dynamic_at + len(dynamic)

    def segment(kind: int, start: int, length: int, align: int) -> bytes:
        # Readable and writable, which the loader wants of the dynamic section; not executable.
        return struct.pack("<IIQQQQQQ", kind, 6, start, start, start, length, length, align)

    identification = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    machine = MACHINES[platform.machine()]
    header = identification + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, _HEADER, 0, 0, _HEADER, _SEGMENT, 3, 0, 0, 0
    )
    # PT_LOAD, PT_DYNAMIC, PT_GNU_STACK.
    segments = segment(1, 0, size, 0x10000) + segment(2, dynamic_at, len(dynamic), 8)
    segments += segment(0x6474E551, 0, 0, 16)
    path.write_bytes(header + segments + b"".join(symbols) + names + hashes + dynamic)
