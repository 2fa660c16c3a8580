"""A trained wire as its users meet it: a folder, Python calls, `ask` and `attach`."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import latentwire as lw
from latentwire.errors import LatentError, MethodError, PromptError, RecipeError, WireError
from latentwire.wire_folder import WireFiles, read_wire, shortened, write_wire
from latentwire.wired import attach_recipe
from test_cli import call
from tiny import save_tiny

TEXT = "The Velden lighthouse was built in 1874 by the engineer Ruth Almeida."
QUESTION = "Who built the Velden lighthouse?"


def test_saved_wire_gives_the_same_latents_and_answers(trained, home, tmp_path):
    wire = lw.Wire.load(trained)
    wire.save(tmp_path / "copy")
    again = lw.Wire.from_pretrained(str(tmp_path / "copy"))
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == sorted(
        path.name for path in trained.rglob("*")
    )
    one, other = wire.encode([TEXT])[0], again.encode([TEXT])[0]
    assert np.array_equal(one.payload, other.payload)
    assert (one.space, one.source_tokens) == (other.space, other.source_tokens)
    for family in ("llama", "gemma3"):
        reader = wire.open_reader(str(home / f"tiny-{family}"), "float32")
        prefixes = [which.prefix([one], reader) for which in (wire, again)]
        assert torch.equal(prefixes[0].embeds, prefixes[1].embeds)
        assert reader.answer(prefixes[0], QUESTION, 4) == reader.answer(prefixes[1], QUESTION, 4)


def test_an_upload_sends_every_file_that_loading_needs_and_the_card(trained):
    sent = lw.Wire.load(trained).uploads()
    assert sorted(sent) == sorted(str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file())
    assert {"README.md", "config.json", "recipe.yaml", "rows.jsonl"} <= set(sent)
    card = (trained / "README.md").read_text()
    rows = [json.loads(line) for line in (trained / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        assert f"| {row['reader']} | {row['rung']} | {row['f1']:.3f}" in card


def test_a_prompt_may_hold_several_latents_and_text_between_them(trained, home):
    wire = lw.Wire.load(trained)
    reader = wire.open_reader(str(home / "tiny-gemma3"), "float32")
    first, second = wire.encode([TEXT, TEXT * 3], compression=8)
    words = reader.embed(torch.tensor(reader.prompter.slot(" and ").ids))
    parts = [wire.prefix([latent], reader).embeds[0] for latent in (first, second)]
    joined = wire.prefix([first, " and ", second], reader)
    tokens = wire.method.adapter(reader).task_tokens
    assert torch.equal(joined.embeds[0], torch.cat([parts[0], words, parts[1][len(tokens) :]]))


def test_attached_reader_answers_and_nothing_else_changes(folder, home, tmp_path, capsys):
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}
    earlier = read_wire(folder)
    newcomer = home / "tiny-qwen2"
    few = ["train.steps=3", "eval.rungs=[no context, full text, raw embeddings, wire 4x]", "--out", tmp_path]
    code, printed, _ = call(capsys, "attach", folder, "--reader", newcomer, *few)
    assert code == 0
    assert "tiny-qwen2" in printed
    for path, data in before.items():
        assert (folder / path).read_bytes() == data, path
    after = read_wire(folder)
    assert after.space == earlier.space
    assert {reader.name for reader in after.readers.values()} == {"tiny-llama", "tiny-gemma3", "tiny-qwen2"}
    (tmp_path / "note.txt").write_text(TEXT)
    for reader in ("tiny-qwen2", "tiny-llama"):
        told = ["--reader", home / reader, "--context", tmp_path / "note.txt", "-q", QUESTION, "--json"]
        code, printed, _ = call(capsys, "ask", folder, *told)
        assert code == 0
        latents, text = json.loads(printed)
        assert latents["positions"] < text["positions"]
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert {row["reader"] for row in rows} >= {"tiny-llama", "tiny-gemma3", "tiny-qwen2"}
    assert (folder / "README.md").read_text().count("\n# tiny-wire\n") == 1


def test_another_adapter_for_a_reader_takes_the_place_of_the_first_and_of_what_that_measured(
    folder, home, tmp_path, capsys
):
    def rows():
        return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]

    again = home / "tiny-gemma3"
    before, adapter = rows(), folder / "adapters" / "tiny-gemma3.safetensors"
    other = (folder / "adapters" / "tiny-llama.safetensors").read_bytes()
    assert any(row["reader"] == "tiny-llama + tiny-gemma3" for row in before)
    first = adapter.read_bytes()
    few = [
        "train.steps=3",
        "eval.rungs=[no context, full text, raw embeddings, wire 4x]",
        "data.eval_limit=5",
        "--out",
        tmp_path,
    ]
    assert call(capsys, "attach", folder, "--reader", again, *few)[0] == 0
    assert adapter.read_bytes() != first
    assert (folder / "adapters" / "tiny-llama.safetensors").read_bytes() == other
    after = rows()
    assert {row["reader"] for row in after} == {"tiny-llama", "tiny-gemma3"}
    assert {row["n"] for row in after if row["reader"] == "tiny-gemma3"} == {5}
    assert [row for row in after if row["reader"] == "tiny-llama"] == [
        row for row in before if row["reader"] == "tiny-llama"
    ]
    card = (folder / "README.md").read_text()
    assert (
        card.index("6 questions")
        < card.index("| tiny-llama |")
        < card.index("5 questions")
        < card.index("| tiny-gemma3 |")
    )


def test_attaching_takes_data_below_a_folder_that_the_environment_names(folder, monkeypatch):
    recipe = folder / "recipe.yaml"
    raw = yaml.safe_load(recipe.read_text())
    raw["data"]["train"] = [{"name": "squad", "path": "$WIRE_DATA/a.json"}]
    recipe.write_text(yaml.safe_dump(raw))
    monkeypatch.delenv("WIRE_DATA", raising=False)
    with pytest.raises(RecipeError, match=r"WIRE_DATA in '\$WIRE_DATA/a\.json'"):
        attach_recipe(folder, "tiny-qwen2", [])
    monkeypatch.setenv("WIRE_DATA", "/somewhere")
    assert attach_recipe(folder, "tiny-qwen2", []).data.train[0]["path"] == "/somewhere/a.json"


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 1e3])
def test_rounding_errs_by_at_most_a_step_and_rounding_again_changes_nothing(size, tmp_path):
    part = size * torch.randn(16, 400, generator=torch.Generator().manual_seed(1))
    part[3] = 0
    rounded = shortened("latents.mix.weight", part)
    steps = part.abs().amax(dim=1, keepdim=True) / 127
    assert ((rounded - part).abs() <= 0.51 * steps).float().mean() > 0.99
    assert ((rounded - part).abs() <= steps).all()
    assert not torch.equal(rounded, part)
    assert torch.equal(shortened("latents.mix.weight", rounded), rounded)
    half = shortened("adapters.a.weight", part)
    assert torch.equal(half, part.half().float())
    write_wire(tmp_path, WireFiles({}, "model", "space", {}, {"latents.mix.weight": rounded}))
    assert torch.equal(read_wire(tmp_path).tensors["latents.mix.weight"], rounded)
    assert (tmp_path / "latents.safetensors").stat().st_size < 16 * 400 * 1.1


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "found no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "expected a readable"),
        (lambda folder: (folder / "config.json").write_text('{"format": 99}'), "format 3"),
        (lambda folder: (folder / "latents.safetensors").unlink(), "expected a whole wire"),
        (lambda folder: (folder / "latents.safetensors").write_bytes(b"x" * 99), "expected readable weights"),
        (lambda folder: shutil.rmtree(folder / "adapters"), "expected a whole wire"),
    ],
)
def test_a_damaged_wire_is_refused(folder, harm, words):
    harm(folder)
    with pytest.raises(WireError, match=words):
        lw.Wire.load(folder)


def test_wire_of_another_encoder_revision_is_refused(folder, home, tmp_path):
    other = save_tiny(tmp_path / "tiny-llama", "llama")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["method"]["encoder"] = str(other)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WireError, match="expected encoder"):
        lw.Wire.load(folder)


def test_reader_without_an_adapter_or_asked_otherwise_is_refused(trained, home):
    wire = lw.Wire.load(trained)
    with pytest.raises(WireError, match=r"tiny-gemma3, tiny-llama.*attach WIRE --reader"):
        wire.open_reader(str(home / "tiny-qwen2"))
    reader = lw.load_reader(str(home / "tiny-llama"), shots=1, dtype="float32")
    with pytest.raises(WireError, match="shots=0"):
        wire.prefix(wire.encode([TEXT]), reader)


def test_wrong_texts_compressions_and_latents_are_refused(trained, home):
    wire = lw.Wire.load(trained)
    reader = wire.open_reader(str(home / "tiny-llama"), "float32")
    with pytest.raises(MethodError, match="4, 8, 16, got 5"):
        wire.encode([TEXT], compression=5)
    with pytest.raises(MethodError, match="expected text to encode"):
        wire.encode([""])
    foreign = lw.Latent(np.ones((3, reader.width), dtype=np.float32), "fp16", "wire-of-another", 9)
    with pytest.raises(LatentError, match="space"):
        wire.prefix([foreign], reader)
    long = wire.encode([TEXT * 800])
    with pytest.raises(PromptError, match=r"of which .* for the context"):
        reader.answer(wire.prefix(long, reader), QUESTION)


def test_what_encode_gives_is_what_another_process_receives(trained):
    wire = lw.Wire.load(trained)
    exact = wire.encode([TEXT], codec="fp32")[0]
    for codec in (None, "fp16", "int8", "int4"):
        latent = wire.encode([TEXT], codec=codec)[0]
        received = lw.unpack(lw.pack(latent)).latent()
        assert latent.codec == received.codec == (codec or "int4")
        np.testing.assert_array_equal(latent.payload, received.payload)
        assert 0 < np.abs(latent.payload - exact.payload).max() < 0.2 * np.abs(exact.payload).max()


@pytest.mark.parametrize("text", ["a", TEXT, TEXT + " It"])
def test_any_length_is_encoded_once_and_counted(trained, text):
    wire = lw.Wire.load(trained)
    for size in (4, 8, 16):
        latent = wire.encode([text], compression=size)[0]
        assert len(latent.payload) == -(-latent.source_tokens // size)


@pytest.mark.parametrize("compression", [4, 16])
def test_appending_encodes_what_is_new_and_gives_the_latent_of_the_whole(trained, compression, monkeypatch):
    wire = lw.Wire.load(trained)
    text, added = " ".join([TEXT] * 40), " " + " ".join([QUESTION] * 30)
    latent = wire.encode([text], compression, "fp32")[0]
    whole = wire.encode([text + added], compression, "fp32")[0]
    read = []
    encode = wire.method.source.spans
    monkeypatch.setattr(
        type(wire.method.source), "spans", lambda self, windows: read.extend(windows) or encode(windows)
    )
    appended = wire.append(latent, text, added, compression)
    np.testing.assert_allclose(appended.payload, whole.payload, atol=1e-2)  # features are bf16, and batches round apart
    assert (appended.space, appended.source_tokens) == (whole.space, whole.source_tokens)
    windows = wire.method.source.windows(text + added)
    assert 0 < len(read) < len(windows)
    assert read == windows[-len(read) :]
    with pytest.raises(LatentError, match="expected the latent of that text"):
        wire.append(latent, TEXT, added, compression)


def test_files_of_two_trainings_are_refused(folder):
    weights = load_file(folder / "latents.safetensors")
    weights["mix.bias"] += 1
    save_file(weights, folder / "latents.safetensors")
    with pytest.raises(WireError, match="of two trainings"):
        lw.Wire.load(folder)


def test_a_config_without_its_parts_is_refused(folder):
    (folder / "config.json").write_text('{"format": 3, "readers": {}}')
    with pytest.raises(WireError, match="expected a whole"):
        lw.Wire.load(folder)
