"""What an encoder learns to keep: words that answers are made of, known from the texts and answers of others."""

import pytest
import torch

from latentwire.asked import LEAST, teach, words_asked
from latentwire.data import DATASETS
from latentwire.encoder import Encoder, spaced_layers
from latentwire.errors import MethodError
from latentwire.keeper import Keeper
from latentwire.methods.surprising import SurprisingTokens
from latentwire.methods.wire import Wire
from latentwire.reader.load import load_reader
from latentwire.surprise import words_of
from latentwire.wire_folder import read_wire
from tiny import FAMILIES, save_tiny, tiny_reader

MIB = 2**20


def silent(done, remark):
    pass


def asked_of(split, count):
    asked = {}
    for example in DATASETS["facts"](questions_per_passage=9).examples(split, 0, count):
        asked.setdefault(example.context, []).extend(example.answers)
    return asked


def lowercase_words_of(asked):
    """Texts of which other words are asked for than names and numbers."""
    return {text: [word for word in text.split() if word.islower() and len(word) > 4] for text in asked}


def encoder_of(family="llama"):
    reader = tiny_reader(family)
    return Encoder(reader, spaced_layers(reader))


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_an_answer_are_marked_wherever_they_stand_side_by_side(family):
    reader = tiny_reader(family)
    window = reader.prompter.slot("The car of Zurela is red. The Red Car, not the red one, is 1894 days old.").ids
    word = words_of(reader, list(window))
    spelt = [[] for _ in range(int(word[-1]) + 1)]
    for token, number in zip(window, word.tolist(), strict=True):
        spelt[number].append(token)
    words = [reader.tokenizer.decode(one).strip() for one in spelt]
    marked = words_asked(reader, window, word, ["red", "Red car", "1894", "blue", "", "car of Zurela"])
    assert [one for one, found in zip(words, marked.tolist(), strict=True) if found] == [
        *("car", "of", "Zurela", "red", "Red", "Car", "red", "1894"),
    ]


def test_what_is_kept_of_new_texts_are_words_of_the_kind_that_was_asked_for(tmp_path):
    encoder = encoder_of()

    def share_kept():
        kept, count = 0, 0
        for text, answers in asked_of("heldout", 90).items():
            (window,) = encoder.windows(text)
            word = words_of(encoder.reader, list(window))
            due = words_asked(encoder.reader, window, word, answers)[word].nonzero()[:, 0]
            kept += int(torch.isin(due, encoder.spans([window])[0].kept).sum())
            count += len(due)
        return kept / count

    before = share_kept()
    teach(encoder, asked_of("train", 900), tmp_path, silent)
    assert encoder.keeper.learnt
    assert share_kept() > before + 0.2


def test_what_was_learnt_is_kept_on_disk_and_named_in_the_features(tmp_path):
    one, other, third = encoder_of(), encoder_of(), encoder_of()
    asked = asked_of("train", 400)
    teach(one, asked, tmp_path, silent)
    (path,) = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    teach(other, asked, tmp_path, lambda done, remark: pytest.fail("nothing is to be read again"))
    assert path.stat().st_mtime_ns == stamp
    assert one.features == other.features != one.identity == other.identity
    path.write_bytes(b"damaged")
    teach(third, asked, tmp_path, silent)
    assert third.features == one.features
    teach(third, lowercase_words_of(asked_of("heldout", 400)), tmp_path, silent)
    assert third.features != one.features


def test_what_was_learnt_stays_where_a_text_has_few_of_its_questions(tmp_path):
    encoder, asked = encoder_of(), asked_of("train", 1800)
    teach(encoder, asked, tmp_path, silent)
    before = encoder.features
    few = {text: answers[:1] for text, answers in asked.items()}
    assert sum(map(len, few.values())) > LEAST
    teach(encoder, few, tmp_path, silent)
    assert encoder.features == before


