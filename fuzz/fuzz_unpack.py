"""Fuzz target: whatever bytes come, `unpack` returns a message or raises a LatentError, and allocates nothing beyond its limits.

    python fuzz/fuzz_unpack.py fuzz/corpus -max_total_time=60 [-max_len=4096]

Memory is limited to little more than what the process holds at its start: an allocation that a header asks for, and no limit stopped,
fails and is a finding. Half of the inputs get a right checksum (and no key) before they are read, so that what lies behind the checksum is reached as well.
"""

import resource
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["latentwire"]):
    from latentwire.errors import LatentError
    from latentwire.wire_format import unpack, unpack_all
    from latentwire.wire_header import Limits

import xxhash

LIMITS = Limits(message_bytes=2**16, vectors=4096, width=4096, name_bytes=256)
KEY = b"a key that both have"
ROOM = 128 * 2**20  # bytes beyond those of the start: corpus and tables of the fuzzer are most of it


def read(data: bytes) -> None:
    """Read one input in every way."""
    whole = data[1:]
    if data[:1] < b"\x80" and len(whole) >= 16:
        whole = whole[:8] + xxhash.xxh3_64_intdigest(whole[16:]).to_bytes(8, "little") + whole[16:]
    for key in (None, KEY):
        try:
            message = unpack(whole, key=key, limits=LIMITS)
            latent = message.latent()
            assert latent.payload.size <= LIMITS.message_bytes
        except LatentError:
            pass
    try:
        for message in unpack_all(whole, limits=LIMITS):
            message.latent()
    except LatentError:
        pass


def limit_memory() -> None:
    """Let the process hold no more than `ROOM` bytes beyond what it holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.stderr.write(f"stat::memory_room_mib: {ROOM // 2**20}\n")


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    limit_memory()
    atheris.Fuzz()
