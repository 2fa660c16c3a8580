"""Documents encoded into a file and answered from, as a user calls the commands."""

import json
import subprocess
import sys

import pytest

import latentwire as lw
from latentwire.documents import encode_documents
from latentwire.errors import DataError, MethodError, SignatureError
from latentwire.latent_files import read_messages
from test_cli import call
from test_wire_folder import QUESTION, TEXT


@pytest.fixture
def texts(tmp_path):
    """Five documents, one after another longer."""
    paths = []
    for number in range(5):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"{TEXT} " * (number + 1) + f"It is number {number}.")
        paths.append(path)
    return paths


def silent(done, remark):
    pass


def test_documents_are_encoded_inspected_and_answered_from(trained, home, texts, tmp_path, capsys):
    out, key = tmp_path / "out.lw", tmp_path / "key"
    key.write_text("0123456789abcdef" * 2)
    code, done, _ = call(capsys, "encode", trained, *texts, "-o", out, "--key", key, "--json")
    assert (code, json.loads(done)["documents"]) == (0, 5)
    code, listed, _ = call(capsys, "inspect", out, "--key", key, "--json")
    rows = json.loads(listed)
    assert [row["document"] for row in rows] == [str(path) for path in texts]
    assert [row["vectors"] for row in rows] == [-(-row["tokens"] // 4) for row in rows]
    wire = lw.Wire.load(trained)
    reader = wire.open_reader(str(home / "tiny-gemma3"))
    expected = reader.answer(wire.prefix(wire.encode([texts[1].read_text()]), reader), QUESTION).text
    asked = ["answer", out, "--reader", home / "tiny-gemma3", "-q", QUESTION]
    code, found, _ = call(capsys, *asked, "--document", texts[1], "--json")
    assert (code, json.loads(found)["answer"]) == (0, expected)
    code, _, problem = call(capsys, *asked)
    assert code == 2
    assert "1 to 4 documents for one answer, got 5" in problem


def test_a_bad_document_loses_no_other_and_is_listed(trained, texts, tmp_path, capsys):
    texts[1].write_bytes(b"\xff\xfe\xfa")
    texts[3].write_text(" \n")
    out = tmp_path / "out.lw"
    code, said, problems = call(capsys, "encode", trained, *texts, tmp_path / "none.txt", "-o", out)
    assert code == 2
    assert "3 documents" in said
    for bad in (texts[1], texts[3], tmp_path / "none.txt"):
        assert str(bad) in problems
    assert [message.name for message in read_messages(out)] == [str(texts[place]) for place in (0, 2, 4)]


def test_what_was_cut_off_goes_on_where_it_stopped_and_gives_the_same_file(trained, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("latentwire.documents.BATCH", 2)
    wire, whole, cut = lw.Wire.load(trained), tmp_path / "whole.lw", tmp_path / "cut.lw"
    encode_documents(wire, texts, whole, None, silent)
    partial = tmp_path / "cut.lw.partial"
    data = whole.read_bytes()
    partial.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError, match="--resume"):
        encode_documents(wire, texts, cut, None, silent)
    done = encode_documents(wire, texts, cut, None, silent, resume=True)
    assert (done.documents, 0 < done.earlier < 5) == (5, True)
    assert cut.read_bytes() == data
    assert not partial.exists()


def test_a_document_that_changed_meanwhile_is_encoded_again(trained, texts, tmp_path):
    wire, out = lw.Wire.load(trained), tmp_path / "out.lw"
    encode_documents(wire, texts[:2], out, None, silent)
    out.rename(tmp_path / "out.lw.partial")
    texts[1].write_text("Another text altogether.")
    done = encode_documents(wire, texts[:2], out, None, silent, resume=True)
    assert (done.documents, done.earlier) == (3, 2)
    assert [message.name for message in read_messages(out)] == [str(texts[0]), str(texts[1]), str(texts[1])]


def test_nothing_is_written_where_nothing_can_be_encoded(trained, texts, tmp_path):
    wire, out = lw.Wire.load(trained), tmp_path / "out.lw"
    texts[0].write_text("")
    with pytest.raises(DataError, match=r"none: .*0\.txt"):
        encode_documents(wire, texts[:1], out, None, silent)
    with pytest.raises(MethodError, match="4, 8, 16"):
        encode_documents(wire, texts, out, 5, silent)
    assert not list(tmp_path.glob("*.lw*"))


def test_a_damaged_file_is_named_at_the_message_that_is_wrong(trained, texts, tmp_path, capsys):
    out = tmp_path / "out.lw"
    encode_documents(lw.Wire.load(trained), texts, out, None, silent)
    data = bytearray(out.read_bytes())
    data[-20] ^= 1
    out.write_bytes(data)
    code, listed, problem = call(capsys, "inspect", out)
    assert code == 2
    assert "4 latents" in " ".join(listed.split())  # a long path takes more than a line
    assert "checksum" in problem
    code, _, problem = call(capsys, "inspect", tmp_path / "none.lw")
    assert (code, "none.lw" in problem) == (2, True)


def test_a_key_is_asked_for_where_one_is_given(trained, texts, tmp_path, capsys):
    out, short = tmp_path / "out.lw", tmp_path / "key"
    encode_documents(lw.Wire.load(trained), texts, out, None, silent)
    with pytest.raises(SignatureError, match="without a signature"):
        list(read_messages(out, b"0123456789abcdef"))
    short.write_text("abc")
    code, _, problem = call(capsys, "inspect", out, "--key", short)
    assert (code, "at least 16 bytes" in problem) == (2, True)


def test_a_wire_that_is_not_known_here_must_be_given(trained, texts, home, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.lw"
    encode_documents(lw.Wire.load(trained), texts[:1], out, None, silent)
    monkeypatch.setenv("LATENTWIRE_CACHE", str(tmp_path / "elsewhere"))
    asked = ["answer", out, "--reader", home / "tiny-llama", "-q", QUESTION]
    code, _, problem = call(capsys, *asked)
    assert (code, "--wire" in problem) == (2, True)
    assert call(capsys, *asked, "--wire", trained)[0] == 0


def test_inspecting_a_file_needs_no_torch(trained, texts, tmp_path):
    out = tmp_path / "out.lw"
    encode_documents(lw.Wire.load(trained), texts, out, None, silent)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import latentwire as lw, pathlib\n"
        "found = lw.unpack_all(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "print(sum(message.latent().payload.shape[0] for message in found))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, check=True)
    assert int(done.stdout) == sum(message.header.vectors for message in read_messages(out))


def test_a_file_goes_on_only_as_it_was_begun(trained, texts, tmp_path):
    wire, out = lw.Wire.load(trained), tmp_path / "out.lw"
    encode_documents(wire, texts[:2], out, 4, silent)
    out.rename(partial := tmp_path / "out.lw.partial")
    before = partial.read_bytes()
    for otherwise in ((8, None), (4, "int8")):
        with pytest.raises(DataError, match="was begun"):
            encode_documents(wire, texts, out, otherwise[0], silent, resume=True, codec=otherwise[1])
        assert partial.read_bytes() == before
    assert encode_documents(wire, texts, out, 4, silent, resume=True).earlier == 2
