"""From a name to a frozen causal LM, and every way in which that is refused."""

import json
import logging
import os
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, T5Config

from latentwire.errors import ReaderError
from latentwire.reader.load import list_models, load_model, load_reader, meta_model, open_encoder, remember
from latentwire.reader.packaged import PACKAGED
from latentwire.reader.precision import RUNS, choose_dtype, forward_seconds
from tiny import FAMILIES, Family, save_tiny, tiny_model

IDS = torch.arange(24).reshape(2, 12)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test but the packaged ones touches the user's cache."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("LATENTWIRE_CACHE", str(cache))
    return cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny", "llama")


def measured(folder: Path, cache: Path, bfloat16: float) -> None:
    """Let a model be known to take so many times float32's seconds in bfloat16."""
    load_model(str(folder), device="cpu")
    path = cache / "dtypes.json"
    ((key, _),) = json.loads(path.read_text()).items()
    path.write_text(json.dumps({key: {"float32": 1.0, "bfloat16": bfloat16}}))


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_folder_loads_with_equal_logits_and_frozen(tmp_path: Path, family: Family) -> None:
    model, tokenizer = tiny_model(family)
    loaded = load_model(str(save_tiny(tmp_path / family, family)), dtype="float32")
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer("Who built it?")["input_ids"] == tokenizer("Who built it?")["input_ids"]
    assert loaded.tokenizer.eos_token_id == tokenizer.eos_token_id
    assert loaded.dtype_reason == "asked for"
    assert loaded.source == str(tmp_path / family)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_asked_for_dtype_is_the_model_dtype_and_keeps_the_fingerprint(folder: Path, dtype: str) -> None:
    loaded = load_model(str(folder), dtype=dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert loaded.fingerprint == load_model(str(folder), dtype="float32").fingerprint
    assert len(loaded.fingerprint) == 16


def test_fingerprint_survives_a_copy_in_shards_and_changes_with_one_embedding(folder: Path, tmp_path: Path) -> None:
    before = load_model(str(folder), dtype="float32").fingerprint
    model, tokenizer = tiny_model("llama")
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    tokenizer.save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert load_model(str(tmp_path / "shards"), dtype="float32").fingerprint == before
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][300, 7] += 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_model(str(folder), dtype="float32").fingerprint != before


@pytest.mark.parametrize(("hopeless", "passes"), [(0.0, 1), (1e9, RUNS + 1)])
def test_a_dtype_that_is_far_slower_is_not_measured_to_the_end(hopeless: float, passes: int) -> None:
    model, _ = tiny_model("llama")
    read: list[int] = []
    handle = model.get_decoder().register_forward_hook(lambda *given: read.append(1))
    try:
        assert forward_seconds(model, hopeless) > 0
    finally:
        handle.remove()
    assert len(read) == passes


def test_auto_dtype_is_measured_once_and_then_remembered(folder: Path, own_cache: Path) -> None:
    first = load_model(str(folder), device="cpu")
    assert "measured now" in first.dtype_reason
    known = json.loads((own_cache / "dtypes.json").read_text())
    ((key, seconds),) = known.items()
    assert key.startswith(first.fingerprint)
    faster = seconds["float32"] / seconds["bfloat16"] >= 1.2
    assert first.model.dtype == (torch.bfloat16 if faster else torch.float32)
    second = load_model(str(folder), device="cpu")
    assert "measured before" in second.dtype_reason
    assert second.model.dtype == first.model.dtype


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.5, torch.bfloat16), (0.9, torch.float32)])
def test_bfloat16_is_chosen_only_when_it_is_clearly_faster(
    folder: Path, own_cache: Path, bfloat16: float, expected: torch.dtype
) -> None:
    measured(folder, own_cache, bfloat16)
    assert load_model(str(folder), device="cpu").model.dtype == expected


@pytest.mark.parametrize(("bfloat16", "computes"), [(0.5, torch.bfloat16), (2.0, torch.float32)])
def test_an_encoder_has_the_rounded_weights_and_computes_in_what_is_faster(
    folder: Path, own_cache: Path, bfloat16: float, computes: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # where nothing is measured
    measured(folder, own_cache, bfloat16)
    reader, rounded = open_encoder(str(folder), "bfloat16")
    assert (reader.dtype, rounded) == (computes, torch.bfloat16)
    exact = load_model(str(folder), dtype="float32").model.state_dict()
    for name, weight in reader.model.state_dict().items():
        assert torch.equal(weight.float(), exact[name].bfloat16().float())


def test_a_reader_that_is_held_in_another_dtype_does_not_encode(folder: Path) -> None:
    held = remember(load_reader(str(folder), dtype="float32"))
    assert open_encoder(str(folder), "float32") == (held, torch.float32)
    other, rounded = open_encoder(str(folder), "bfloat16")
    assert other is not held
    assert rounded == torch.bfloat16


def test_broken_file_of_measurements_is_measured_anew(folder: Path, own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "dtypes.json").write_text('{"half": ')
    _, reason = choose_dtype(lambda dtype: load_model(str(folder), dtype="float32").model, "abc", "cpu")
    assert "measured now" in reason
    assert next(iter(json.loads((own_cache / "dtypes.json").read_text()))).startswith("abc")


def test_encoder_decoder_is_refused(tmp_path: Path) -> None:
    T5Config(d_model=32, num_layers=1, num_heads=2, d_ff=32, vocab_size=64).save_pretrained(tmp_path / "t5")
    with pytest.raises(ReaderError, match="encoder-decoder t5"):
        load_model(str(tmp_path / "t5"))


def test_model_that_is_no_causal_lm_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(ReaderError, match="expected a causal LM, got LlamaForSequenceClassification"):
        load_model(str(folder))


def test_tokenizer_without_eos_is_refused_whether_or_not_it_has_a_pad(folder: Path) -> None:
    _, tokenizer = tiny_model("llama")
    for names in ({"pad_token": "<pad>"}, {}):
        PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **names).save_pretrained(folder)
        with pytest.raises(ReaderError, match="EOS token, got none"):
            load_model(str(folder))


