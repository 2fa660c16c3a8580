"""Codecs: latent payloads to bytes and back. Lossy ones are applied for real wherever a wire is measured.

Everything is little-endian. Needs numpy only. To add one, write a class with the attributes of `Codec` in a file here, register it and
import it below, give it golden bytes in `tests/test_codecs.py` and `tests/test_wire_format.py` and a row in `docs/wire-format.md`.
"""

from dataclasses import replace

from latentwire.codecs import codes as codes
from latentwire.codecs import text as text
from latentwire.codecs import vectors as vectors
from latentwire.codecs.base import CODECS as CODECS
from latentwire.codecs.base import Codec as Codec
from latentwire.codecs.text import ids_codec as ids_codec
from latentwire.latent import Latent

NUMBERED = {CODECS[name].number: name for name in CODECS}  # the name of the codec that a message calls by a number


def transmit(latent: Latent) -> tuple[Latent, int]:
    """The latent as its receiver gets it, and how many payload bytes crossed the wire."""
    codec = CODECS[latent.codec]
    data = codec.encode(latent.payload)
    return replace(latent, payload=codec.decode(data, latent.payload.shape[1])), len(data)
