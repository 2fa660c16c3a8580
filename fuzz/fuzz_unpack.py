"""Fuzz target: whatever bytes come, `unpack` returns a message or raises a LatentError, and allocates nothing beyond its limits.

    python fuzz/fuzz_unpack.py fuzz/corpus -max_total_time=60 [-max_len=4096]

Half of the inputs get a right checksum (and no key) before they are read, so that what lies behind the checksum is reached as well.
"""

import sys

import atheris

with atheris.instrument_imports(include=["latentwire"]):
    from latentwire.errors import LatentError
    from latentwire.wire_format import unpack, unpack_all
    from latentwire.wire_header import Limits

import xxhash

LIMITS = Limits(message_bytes=2**16, vectors=4096, width=4096, name_bytes=256)
KEY = b"a key that both have"


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


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
