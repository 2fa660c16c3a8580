"""Codecs and latents: golden bytes, bounded loss, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentwire.codecs import CODECS, ids_codec, transmit
from latentwire.errors import LatentError, RegistryError
from latentwire.latent import Latent, expect_space

GOLDEN = {
    "fp32": (np.array([[1.0, -2.5]], dtype=np.float32), "0000803f000020c0"),
    "fp16": (np.array([[1.0, -2.5]], dtype=np.float32), "003c00c1"),
    "int8": (np.array([[127.0, -63.5], [0.0, 0.0]], dtype=np.float32), "003c00007fc00000"),
    "int4": (np.array([[7.0, -3.0, 1.0]], dtype=np.float32), "003c5f89"),
    "pq": (np.array([[7, 255], [0, 16]], dtype=np.uint8), "07ff0010"),
    "ids16": (np.array([[1], [513]], dtype=np.uint32), "01000102"),
    "ids32": (np.array([[1], [66051]], dtype=np.uint32), "0100000003020100"),
    "utf8": (np.frombuffer("né".encode(), dtype=np.uint8).reshape(-1, 1), "6ec3a9"),
}


@pytest.mark.parametrize("name", list(CODECS))
def test_bytes_never_change(name):
    payload, expected = GOLDEN[name]
    assert CODECS[name].encode(payload).hex() == expected


@pytest.mark.parametrize("name", list(CODECS))
def test_golden_payloads_survive_the_wire(name):
    payload, expected = GOLDEN[name]
    decoded = CODECS[name].decode(bytes.fromhex(expected), payload.shape[1])
    assert decoded.dtype == payload.dtype
    np.testing.assert_allclose(decoded, payload, atol=0.51)


@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32)))
def test_int8_errs_by_at_most_half_a_scale(payload):
    received, count = transmit(Latent(payload, "int8", "s", 3))
    scales = np.abs(payload).max(axis=1) / 127 * (1 + 2**-10) + 2**-24
    assert count == 3 * (5 + 2)
    assert (np.abs(received.payload - payload) <= scales[:, None] * 0.5 * (1 + 1e-3) + 1e-7).all()


@given(hnp.arrays(np.float32, (2, 4), elements=st.floats(-6e4, 6e4, width=32)))
def test_fp16_errs_by_at_most_half_a_unit_in_the_last_place(payload):
    received, count = transmit(Latent(payload, "fp16", "s", 2))
    assert count == 16
    assert (np.abs(received.payload - payload) <= np.abs(payload) * 2**-11 + 2**-25).all()


@pytest.mark.parametrize(("name", "width"), [("fp32", 3), ("fp16", 3), ("int8", 3), ("ids16", 1), ("ids32", 1)])
def test_truncated_payload_raises_latent_error(name, width):
    payload = np.ones((2, width), dtype=np.uint32 if name.startswith("ids") else np.float32)
    with pytest.raises(LatentError, match="multiple of"):
        CODECS[name].decode(CODECS[name].encode(payload)[:-1], width)


@pytest.mark.parametrize(
    ("name", "value", "dtype"), [("fp16", 7e4, np.float32), ("int8", 1e7, np.float32), ("ids16", 65536, np.uint32)]
)
def test_values_a_codec_cannot_carry_are_refused(name, value, dtype):
    with pytest.raises(LatentError, match="use"):
        CODECS[name].encode(np.array([[value]], dtype=dtype))


@pytest.mark.parametrize(
    ("size", "codec"), [(49_152, "ids16"), (65_536, "ids16"), (65_537, "ids32"), (262_144, "ids32")]
)
def test_vocabulary_size_decides_the_id_codec(size, codec):
    assert ids_codec(size) == codec


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_latent_with_a_value_that_is_not_finite_is_refused(bad):
    with pytest.raises(LatentError, match="finite"):
        Latent(np.array([[bad]], dtype=np.float32), "fp16", "s", 1)


@pytest.mark.parametrize("payload", [np.zeros(3, dtype=np.float32), np.zeros((1, 3), dtype=np.float64)])
def test_latent_of_wrong_shape_or_dtype_is_refused(payload):
    with pytest.raises(LatentError, match="expected a payload"):
        Latent(payload, "fp16", "s", 1)


def test_latent_of_another_space_is_refused():
    with pytest.raises(LatentError, match="space 'a'"):
        expect_space([Latent(np.zeros((1, 1), dtype=np.float32), "fp16", "b", 1)], "a")


def test_unknown_codec_names_the_nearest():
    with pytest.raises(RegistryError, match="did you mean 'int8'"):
        CODECS["int9"]


@pytest.mark.parametrize("size", [1e-12, 6e-8, 1e-6, 1e-3, 1.0, 1e4, 8e6])
def test_int8_errs_by_at_most_half_the_scale_it_sends_at_any_size(size):
    payload = (np.random.default_rng(0).uniform(-size, size, (50, 7))).astype(np.float32)
    data = CODECS["int8"].encode(payload)
    scales = np.frombuffer(data, dtype="<f2", count=50).astype(np.float64)
    received = CODECS["int8"].decode(data, 7).astype(np.float64)
    assert (np.abs(received - payload) <= 0.5 * scales[:, None] * (1 + 1e-6)).all()
    assert (scales <= np.abs(payload).max(axis=1) / 127 * (1 + 2**-10) + 2**-24).all()


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8"])
def test_zero_vectors_and_no_vectors_survive_the_wire(name):
    for payload in (np.zeros((2, 3), dtype=np.float32), np.zeros((0, 3), dtype=np.float32)):
        received, _ = transmit(Latent(payload, name, "s", 2))
        np.testing.assert_array_equal(received.payload, payload)


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int4"])
@given(hundredths=hnp.arrays(np.int32, (2, 40), elements=st.integers(-(10**6), 10**6)))
def test_what_was_received_is_sent_on_without_further_loss(name, hundredths):
    received, _ = transmit(Latent((hundredths / 100).astype(np.float32), name, "s", 3))
    again, _ = transmit(received)
    np.testing.assert_array_equal(again.payload, received.payload)