def test_missing_pad_becomes_eos(folder: Path) -> None:
    _, tokenizer = tiny_model("llama")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>").save_pretrained(folder)
    loaded = load_model(str(folder), dtype="float32")
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id == tokenizer.eos_token_id


def test_checkpoint_that_lacks_a_weight_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ReaderError, match=r"got none for model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(str(folder), dtype="float32")


def test_truncated_safetensors_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ReaderError, match="whole safetensors"):
        load_model(str(folder), dtype="float32")


def test_folder_with_a_pickle_only_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ReaderError, match="expected safetensors weights"):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["smolm2-135m", "org/smolm2-135m", "/nowhere/smollm2-135.gguf"])
def test_unknown_name_gives_one_line_with_what_to_do(name: str) -> None:
    with pytest.raises(ReaderError) as caught:
        load_model(name)
    message = str(caught.value)
    assert "\n" not in message
    assert "smollm2-135m" in message.replace(name, "")
    assert ".gguf file or of a Hugging Face folder" in message


def test_unknown_name_names_the_nearest_packaged_reader() -> None:
    with pytest.raises(ReaderError, match="did you mean 'gemma-3-270m'"):
        load_model("gemma3-270m")


def test_gguf_of_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mamba.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ReaderError, match="architecture gemma3, llama, qwen2, got 'mamba'"):
        load_model(str(path))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
def test_corrupt_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(ReaderError, match="truncated or corrupt"):
        load_model(str(path))


def test_gguf_without_its_tensors_is_refused_and_nothing_is_cached(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "hollow.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ReaderError, match="expected a"):
        load_model(str(path))
    assert [entry for entry in (own_cache / "models").iterdir() if entry.is_dir()] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float8"}, "expected dtype auto"),
        ({"device": "gpu"}, "expected a device that this machine has, got 'gpu'"),
        ({"quantization": {"load_in_8bits": True}}, "did you mean 'load_in_8bit'"),
    ],
)
def test_options_that_do_not_exist_are_refused(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ReaderError, match=message):
        load_model(str(folder), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_meta_model_has_the_real_parameter_count_and_no_memory(tmp_path: Path, family: Family) -> None:
    folder = save_tiny(tmp_path / family, family)
    expected = sum(parameter.numel() for parameter in tiny_model(family)[0].parameters())
    for where in (folder, folder / "config.json"):
        model = meta_model(str(where))
        assert sum(parameter.numel() for parameter in model.parameters()) == expected
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_list_models_names_each_packaged_reader_with_its_pip_command() -> None:
    found = list_models()
    assert {model.name for model in found} == set(PACKAGED)
    assert all(model.install.startswith("pip install ") for model in found)
    assert not any(model.converted for model in found)


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The converted SmolLM2 in the user's cache, which other tests read too."""
    monkeypatch.delenv("LATENTWIRE_CACHE")
    package = PACKAGED["smollm2-135m"]
    if package.folder is None:
        pytest.fail(f"expected the packaged SmolLM2; run: {package.install}")
    return Path(load_model("smollm2-135m", dtype="bfloat16").source)


@pytest.mark.packaged
def test_second_load_of_a_packaged_reader_converts_nothing_and_answers(
    converted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = {path.name: path.stat().st_mtime_ns for path in converted.iterdir()}
    caplog.clear()
    with caplog.at_level(logging.INFO, "latentwire"):
        loaded = load_model("smollm2-135m", dtype="bfloat16")
    assert caplog.records == []
    assert {path.name: path.stat().st_mtime_ns for path in converted.iterdir()} == written
    assert loaded.source == str(converted)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    asked = loaded.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = loaded.model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(ids)
    (model,) = [model for model in list_models() if model.name == "smollm2-135m"]
    assert model.installed
    assert model.converted
    count = sum(parameter.numel() for parameter in meta_model("smollm2-135m").parameters())
    assert count == sum(parameter.numel() for parameter in loaded.model.parameters()) == 134_515_008
