"""What arrives is what was sent, or it is refused: text of any kind, latents of other spaces, methods saved and loaded."""

import dataclasses

import numpy as np
import pytest
import torch

from latentwire.codecs import transmit
from latentwire.errors import LatentError
from latentwire.methods import METHODS
from latentwire.methods.compressors import COMPRESSORS
from latentwire.methods.decoders import DECODERS
from latentwire.methods.per_token import PerToken
from latentwire.reader.prompts import Layout, Prompter
from questions import QUESTIONS, carried, counts_of
from tiny import FAMILIES, tiny_reader, tiny_tokenizer

SCOPES = ("prompt", "context")
LOSSLESS = ("full_text", "token_ids", "raw_embeddings")
# Text is read by any reader.
TEXT_METHODS = {"full_text", "no_context", "truncated", "relay", "rewritten", "surprising_tokens", "tuned"}
ODD_CONTEXTS = [
    "A record separator \x1e here, \x1e and there.",
    "Null \x00, tab \t, line\nbreak, carriage\r\nreturn, and  two  spaces ",
    "Zürich, 東京, \U0001f9ea, e\u0301, and \u241eslot\u241e.",
    "She's sure , they 're here .  'Tis n't so !",
]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("context", ODD_CONTEXTS)
def test_text_of_any_kind_reaches_the_reader_as_the_same_tokens(name, context, scope):
    reader = tiny_reader("llama")
    prompt = reader.prompt(dataclasses.replace(QUESTIONS[0], context=context), scope)
    prefix = carried(METHODS[name](), [prompt], reader)
    assert torch.equal(prefix.embeds[0], reader.embed(torch.tensor(prompt.slot.ids)))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("context", [" ".join(QUESTIONS[1].context.split() * 3), *(12 * text for text in ODD_CONTEXTS)])
def test_a_prompt_cut_anywhere_is_the_same_tokens_as_text_and_as_ids(context, family, scope):
    tokenizer = tiny_tokenizer(family)
    example = dataclasses.replace(QUESTIONS[1], context=context)
    whole = tiny_reader(family).prompt(example, scope)
    for cut in range(1, 20):
        limit = len(whole.ids) - cut
        prompter = Prompter(tokenizer, Layout("plain", 1), limit, "truncate")
        prompt = prompter.prompt(example, scope)
        assert len(prompt.ids) <= limit
        assert prompt.truncated_tokens == len(whole.ids) - len(prompt.ids) < cut + 4
        assert prompter.slot(*prompt.slot.pieces).ids == prompt.slot.ids
        assert context.startswith(prompt.slot.context)


def prepared(reader, examples=QUESTIONS, **fields):
    method = PerToken(**fields)
    method.prepare(reader, counts_of(reader, examples=examples))
    return method


@pytest.mark.parametrize(
    "other",
    [{"width": 7}, {"compressor": "random", "seed": 1}, {"examples": QUESTIONS[:2]}],
    ids=["width", "seed", "corpus"],
)
@pytest.mark.parametrize("compressor", ["pca", "random"])
def test_latent_of_another_basis_is_refused(compressor, other):
    reader = tiny_reader("llama")
    sender, receiver = prepared(reader, compressor=compressor), prepared(reader, **{"compressor": compressor, **other})
    latents = sender.encode([reader.prompt(QUESTIONS[0], "prompt").slot], reader)
    with pytest.raises(LatentError, match="expected a latent of space"):
        receiver.prefix(latents, reader)


@pytest.mark.parametrize("name", sorted(set(METHODS) - TEXT_METHODS))
def test_latent_of_another_reader_is_refused(name):
    llama, qwen = tiny_reader("llama"), tiny_reader("qwen2")
    sender, receiver = METHODS[name](), METHODS[name]()
    sender.prepare(llama, counts_of(llama))
    receiver.prepare(qwen, counts_of(qwen))
    contexts = [dataclasses.replace(QUESTIONS[0], context=f"{QUESTIONS[0].context} {number}") for number in range(4)]
    latents = sender.encode([llama.prompt(example, "prompt").slot for example in contexts], llama)
    with pytest.raises(LatentError, match="expected a latent of space"):
        receiver.prefix(latents, qwen)


@pytest.mark.parametrize("wire_dtype", ["int8", "fp16"])
@pytest.mark.parametrize("compressor", list(COMPRESSORS))
@pytest.mark.parametrize("decoder", list(DECODERS))
def test_trained_method_is_the_same_after_saving_and_loading(decoder, compressor, wire_dtype):
    reader = tiny_reader("gemma3")
    fields = {"decoder": decoder, "compressor": compressor, "wire_dtype": wire_dtype}
    trained, loaded = prepared(reader, **fields), PerToken(**fields)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained.module().parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=draw)
    loaded.load({name: tensor.clone() for name, tensor in trained.tensors().items()}, reader)
    prompts = [reader.prompt(example, "prompt") for example in QUESTIONS]
    latents = trained.encode([prompt.slot for prompt in prompts], reader)
    assert torch.equal(trained.prefix(latents, reader).embeds, loaded.prefix(latents, reader).embeds)
    assert trained.total_variance == loaded.total_variance
    assert [one.payload.tobytes() for one in latents] == [
        one.payload.tobytes() for one in loaded.encode([prompt.slot for prompt in prompts], reader)
    ]


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_training_decodes_what_the_reader_gets(decoder):
    reader = tiny_reader("qwen2")
    method = prepared(reader, decoder=decoder)
    prompt = reader.prompt(QUESTIONS[1], "prompt")
    trained_on = method.restore(torch.tensor(prompt.slot.ids), reader)
    torch.testing.assert_close(carried(method, [prompt], reader).embeds[0], trained_on, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("wire_dtype", "vector_bytes"), [("int8", 8 + 2), ("fp16", 2 * 8)])
def test_price_of_a_code_is_its_width_and_scale(wire_dtype, vector_bytes):
    reader = tiny_reader("llama")
    prompt = reader.prompt(QUESTIONS[0], "prompt")
    (latent,) = prepared(reader, wire_dtype=wire_dtype).encode([prompt.slot], reader)
    assert transmit(latent)[1] == len(prompt.slot.ids) * vector_bytes


@pytest.mark.parametrize("scope", SCOPES)
def test_prices_of_text_and_ids_are_their_bytes(scope):
    reader = tiny_reader("llama")
    prompt = reader.prompt(QUESTIONS[1], scope)
    found = {name: transmit(METHODS[name]().encode([prompt.slot], reader)[0])[1] for name in LOSSLESS}
    ids = len(prompt.slot.ids)
    separators = len(prompt.slot.pieces) - 1
    text = len("".join(prompt.slot.pieces).encode()) + separators
    assert found == {"full_text": text, "token_ids": 2 * ids, "raw_embeddings": 4 * reader.width * ids}


def test_unused_rows_of_the_table_are_coded_as_well():
    reader = tiny_reader("llama")
    counts = np.zeros(reader.vocab_size, dtype=np.int64)
    counts[:100] = 1
    method = PerToken(decoder="codebook_hard")
    method.prepare(reader, counts)
    ids = torch.arange(400, 500)
    assert torch.equal(method.restore(ids, reader), reader.embed(ids))
