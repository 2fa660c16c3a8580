"""Messages: golden bytes, what comes back, and a named error for everything that may be wrong with bytes from a stranger."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from latentwire.codecs import CODECS, NUMBERED
from latentwire.errors import (
    ChecksumError,
    CodecError,
    FormatError,
    LatentError,
    LimitError,
    SignatureError,
    SpaceError,
    TrailingBytesError,
    TruncatedError,
    ValuesError,
)
from latentwire.latent import Latent
from latentwire.wire_format import digest, pack, unpack, unpack_all
from latentwire.wire_header import Limits, read_header

KEY = b"a key that both have"
SOURCE = digest("Nine tokens of text.")
ROWS = np.array([[1.0, -2.5], [0.0, 0.5]], dtype=np.float32)
PAYLOADS = {
    "fp32": ROWS,
    "fp16": ROWS,
    "int8": ROWS,
    "int4": ROWS,
    "pq": np.array([[7, 255], [0, 16]], dtype=np.uint8),
    "ids16": np.array([[1], [513]], dtype=np.uint32),
    "ids32": np.array([[1], [66051]], dtype=np.uint32),
    "utf8": np.frombuffer("né".encode(), dtype=np.uint8).reshape(-1, 1),
}
GOLDEN = {
    "fp32": (
        "4c545752010000009b6d5eb62a802a33000101000200000002000000090000001000000000000000776972652d303031"
        "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
        "6e0000000000000000000000000000000000803f000020c0000000000000003f"
    ),
    "fp16": (
        "4c5457520100000054daa7f8ebcf45df000201000200000002000000090000000800000000000000776972652d303031"
        "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
        "6e000000000000000000000000000000003c00c1000000380000000000000000"
    ),
    "int8": (
        "4c545752010000006aad7f86ee4d28c8000301000200000002000000090000000800000000000000776972652d303031"
        "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
        "6e0000000000000000000000000000000b25091c3381007f0000000000000000"
    ),
    "int4": (
        "4c545752010000005db2ea8d18eb5df1000401000200000002000000090000000600000000000000776972652d303031"
        "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
        "6e000000000000000000000000000000b735932c1bf800000000000000000000"
    ),
    "pq": (
        "4c545752010000008d99bed42c83e978000501000200000002000000090000000400000000000000776972652d303031"
        "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
        "6e00000000000000000000000000000007ff0010000000000000000000000000"
    ),
    "ids16": (
        "4c545752010000009e9957385c9f48ec001001000200000001000000090000000400000000000000776972652d303031"
        "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
        "6e00000000000000000000000000000001000102000000000000000000000000"
    ),
    "ids32": (
        "4c54575201000000434b0e15e1b66ab5001101000200000001000000090000000800000000000000776972652d303031"
        "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
        "6e00000000000000000000000000000001000000030201000000000000000000"
    ),
    "utf8": (
        "4c5457520100000040a60775f675b7d0001201000300000001000000090000000300000000000000776972652d303031"
        "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
        "6e0000000000000000000000000000006ec3a900000000000000000000000000"
    ),
}
KEYED = (
    "4c54575201000000c73b8f8f27285ac9010201000200000002000000090000000800000000000000776972652d303031"
    "3132323333343435353636373700000000000000000000000000000000000000b53628c5b03a3502e72cc4c9487ee489"
    "6e000000000000000000000000000000003c00c100000038000000000000000030b17cb14d5b300e48b18bb836ec82e8"
    "f2ddcf0437f3e881a82a613cb98ac625"
)


def latent_of(codec="fp16", payload=None, space="wire-0011223344556677"):
    return Latent(PAYLOADS[codec] if payload is None else payload, codec, space, 9)


def changed(data, offset, new, checked=True):
    """A message with other bytes at a place, its checksum made right again."""
    whole = bytearray(data)
    whole[offset : offset + len(new)] = new
    if checked:
        whole[8:16] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(whole[16:])))
    return bytes(whole)


@pytest.mark.parametrize("codec", list(CODECS))
def test_bytes_of_a_message_never_change(codec):
    assert pack(latent_of(codec), "n", SOURCE).hex() == GOLDEN[codec]


def test_bytes_of_a_signed_message_never_change():
    assert pack(latent_of(), "n", SOURCE, KEY).hex() == KEYED


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("codec", list(CODECS))
def test_a_message_comes_back_as_its_codec_leaves_it(codec, key):
    sent = latent_of(codec)
    message = unpack(pack(sent, "näme", SOURCE, key), sent.space, sent.payload.shape[1], key)
    assert (message.name, message.header.source, message.header.signed, message.header.source_tokens) == (
        "näme",
        SOURCE,
        key is not None,
        9,
    )
    received = message.latent()
    assert (received.codec, received.space, received.source_tokens) == (codec, sent.space, 9)
    expected = CODECS[codec].decode(CODECS[codec].encode(sent.payload), sent.payload.shape[1])
    np.testing.assert_array_equal(received.payload, expected)


@given(st.integers(1, 5), st.integers(1, 70), st.sampled_from(["fp32", "fp16", "int8", "int4"]), st.text(max_size=40))
def test_any_shape_and_name_survive_and_the_payload_lies_aligned(vectors, width, codec, name):
    payload = np.random.default_rng(vectors * width).normal(size=(vectors, width)).astype(np.float32)
    data = pack(latent_of(codec, payload), name)
    message = unpack(data)
    assert (message.header.vectors, message.header.width, message.name) == (vectors, width, name)
    whole = np.frombuffer(data, np.uint8)
    view = np.frombuffer(message.payload, np.uint8)
    assert np.shares_memory(whole, view)
    assert (view.ctypes.data - whole.ctypes.data) % 16 == len(data) % 16 == 0


def test_a_codecs_number_names_it_alone():
    assert [NUMBERED[CODECS[name].number] for name in CODECS] == list(CODECS)
    assert 255 not in NUMBERED


def test_messages_follow_one_another():
    data = pack(latent_of("fp16"), "a") + pack(latent_of("utf8"), "b", key=KEY) + pack(latent_of("int4"), "c")
    assert [(message.name, message.header.codec) for message in unpack_all(data)] == [
        ("a", "fp16"),
        ("b", "utf8"),
        ("c", "int4"),
    ]
    with pytest.raises(TruncatedError):
        list(unpack_all(data[:-1]))
    with pytest.raises(LimitError, match="at most 2 messages"):
        list(unpack_all(data, limits=Limits(messages=2)))


@given(st.data())
def test_a_flipped_bit_anywhere_is_noticed(data):
    for key in (None, KEY):
        message = bytearray(pack(latent_of("int8"), "n", key=key))
        place = data.draw(st.integers(0, 8 * len(message) - 1))
        message[place // 8] ^= 1 << place % 8
        with pytest.raises(LatentError):
            unpack(bytes(message))


@given(st.data())
def test_a_cut_message_is_refused(data):
    message = pack(latent_of("fp16"), "n", key=KEY)
    with pytest.raises(TruncatedError):
        unpack(message[: data.draw(st.integers(0, len(message) - 1))])


@given(st.binary(max_size=300), st.booleans())
def test_whatever_comes_only_a_latent_error_is_raised(tail, checked):
    head = pack(latent_of("int4"), "n")
    for data in (tail, head[:16] + tail, changed(head, 16, tail[:136], checked)):
        for key in (None, KEY):
            try:
                unpack(data, key=key).latent()
            except LatentError:
                continue


def test_a_message_of_another_space_width_or_key_is_refused():
    data = pack(latent_of(), "n", key=KEY)
    with pytest.raises(SpaceError, match="space 'wire-1'"):
        unpack(data, space="wire-1")
    with pytest.raises(SpaceError, match="width 3, got 2"):
        unpack(data, width=3)
    with pytest.raises(SignatureError, match="another"):
        unpack(data, key=b"other")
    with pytest.raises(SignatureError, match="without a signature"):
        unpack(pack(latent_of(), "n"), key=KEY)
    assert unpack(data).header.signed  # without a key it is read, and not vouched for


def test_signature_is_checked_before_anything_of_the_payload():
    data = changed(pack(latent_of("fp16"), "", key=KEY), 96, b"\x00\x7c")  # infinity, a right checksum
    with pytest.raises(ValuesError):
        unpack(data)
    with pytest.raises(SignatureError):
        unpack(data, key=KEY)


ATTACKS = [
    ("other magic", 0, b"PK\x03\x04", False, FormatError, "this is no latent"),
    ("later version", 4, b"\x02", False, FormatError, "expected version 1, got 2"),
    ("reserved byte", 6, b"\x01", False, FormatError, "reserved"),
    ("reserved flag", 16, b"\x02", True, FormatError, "reserved"),
    ("unknown codec", 17, b"\xff", True, CodecError, "number 255"),
    ("another codec", 17, b"\x01", True, CodecError, "expected 16 bytes"),
    ("name that is too long", 18, b"\xff\xff", True, LimitError, "bytes of a name"),
    ("name beyond the end", 18, b"\x00\x02", True, TruncatedError, "was cut"),
    ("no vectors", 20, bytes(4), True, FormatError, "at least one vector"),
    ("too many vectors", 20, b"\xff\xff\xff\xff", True, LimitError, "vectors"),
    ("no width", 24, bytes(4), True, FormatError, "at least one value"),
    ("absurd width", 24, b"\xff\xff\xff\xff", True, LimitError, "values a vector"),
    ("one vector more", 20, b"\x03", True, CodecError, "expected 12 bytes for 3 vectors"),
    ("payload of 16 EiB", 32, b"\xff" * 8, True, LimitError, "bytes"),
    ("space that is not text", 40, b"\xff", True, FormatError, "printable"),
    ("space with a control character", 41, b"\x00", True, FormatError, "printable"),
    ("no space", 40, bytes(40), True, FormatError, "printable"),
    ("name that is not UTF-8", 96, b"\xff", True, FormatError, "UTF-8"),
    ("NaN", 112, b"\x00\x7e", True, ValuesError, "finite"),
    ("negative NaN", 112, b"\x00\xfe", True, ValuesError, "finite"),
    ("infinity", 114, b"\x00\x7c", True, ValuesError, "finite"),
    ("negative infinity", 116, b"\x00\xfc", True, ValuesError, "finite"),
    ("wrong checksum", 8, b"\x00", False, ChecksumError, "checksum"),
]


@pytest.mark.parametrize(
    ("offset", "new", "checked", "error", "words"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS]
)
def test_attack_is_answered_by_its_own_error(offset, new, checked, error, words):
    data = changed(pack(latent_of("fp16"), "n"), offset, new, checked)
    with pytest.raises(error, match=words):
        unpack(data)


@pytest.mark.parametrize("codec", ["int8", "int4"])
@pytest.mark.parametrize(
    "scale", [b"\x00\x7e", b"\x00\x7c", b"\x00\xbc", b"\x00\xfc"], ids=["NaN", "infinity", "-1", "-infinity"]
)
def test_scale_that_is_none_is_refused(codec, scale):
    with pytest.raises(ValuesError, match="scales"):
        unpack(changed(pack(latent_of(codec), "n", SOURCE), 112, scale))


def test_ids_and_text_that_are_none_are_refused():
    with pytest.raises(ValuesError, match="below 2147483648"):
        unpack(changed(pack(latent_of("ids32")), 96, b"\xff\xff\xff\xff"))
    with pytest.raises(ValuesError, match="UTF-8"):
        unpack(changed(pack(latent_of("utf8")), 96, b"\xff"))
    wide = changed(changed(pack(latent_of("ids16")), 24, b"\x02"), 20, b"\x01")
    with pytest.raises(ValuesError, match="one in each row"):
        unpack(wide)


def test_trailing_bytes_are_refused():
    with pytest.raises(TrailingBytesError, match="expected a message of 112 bytes, got 113"):
        unpack(pack(latent_of()) + b"\0")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(message_bytes=120), "at most 120 bytes"),
        (Limits(vectors=1), "at most 1 vectors"),
        (Limits(width=1), "at most 1 values"),
        (Limits(name_bytes=0), "at most 0 bytes of a name"),
    ],
)
def test_limits_are_the_operators(limits, words):
    with pytest.raises(LimitError, match=words):
        unpack(pack(latent_of(), "n"), limits=limits)


def test_a_header_says_how_much_is_to_come():
    data = pack(latent_of("fp32"), "n", key=KEY)
    assert read_header(data[:96]).length == len(data)


def test_the_norms_example_is_a_message():
    page = (Path(__file__).parent.parent / "docs" / "wire-format.md").read_text(encoding="utf-8")
    block = page.split("## An example")[1].split("```")[1]
    spelt = re.sub(r"00 × (\d+)", lambda found: "00" * int(found[1]), block)
    assert bytes.fromhex(spelt) == pack(latent_of(), "n", SOURCE)


@pytest.mark.parametrize(
    ("payload", "space", "name"),
    [
        (np.zeros((0, 2), np.float32), "s", ""),
        (np.zeros((2, 0), np.float32), "s", ""),
        (np.zeros((2, 2), np.uint8), "s", ""),
        (ROWS, "", ""),
        (ROWS, "s" * 41, ""),
        (ROWS, "ß", ""),
        (ROWS, "s", "n" * 2**16),
    ],
)
def test_what_no_message_can_say_is_not_packed(payload, space, name):
    with pytest.raises(LatentError, match="expected"):
        pack(latent_of("fp16", payload, space), name)