@pytest.mark.parametrize(("gain", "share"), [(1e9, 0.5), (-1e9, 1.0)], ids=["nothing gained", "always more"])
def test_twice_as_many_words_are_read_as_long_as_they_help(gain, share, tmp_path, monkeypatch):
    encoder, asked, said = encoder_of(), asked_of("train", 900), []
    most = sum(
        int(words_of(encoder.reader, list(window))[-1]) + 1 for text in asked for window in encoder.windows(text)
    )
    monkeypatch.setattr("latentwire.asked.WORDS", most // 4)
    monkeypatch.setattr("latentwire.asked.LEAST_GAIN", gain)
    teach(encoder, asked, tmp_path, lambda done, remark: said.append(remark))
    assert share * most - 2 <= int(said[-1].split()[-2]) < 1.25 * share * most  # windows come several at a time
    assert encoder.keeper.learnt


def test_learning_goes_on_from_what_was_learnt_before():
    torch.manual_seed(0)
    features = torch.randn(400, 35)
    first, second = features[:, 0] > 0, features[:, 1] > 0
    keeper = Keeper(8, 3)
    keeper.learn(features, first)
    scale = keeper.scale.clone()
    keeper.learn(3 * features[:8] + 1, second[:8])  # a few words of another kind
    assert torch.equal(keeper.scale, scale)
    found = keeper(features)
    assert float((found > 0).float().sub(first.float()).abs().mean()) < 0.2
    keeper.learn(features, second)
    found = keeper(features)
    assert float((found > 0).float().sub(second.float()).abs().mean()) < 0.2


def test_a_wire_that_learns_further_learns_what_is_asked_for_anew_and_attaching_a_reader_does_not(tmp_path):
    reader = tiny_reader("llama")
    method = Wire(hidden=16, task_tokens=2)
    method.prepare(reader, None)
    method.gather(asked_of("train", 400), tmp_path / "features", 64 * MIB, silent)
    method.publish(tmp_path / "wire", [reader])
    further, attached = (
        Wire(hidden=16, task_tokens=2),
        Wire(hidden=16, task_tokens=2, latents_from=str(tmp_path / "wire")),
    )
    further.load(method.tensors(), reader)
    attached.prepare(reader, None)
    assert further.source.features == attached.source.features == method.source.features
    for one in (further, attached):
        one.gather(lowercase_words_of(asked_of("heldout", 400)), tmp_path / "later", 64 * MIB, silent)
    assert attached.source.features == method.source.features != further.source.features


def test_with_too_few_words_that_are_asked_for_surprise_stays_the_guide(tmp_path):
    encoder = encoder_of()
    asked = dict(list(asked_of("train", 20).items())[:2])
    assert sum(len(answer.split()) for answers in asked.values() for answer in answers) < LEAST
    teach(encoder, asked, tmp_path, silent)
    assert not encoder.keeper.learnt
    assert encoder.features == encoder.identity
    with pytest.raises(MethodError, match="of one kind"):
        Keeper(8, 3).learn(torch.randn(4, 35), torch.ones(4, dtype=torch.bool))


def test_a_published_wire_keeps_the_same_words_and_so_does_its_rung_of_text(tmp_path):
    reader = load_reader(str(save_tiny(tmp_path / "tiny-llama", "llama")), dtype="float32")
    method = Wire(hidden=16, task_tokens=2)
    method.prepare(reader, None)
    asked = asked_of("train", 400)
    method.gather(asked, tmp_path / "features", 64 * MIB, silent)
    method.publish(tmp_path / "wire", [reader])
    files = read_wire(tmp_path / "wire")
    loaded = Wire(**files.fields())
    loaded.load(files.tensors, reader)
    assert loaded.source.features == method.source.features != method.source.identity
    assert loaded.space == files.space == method.space
    slot = reader.prompt(DATASETS["facts"]().examples("heldout", 0, 1)[0], "context").slot
    (window,) = loaded.source.windows(slot.text)
    (spans,) = loaded.source.spans([window])
    (latent,) = SurprisingTokens(wire=str(tmp_path / "wire")).encode([slot], reader)
    expected = reader.tokenizer.decode(torch.tensor(window)[spans.kept].tolist(), clean_up_tokenization_spaces=False)
    text = latent.payload.tobytes().decode()
    assert expected.startswith(text)
    assert len(text) > len(expected) / 2
