"""The encoder's features against the model's own hidden states, and their store on disk."""

import os
import random
import signal
import time

import pytest
import torch
import torch.nn.functional as F

from latentwire.data import DATASETS
from latentwire.encoder import Encoder, spaced_layers
from latentwire.errors import FeatureError, MethodError
from latentwire.features import FeatureStore, span_bytes
from latentwire.reader.load import load_reader
from latentwire.surprise import by_surprise
from tiny import FAMILIES, save_tiny, tiny_reader

TEXTS = [example.context for example in DATASETS["facts"]().examples("train", 0, 6)]
MIB = 2**20


def encoder_of(family="llama", **fields):
    reader = tiny_reader(family)
    return Encoder(reader, **{"layers": spaced_layers(reader), "window": 32, **fields})


def windows_of(encoder, texts=TEXTS):
    return [window for text in texts for window in encoder.windows(text)]


def assert_alike(one, other):
    """Spans of windows that were read in different batches: the same but for rounding."""
    assert torch.equal(one.kept, other.kept)
    assert torch.equal(one.rank, other.rank)
    assert one.length == other.length
    torch.testing.assert_close(one.states, other.states, atol=2e-2, rtol=2e-2)


def test_an_encoder_that_computes_wider_than_its_weights_is_the_same_one_with_features_of_its_own(tmp_path):
    folder = str(save_tiny(tmp_path / "tiny", "llama"))
    narrow = Encoder(load_reader(folder, dtype="bfloat16"), (0, 1, 2))
    wide = Encoder(load_reader(folder, dtype="bfloat16"), (0, 1, 2), rounded=torch.bfloat16)
    wide.reader.model.float()
    assert wide.identity == narrow.identity
    assert wide.features != narrow.features
    for one, other in zip(wide.read(windows_of(wide)), narrow.read(windows_of(narrow)), strict=True):
        assert (one.states - other.states.float()).norm() < 0.05 * one.states.norm()


