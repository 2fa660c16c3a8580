"""Codebooks: nearest codewords, learnt ones that lose less than untrained ones, refusals, and a wire that sends codes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import latentwire as lw
from latentwire.codebooks import CODES, FEWEST, Codebooks, learn
from latentwire.errors import LatentError, SpaceError, WireError
from latentwire.latent import Latent
from latentwire.wire_folder import CODEBOOKS, read_codebooks, write_codebooks
from test_cli import call
from test_wire_folder import QUESTION, TEXT


def books(pieces=3, size=2, seed=0):
    return Codebooks(np.random.default_rng(seed).normal(size=(pieces, CODES, size)).astype(np.float16))


@given(st.integers(0, 2**16))
def test_a_code_names_the_nearest_codeword_of_its_piece(seed):
    found = books(seed=seed)
    vectors = np.random.default_rng(seed + 1).normal(size=(5, 6)).astype(np.float32)
    codes = found.encode(vectors)
    for vector, row in zip(vectors, codes, strict=True):
        for piece, code in enumerate(row):
            distances = np.square(found.words[piece].astype(np.float32) - vector[2 * piece : 2 * piece + 2]).sum(axis=1)
            assert distances[code] == pytest.approx(distances.min(), abs=1e-5)
    np.testing.assert_array_equal(found.decode(codes)[0, :2], found.words[0, codes[0, 0]].astype(np.float32))


def test_codewords_come_back_exactly_and_many_vectors_as_few():
    found = books()
    codes = np.random.default_rng(1).integers(0, CODES, (1500, 3)).astype(np.uint8)
    vectors = found.decode(codes)
    np.testing.assert_array_equal(found.decode(found.encode(vectors)), vectors)
    np.testing.assert_array_equal(found.encode(vectors)[700:705], found.encode(vectors[700:705]))


def test_learnt_codebooks_repeat_by_seed_and_lose_less_than_others():
    draw = np.random.default_rng(0)
    clusters = draw.normal(size=(40, 4))
    vectors = (clusters[draw.integers(0, 40, FEWEST)] + 0.05 * draw.normal(size=(FEWEST, 4))).astype(np.float32)
    one, again = learn(vectors, 2), learn(vectors, 2)
    assert one.id == again.id != learn(vectors, 2, seed=1).id
    lost = np.square(one.decode(one.encode(vectors)) - vectors).mean()
    untrained = books(2)
    assert lost < 0.5 * np.square(untrained.decode(untrained.encode(vectors)) - vectors).mean()
    assert lost < 0.05**2  # less than what the clusters' own width is


def test_what_cannot_be_learnt_or_read_is_refused():
    vectors = np.zeros((FEWEST, 6), np.float32)
    with pytest.raises(LatentError, match=r"divides 6 \(1, 2, 3, 6\), got 4"):
        learn(vectors, 4)
    with pytest.raises(LatentError, match="got 10; give more text"):
        learn(vectors[:10], 3)
    with pytest.raises(LatentError, match="width 6, got 5"):
        books().encode(np.zeros((1, 5), np.float32))
    with pytest.raises(LatentError, match="finite codewords"):
        Codebooks(np.full((1, CODES, 2), np.nan, np.float16))
    with pytest.raises(LatentError, match="expected codewords"):
        Codebooks(np.zeros((1, 16, 2), np.float16))
    latent = books().coded(Latent(np.zeros((1, 6), np.float32), "fp16", "s", 4))
    with pytest.raises(SpaceError, match="of the codebooks"):
        books(seed=1).restored(latent)


def test_a_wire_with_codebooks_sends_codes_and_answers_from_them(folder, home, tmp_path, capsys):
    wire = lw.Wire.load(folder)
    with pytest.raises(LatentError, match="learn codebooks"):
        wire.encode([TEXT], codec="pq")
    width = wire.encode([TEXT])[0].payload.shape[1]
    write_codebooks(folder, books(width // 2))
    wire = lw.Wire.load(folder)
    sent = wire.encode([TEXT], codec="pq")[0]
    assert sent.payload.shape[1] == width // 2
    received = lw.unpack(lw.pack(sent)).latent()
    reader = wire.open_reader(str(home / "tiny-gemma3"))
    restored = Latent(wire.codebooks.decode(received.payload), "fp32", wire.method.space, received.source_tokens)
    expected = reader.answer(wire.prefix([restored], reader), QUESTION).text
    assert reader.answer(wire.prefix([received], reader), QUESTION).text == expected
    (tmp_path / "a.txt").write_text(TEXT)
    code, _, _ = call(capsys, "encode", folder, tmp_path / "a.txt", "-o", tmp_path / "a.lw", "--codec", "pq")
    assert code == 0
    code, said, _ = call(capsys, "answer", tmp_path / "a.lw", "--reader", home / "tiny-gemma3", "-q", QUESTION)
    assert (code, expected in said) == (0, True)
    wire.save(tmp_path / "copy")
    assert lw.Wire.load(tmp_path / "copy").codebooks.id == wire.codebooks.id
    assert CODEBOOKS in wire.uploads()
    assert lw.Wire.load(folder).reads(sent.space)
    write_codebooks(folder, books(width // 2, seed=5))
    other = lw.Wire.load(folder)
    assert not other.reads(sent.space)
    with pytest.raises(SpaceError):
        other.prefix([received], other.open_reader(str(home / "tiny-llama")))


def test_codebooks_are_learnt_from_texts_and_kept_with_the_wire(folder, tmp_path, capsys):
    draw = np.random.default_rng(0)
    names = [f"{first}{second}" for first in ["Ba", "Do", "Ke", "Li", "Mu"] for second in ["ran", "tel", "vos", "dim"]]
    text = " ".join(f"{draw.choice(names)} lives in {draw.choice(names)}." for _ in range(6000))
    (tmp_path / "long.txt").write_text(text)
    code, said, _ = call(capsys, "codebooks", folder, tmp_path / "long.txt", "--vector-bytes", 4)
    assert code == 0
    assert "4 bytes a vector" in said
    assert len(read_codebooks(folder).words) == 4
    code, _, problem = call(capsys, "codebooks", folder, tmp_path / "long.txt")
    assert (code, "has codebooks already" in problem) == (2, True)
    (folder / CODEBOOKS).write_bytes(b"none")
    with pytest.raises(WireError, match="expected readable codebooks"):
        lw.Wire.load(folder)
