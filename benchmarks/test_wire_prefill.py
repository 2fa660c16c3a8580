"""What a reader saves that reads a wire's latents in place of 1,000 or 1,500 tokens: prefill time and key-value memory."""

import numpy as np
import torch

from conftest import READER, record, seconds
from latentwire.data import Example
from latentwire.methods.wire import Wire
from latentwire.reader import Inputs
from latentwire.reader.cache import cache_bytes
from latentwire.reader.inputs import pad_left
from latentwire.reader.load import load_reader

OTHER = "gemma-3-270m"
ROUNDS = 10
TOKENS = (1000, 1500)
COMPRESSION = 4
NUM_CONTEXTS = 4
LIGHT = (1, 2)  # layers of an encoder that stops after two


def long_contexts(reader, examples, tokens):
    """Contexts of about so many tokens, each made of several."""
    texts, found = iter(dict.fromkeys(example.context for example in examples)), []
    while len(found) < NUM_CONTEXTS:
        ids = ()
        while len(ids) < tokens:
            ids += reader.prompter.slot(" " + next(texts)).ids
        found.append(str(reader.tokenizer.decode(ids[:tokens])))
    return found


def held_bytes(cache):
    """Bytes of the keys and values that a cache holds."""
    return sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


def read(reader, text):
    """Transformers reads a prompt, tokenised first: encoding starts from the text too."""
    prompt = prompt_of(reader, text)
    ids = torch.tensor([[*prompt.before, *prompt.slot.ids, *prompt.after]])
    return ids, reader.model(input_ids=ids, use_cache=True, logits_to_keep=1)


def prompt_of(reader, text):
    """The text with a question about it."""
    return reader.prompt(Example("", text, "What is it about?", ("it",)), "context")


@torch.no_grad()
def measured(name, encoder, texts):
    """One reader's row: transformers reading the text, encoding, and the reader reading the latents, in turns. Wires are untrained: their keepers choose by
    surprise or rarity, without the product that a learnt one adds."""
    reader = encoder if name == encoder.name else load_reader(name, shots=0)
    wires = {
        part: Wire(encoder=encoder.source, compressions=(COMPRESSION,), layers=layers)
        for part, layers in (("encode", None), ("light_encode", LIGHT))
    }
    for method in wires.values():
        for one in dict.fromkeys((encoder, reader)):
            method.prepare(one, np.zeros(one.vocab_size, dtype=np.int64))
    times, kept, positions = {part: [] for part in ("text", "text_by_reader", "latents", *wires)}, {}, {}
    for _ in range(ROUNDS):
        for text in texts:
            prompt = prompt_of(reader, text)
            spent, (ids, out) = seconds(lambda text=text: read(reader, text))
            times["text"].append(spent)
            kept["text"], positions["text"] = held_bytes(out.past_key_values), ids.shape[1]
            whole = pad_left([reader.embed(ids[0])])
            times["text_by_reader"].append(seconds(lambda whole=whole: reader.prefill(whole))[0])
            for part, method in wires.items():
                spent, latents = seconds(lambda prompt=prompt, method=method: method.encode([prompt.slot], reader))
                times[part].append(spent)
            inputs = reader.lay_in([prompt], method.prefix(latents, reader))
            whole = Inputs(inputs.embeds, inputs.mask)  # nothing of it read before
            spent, state = seconds(lambda whole=whole: reader.prefill(whole))
            times["latents"].append(spent)
            kept["latents"], positions["latents"] = held_bytes(state.cache), int(state.mask.sum())
    needed = {part: cache_bytes(reader.model.config, positions[part], reader.dtype.itemsize) for part in kept}
    took = {part: np.array(times[part]) for part in times}
    text, latents, encode, light = (took[part] for part in ("text", "latents", "encode", "light_encode"))
    return {
        "comparison": f"{reader.name}, {positions['text']:,} positions",
        "text_seconds": float(np.median(text)),
        "text_by_reader_seconds": float(np.median(took["text_by_reader"])),
        "latents_seconds": float(np.median(latents)),
        "encode_seconds": float(np.median(encode)),
        "light_encode_seconds": float(np.median(light)),
        "times_faster": float(np.median(text / latents)),
        "share_of_ideal_quarter": float(np.median(COMPRESSION * latents / text)),
        "times_faster_at_first_read": float(np.median(text / (latents + encode))),
        "times_faster_at_first_read_light": float(np.median(text / (latents + light))),
        "times_faster_over_10_reads": float(np.median(10 * text / (10 * latents + encode))),
        **{f"{part}_positions": positions[part] for part in positions},
        **{f"{part}_cache_bytes": kept[part] for part in kept},
        **{f"{part}_cache_share_of_needed": kept[part] / needed[part] for part in kept},
    }


def test_prefill_and_key_value_memory_of_latents_against_text(benchmark, examples, data_name):
    encoder = load_reader(READER, shots=0)  # worked examples would be read on both sides alike
    lengths = [long_contexts(encoder, examples, tokens) for tokens in TOKENS]
    rows = [measured(name, encoder, texts) for name in (READER, OTHER) for texts in lengths]
    benchmark.pedantic(lambda: None, rounds=1)
    meta = {
        "what": f"Reading a context of 1,000 or 1,500 tokens with its question at {COMPRESSION}x, one prompt at a time, no worked examples ({data_name});"
        " the key-value cache as the reader holds it, and as a share of what its layout needs for as many positions",
        "peer": "transformers in the same process reading the text, with its cache and logits of the last position only",
        "units": {
            "seconds": "median of all contexts and rounds, wall clock",
            "light": "an encoder that stops after two of its layers",
            "text_by_reader": "the text as LatentWire's reader reads it, which makes no logits",
            "cache_bytes": "keys and values of one prompt",
        },
        "headline": "one row for each reader and length; share_of_ideal_quarter is 1 where a quarter of the tokens takes a quarter of the time",
        "rounds": ROUNDS,
        "data": data_name,
    }
    record(benchmark, "wire_prefill", meta, rows)
    for row in rows:
        assert row["times_faster"] >= 3
        assert row["latents_cache_share_of_needed"] <= 1.1