@pytest.mark.parametrize("pool", [1, 4, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_spans_end_at_the_tokens_that_are_kept_and_hold_the_models_own_hidden_states(family, pool):
    encoder = encoder_of(family, pool=pool)
    reader, num_layers = encoder.reader, len(encoder.layers)
    windows = windows_of(encoder)
    begin = [] if reader.tokenizer.bos_token_id is None else [reader.tokenizer.bos_token_id]
    for window, found in zip(windows, encoder.spans(windows), strict=True):
        out = reader.model(input_ids=torch.tensor([[*begin, *window]]), output_hidden_states=True)
        surprise = F.cross_entropy(
            out.logits[0, :-1].float(), torch.tensor([*begin, *window][1:], dtype=torch.long), reduction="none"
        )
        surprise = surprise if begin else torch.cat([torch.tensor([torch.inf]), surprise])
        count = -(-len(window) // pool)
        order = by_surprise(reader, torch.tensor(window), surprise)[:count]
        assert torch.equal(found.kept, order.sort().values)
        assert torch.equal(found.kept[found.rank.argsort()], order)
        ends = [*(found.kept[:-1] + 1).tolist(), len(window)]
        assert found.sizes.tolist() == [end - start for start, end in zip([0, *ends], ends, strict=False)]
        for place, layer in enumerate(encoder.layers):
            states = out.hidden_states[layer][0, len(begin) :]
            torch.testing.assert_close(found.states[:, place].float(), states[found.kept], atol=2e-2, rtol=2e-2)
            means = torch.stack([span.mean(dim=0) for span in states.split(found.sizes.tolist())])
            torch.testing.assert_close(found.states[:, num_layers + place].float(), means, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_that_stops_early_sees_the_models_own_states_and_keeps_rare_words_first(tmp_path, family, layers):
    folder = str(save_tiny(tmp_path / "tiny", family))
    reader = load_reader(folder, dtype="float32")  # no other encoder was made of it before
    encoder, whole = Encoder(reader, layers, window=32), Encoder(reader, spaced_layers(reader), window=32)
    windows, further = windows_of(encoder), []
    watch = reader.model.model.layers[max(layers)].register_forward_hook(lambda *_: further.append(True))
    encoder.read(windows[:1])  # the first call may look further
    further.clear()
    read = encoder.read(windows)
    watch.remove()
    assert not further, "a layer ran that nothing is kept of"
    for window, seen, all_seen, spans in zip(windows, read, whole.read(windows), encoder.spans(windows), strict=True):
        torch.testing.assert_close(seen.states, all_seen.states[:, list(layers)], atol=1e-5, rtol=1e-5)
        order = by_surprise(reader, torch.tensor(window), torch.tensor(window).float().log1p())
        assert torch.equal(spans.kept, order[: -(-len(window) // 4)].sort().values)
    assert encoder.identity != whole.identity
    begin = [] if reader.tokenizer.bos_token_id is None else [reader.tokenizer.bos_token_id]
    for window, all_seen in zip(windows, whole.read(windows), strict=True):
        out = reader.model(input_ids=torch.tensor([[*begin, *window]]), output_hidden_states=True)
        states = torch.stack(out.hidden_states, dim=2)[0, len(begin) :]
        torch.testing.assert_close(all_seen.states, states, atol=1e-4, rtol=1e-4)


def test_coarser_spans_are_those_of_a_coarser_encoder():
    fine, coarse = encoder_of(pool=4), encoder_of(pool=16)
    windows = windows_of(fine)
    for window, one, other in zip(windows, fine.spans(windows), coarse.spans(windows), strict=True):
        assert_alike(one.coarser(-(-len(window) // 16)), other)
        assert one.coarser(len(one.kept)) is one


def test_text_appended_at_a_border_adds_windows_and_changes_none():
    encoder = encoder_of(window=16)
    ids = encoder.reader.prompter.slot(TEXTS[0]).ids
    words = TEXTS[0].split(" ")
    at_border = [
        size for size in range(1, len(words)) if len(encoder.reader.prompter.slot(" ".join(words[:size])).ids) % 16 == 0
    ]
    assert at_border, "expected a text with a word that ends at a window's border"
    first, rest = " ".join(words[: at_border[0]]), " " + " ".join(words[at_border[0] :])
    whole = encoder.windows(TEXTS[0])
    assert encoder.windows(first) + encoder.windows(rest) == whole
    assert sum(whole, ()) == ids
    together = encoder.spans(whole)
    apart = encoder.spans(encoder.windows(first)) + encoder.spans(encoder.windows(rest))
    for one, other in zip(together, apart, strict=True):
        assert_alike(one, other)


def test_one_token_is_a_text_and_none_is_not():
    encoder = encoder_of()
    (window,) = encoder.windows("a")
    (spans,) = encoder.spans([window])
    assert spans.states.shape == (1, 6, encoder.reader.width)
    assert (spans.kept.tolist(), spans.rank.tolist(), spans.sizes.tolist()) == ([0], [0], [1])
    with pytest.raises(MethodError, match="empty"):
        encoder.windows("")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layers": ()}, "1 to 6 different layers"),
        ({"layers": (0, 0)}, "different layers"),
        ({"layers": (0, 3)}, "from 0 to 2"),
        ({"window": 20}, "multiple of 16"),
        ({"pool": 5}, "multiple"),
        ({"pool": 0}, "multiple"),
    ],
)
def test_wrong_fields_are_refused_by_name(fields, words):
    with pytest.raises(MethodError, match=words):
        encoder_of(**fields)


def test_what_was_filled_is_there_bit_by_bit_and_not_computed_again(tmp_path):
    encoder = encoder_of()
    store = FeatureStore(tmp_path, encoder, 8 * MIB)
    windows = windows_of(encoder)
    assert store.bytes_for(windows) == sum(-(-len(window) // 4) for window in windows) * span_bytes(3, 64)
    shown = []
    store.fill([*windows, *windows[:3]], lambda done, remark: shown.append(done))
    assert shown[-1] == 1.0
    assert store.missing(windows) == []
    for window in windows:
        (expected,) = encoder.spans([window])
        assert_alike(store.spans(window), expected)
    kept = [store.spans(window) for window in windows]
    store.close()
    again = FeatureStore(tmp_path, encoder, 8 * MIB)
    again.fill(windows, lambda done, remark: pytest.fail("expected nothing to be left to compute"))
    assert all(torch.equal(one.states, again.spans(window).states) for one, window in zip(kept, windows, strict=True))


def test_too_large_a_set_is_refused_before_anything_is_computed(tmp_path):
    encoder = encoder_of()
    windows = windows_of(encoder)
    store = FeatureStore(tmp_path, encoder, 10_000)
    with pytest.raises(FeatureError, match="--cache-limit"):
        store.fill(windows)
    assert len(store.missing(windows)) == len(set(windows))


@pytest.mark.parametrize("other", [{"layers": (0, 1)}, {"pool": 8}, {"family": "qwen2"}])
def test_folder_of_another_encoder_is_refused(tmp_path, other):
    FeatureStore(tmp_path, encoder_of(), MIB).close()
    with pytest.raises(FeatureError, match="LATENTWIRE_CACHE"):
        FeatureStore(tmp_path, encoder_of(**other), MIB)


def test_unknown_window_and_damaged_entry_are_named(tmp_path):
    encoder = encoder_of()
    store = FeatureStore(tmp_path, encoder, MIB)
    window = windows_of(encoder)[0]
    with pytest.raises(FeatureError, match="fill the store first"):
        store.spans(window)
    store.fill([window])
    wider = encoder_of()
    object.__setattr__(wider, "layers", (0, 1))
    store.encoder = wider
    with pytest.raises(FeatureError, match="start anew"):
        store.spans(window)


def test_killed_while_filling_goes_on_and_gives_the_same(tmp_path):
    encoder = encoder_of()
    texts = [example.context for example in DATASETS["facts"]().examples("train", 1, 60)]
    windows = windows_of(encoder, texts)
    calm = FeatureStore(tmp_path / "calm", encoder, 16 * MIB)
    calm.fill(windows)
    draw, sizes = random.Random(0), []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            FeatureStore(tmp_path / "stormy", encoder, 16 * MIB).fill(windows)
            os._exit(0)
        time.sleep(draw.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if (tmp_path / "stormy").exists():
            with FeatureStore(tmp_path / "stormy", encoder, 16 * MIB) as store:
                sizes.append(len(windows) - len(store.missing(windows)))
    assert sizes == sorted(sizes)
    stormy = FeatureStore(tmp_path / "stormy", encoder, 16 * MIB)
    stormy.fill(windows)
    for window in windows:
        assert_alike(stormy.spans(window), calm.spans(window))
