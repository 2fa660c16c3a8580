"""Data sets read from files and the hub: what they return, and how they refuse what is wrong."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from latentwire.data import DATASETS, Example, Split, context_hash, in_split, refuse_overlap, select
from latentwire.data.hotpotqa import HotpotQA
from latentwire.data.hub import Hub
from latentwire.data.jsonl import Jsonl
from latentwire.data.squad import Squad
from latentwire.errors import DataError, RegistryError

FILE_DATASETS = {"squad": ".json", "hotpotqa": ".json", "jsonl": ".jsonl"}
CONTEXT = "The café opened in 1987 and closed in 2003."


def squad_entry(article: str = "Cafés", identity: str = "q1", **changes: Any) -> dict[str, Any]:
    """One article with one paragraph and one question; `changes` replace fields of the question or the context."""
    answers = [{"text": "1987", "answer_start": 19}, {"text": "in 1987", "answer_start": 16}]
    context = changes.pop("context", CONTEXT)
    question = {"id": identity, "question": "When did it open?", "answers": [*answers, answers[0]], **changes}
    return {"title": article, "paragraphs": [{"context": context, "qas": [question]}]}


def squad_file(folder: Path, *articles: dict[str, Any], name: str = "squad.json") -> Path:
    file = folder / name
    file.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    return file


def hotpot_entry(**changes: Any) -> dict[str, Any]:
    context = [["Cafés", ["It opened in 1987.", " It closed in 2003."]], ["Tea", ["Tea is a drink."]]]
    return {"_id": "h1", "question": "When did it open?", "answer": "1987", "context": context, **changes}


def hotpot_file(folder: Path, *entries: dict[str, Any]) -> Path:
    file = folder / "hotpot.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    return file


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "r1", "context": CONTEXT, "question": "When did it open?", "answers": ["1987"], **changes}


def jsonl_file(folder: Path, *rows: dict[str, Any], name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
    return file


def good_text(dataset: str) -> str:
    """The text of a file that `dataset` reads."""
    values = {"squad": {"data": [squad_entry()]}, "hotpotqa": [hotpot_entry()], "jsonl": row()}
    return json.dumps(values[dataset], ensure_ascii=False)


def read(dataset: str, path: Path) -> list[Example]:
    return DATASETS[dataset](path).examples("all", 0, None)  # type: ignore[call-arg]


def numbered(articles: int, questions: int) -> list[Example]:
    pairs = [(article, number) for article in range(articles) for number in range(questions)]
    return [Example(f"{a}-{n}", f"context {a}", f"question {n}?", ("yes",), f"article {a}") for a, n in pairs]


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `datasets` library without network and with its cache in `tmp_path`."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


# Every data set that reads files


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_plain_utf8_file_is_read(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(good_text(dataset), encoding="utf-8")
    (example,) = read(dataset, tmp_path / "file")
    assert example.answers[0] == "1987"
    assert "1987" in example.context


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_utf8_byte_order_mark_changes_nothing(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(good_text(dataset), encoding="utf-8")
    plain = read(dataset, tmp_path / "file")
    (tmp_path / "file").write_text(good_text(dataset), encoding="utf-8-sig")
    assert read(dataset, tmp_path / "file") == plain


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_wide_encoding_raises_data_error(dataset: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(good_text(dataset), encoding=encoding)
    with pytest.raises(DataError, match=r"file: expected UTF-8 text, got UTF-16 or UTF-32; save the file as UTF-8"):
        read(dataset, tmp_path / "file")


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_latin1_file_raises_data_error_with_the_offset(dataset: str, tmp_path: Path) -> None:
    raw = good_text(dataset).encode("latin-1")
    (tmp_path / "file").write_bytes(raw)
    with pytest.raises(DataError, match=f"expected UTF-8 text, got byte 0xe9 at offset {raw.index(0xE9)}"):
        read(dataset, tmp_path / "file")


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_missing_path_raises_data_error(dataset: str, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "no folder" / "none.json"):
        with pytest.raises(DataError, match=re.escape(f"expected a file or folder at {path}, found nothing")):
            read(dataset, path)


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_path_that_the_system_refuses_raises_data_error(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a readable path, got 'File name too long'; check it"):
        read(dataset, tmp_path / ("a" * 300))


@pytest.mark.parametrize(("dataset", "suffix"), FILE_DATASETS.items())
def test_folder_without_data_files_raises_data_error(dataset: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=re.escape(f"expected *{suffix} files in {tmp_path}, found none")):
        read(dataset, tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_truncated_json_raises_data_error(dataset: str, keep: float, tmp_path: Path) -> None:
    text = good_text(dataset)
    (tmp_path / "file").write_text(text[: int(len(text) * keep)] or "[", encoding="utf-8")
    with pytest.raises(DataError, match=r"file.*: expected whole JSON, got .*; write or download it again"):
        read(dataset, tmp_path / "file")


@pytest.mark.parametrize("value", ["3", '"text"', "null", "{}", "[1]", '{"data": 3}', '[{"question": "?"}]'])
@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_json_of_another_shape_raises_data_error(dataset: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(value)
    with pytest.raises(DataError, match=r"file.*: expected .*, got .*; ") as caught:
        read(dataset, tmp_path / "file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_half_a_surrogate_pair_raises_data_error(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(good_text(dataset).replace("open?", "open \\ud83d?"), encoding="utf-8")
    with pytest.raises(DataError, match="surrogates not allowed"):
        read(dataset, tmp_path / "file")


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_very_deep_json_raises_data_error(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("[" * 200_000)
    with pytest.raises(DataError, match="expected whole JSON"):
        read(dataset, tmp_path / "file")


@pytest.mark.parametrize(
    ("dataset", "field"),
    [(dataset, field) for dataset in FILE_DATASETS for field in ("context", "question", "id")],
)
def test_empty_text_raises_data_error(dataset: str, field: str, tmp_path: Path) -> None:
    if dataset == "squad":
        empty = {"answers": [{"text": "", "answer_start": 0}]} if field == "context" else {}
        file = squad_file(tmp_path, squad_entry(**{"identity" if field == "id" else field: " "}, **empty))
    elif dataset == "hotpotqa":
        file = hotpot_file(
            tmp_path, hotpot_entry(**{{"id": "_id"}.get(field, field): [] if field == "context" else " "})
        )
    else:
        file = jsonl_file(tmp_path, row(**{field: " "}))
    with pytest.raises(DataError, match=f"expected a non-empty {field}, got an empty one"):
        read(dataset, file)


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_empty_answer_raises_data_error(dataset: str, tmp_path: Path) -> None:
    if dataset == "squad":
        file = squad_file(tmp_path, squad_entry(answers=[{"text": "", "answer_start": 3}]))
    elif dataset == "hotpotqa":
        file = hotpot_file(tmp_path, hotpot_entry(answer=""))
    else:
        file = jsonl_file(tmp_path, row(answers=[""]))
    with pytest.raises(DataError, match="expected at least one non-empty answer, got none"):
        read(dataset, file)


@pytest.mark.parametrize("dataset", FILE_DATASETS)
def test_duplicate_id_raises_data_error(dataset: str, tmp_path: Path) -> None:
    files = {
        "squad": lambda: squad_file(tmp_path, squad_entry(), squad_entry("Other")),
        "hotpotqa": lambda: hotpot_file(tmp_path, hotpot_entry(), hotpot_entry(question="Why?")),
        "jsonl": lambda: jsonl_file(tmp_path, row(), row(question="Why?")),
    }
    with pytest.raises(DataError, match=r"expected unique ids, got '\w1' twice"):
        read(dataset, files[dataset]())


def test_more_examples_than_there_are_raises_data_error(tmp_path: Path) -> None:
    squad = Squad(squad_file(tmp_path, squad_entry()))
    assert len(squad.examples("all", 0, 1)) == 1
    with pytest.raises(DataError, match="expected 2 examples, got 1; ask for at most 1"):
        squad.examples("all", 0, 2)


def test_split_without_examples_raises_data_error() -> None:
    examples = numbered(1, 3)
    empty: Split = "train" if in_split("article 0", "heldout") else "heldout"
    with pytest.raises(
        DataError, match=rf"test \(split '{empty}'\): expected examples, got none of 3, in 1 groups; use"
    ):
        select(examples, empty, 0, None, "test")
    assert len(select(examples, "all", 0, None, "test")) == 3


def test_file_without_examples_raises_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected examples, got none of 0"):
        read("jsonl", jsonl_file(tmp_path))


# SQuAD


def test_squad_keeps_answers_in_order_without_repetition(tmp_path: Path) -> None:
    (example,) = read("squad", squad_file(tmp_path, squad_entry()))
    assert example == Example("q1", CONTEXT, "When did it open?", ("1987", "in 1987"), "Cafés")


def test_squad_folder_is_all_its_json_files(tmp_path: Path) -> None:
    squad_file(tmp_path, squad_entry(identity="b"), name="b.json")
    squad_file(tmp_path, squad_entry(identity="a"), name="a.json")
    (tmp_path / "README.md").write_text("not data")
    assert {example.id for example in read("squad", tmp_path)} == {"a", "b"}


@pytest.mark.parametrize(("text", "start", "found"), [("1987", 18, " 198"), ("2003", -5, ""), ("1987", 10_000, "")])
def test_answer_that_is_not_at_its_place_raises_data_error(text: str, start: int, found: str, tmp_path: Path) -> None:
    file = squad_file(tmp_path, squad_entry(answers=[{"text": text, "answer_start": start}]))
    message = f"{file}, question 'q1': expected '{text}' in the context, got '{found}' at answer_start {start}; correct"
    with pytest.raises(DataError, match=re.escape(message)):
        read("squad", file)


def test_line_breaks_and_long_texts_leave_the_error_one_short_line(tmp_path: Path) -> None:
    answers = [{"text": "long\n" * 999, "answer_start": 3}]
    file = squad_file(tmp_path, squad_entry(identity="q\n1", context="one\ntwo\n" * 999, answers=answers))
    with pytest.raises(DataError, match=r"question 'q\\n1': expected 'long\\n.*…' in the context") as caught:
        read("squad", file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(file)) + 400


@pytest.mark.parametrize("changes", [{"answers": []}, {"is_impossible": True}])
def test_impossible_squad2_question_raises_data_error(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="question 'q1': expected answers, got a question with no answers"):
        read("squad", squad_file(tmp_path, squad_entry(**changes)))


def test_article_without_title_raises_data_error(tmp_path: Path) -> None:
    article = squad_entry()
    del article["title"]
    with pytest.raises(DataError, match="article 1: expected 'title' to be text, got nothing"):
        read("squad", squad_file(tmp_path, article))


def test_split_never_cuts_an_article(tmp_path: Path) -> None:
    articles = [squad_entry(f"Article {number}", f"q{number}") for number in range(40)]
    more = [squad_entry(f"Article {number}", f"r{number}") for number in range(40)]
    squad = Squad(squad_file(tmp_path, *articles, *more))
    train, heldout = ({e.group for e in squad.examples(split, 0, None)} for split in ("train", "heldout"))
    assert train
    assert heldout
    assert not train & heldout
    assert len(train | heldout) == 40
    assert len(squad.examples("heldout", 0, None)) == 2 * len(heldout)


# HotpotQA


def test_hotpotqa_context_has_one_titled_line_per_paragraph(tmp_path: Path) -> None:
    (example,) = read("hotpotqa", hotpot_file(tmp_path, hotpot_entry()))
    assert example.context == "Cafés: It opened in 1987. It closed in 2003.\nTea: Tea is a drink."
    assert (example.id, example.group, example.answers) == ("h1", "h1", ("1987",))


def test_both_forms_of_hotpotqa_give_the_same_example(tmp_path: Path) -> None:
    published = read("hotpotqa", hotpot_file(tmp_path, hotpot_entry()))
    titles, sentences = zip(*hotpot_entry()["context"], strict=True)
    entry = hotpot_entry(context={"title": titles, "sentences": sentences})
    entry["id"] = entry.pop("_id")
    assert read("hotpotqa", hotpot_file(tmp_path, entry)) == published


def test_hotpotqa_entry_without_id_is_named_by_its_content(tmp_path: Path) -> None:
    entries = [hotpot_entry(), hotpot_entry(question="When did it close?", answer="2003")]
    for entry in entries:
        del entry["_id"]
    forward = {example.id for example in read("hotpotqa", hotpot_file(tmp_path, *entries))}
    backward = {example.id for example in read("hotpotqa", hotpot_file(tmp_path, *reversed(entries)))}
    assert len(forward) == 2
    assert forward == backward


@pytest.mark.parametrize(
    "context",
    [[["only a title"]], [["title", "no list"]], ["ab"], {"title": ["a", "b"], "sentences": [["one"]]}, [[1, ["one"]]]],
)
def test_malformed_hotpotqa_paragraphs_raise_data_error(context: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="entry 1: expected"):
        read("hotpotqa", hotpot_file(tmp_path, hotpot_entry(context=context)))


# JSON lines


def test_jsonl_reads_chosen_field_names(tmp_path: Path) -> None:
    entry = {"key": 7, "text": CONTEXT, "q": "When?", "a": "1987", "doc": "d"}
    jsonl = Jsonl(jsonl_file(tmp_path, entry), context="text", question="q", answers="a", id="key", group="doc")
    assert jsonl.examples("all", 0, None) == [Example("7", CONTEXT, "When?", ("1987",), "d")]


def test_jsonl_row_without_id_and_group_is_named_by_line_and_context(tmp_path: Path) -> None:
    entry = row()
    del entry["id"]
    file = tmp_path / "rows.jsonl"
    file.write_text(f"\n{json.dumps(entry)}\r\n\n{json.dumps(entry)}", encoding="utf-8")
    examples = read("jsonl", file)
    assert {example.id for example in examples} == {"rows.jsonl:2", "rows.jsonl:4"}
    assert {example.group for example in examples} == {context_hash(CONTEXT)}


@pytest.mark.parametrize("field", ["id", "group"])
def test_chosen_field_that_is_missing_raises_data_error(field: str, tmp_path: Path) -> None:
    file = jsonl_file(tmp_path, row())
    with pytest.raises(DataError, match=r"rows.jsonl:1: expected 'typo' to be text, got nothing"):
        Jsonl(file, **{field: "typo"}).examples("all", 0, None)


@pytest.mark.parametrize("answers", [None, 3, [3], {"text": None}, [["1987"]]])
def test_answers_that_are_no_text_raise_data_error(answers: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: expected .*'answers(\.text)?'"):
        read("jsonl", jsonl_file(tmp_path, row(answers=answers)))


def test_jsonl_without_answers_raises_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected at least one non-empty answer"):
        read("jsonl", jsonl_file(tmp_path, row(answers=[])))


def test_line_separator_inside_a_string_does_not_end_the_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row(context="one\u2028two"), ensure_ascii=False), encoding="utf-8")
    assert read("jsonl", file)[0].context == "one\u2028two"


def test_error_names_the_line(tmp_path: Path) -> None:
    file = jsonl_file(tmp_path, row(), row(id="r2", question=""))
    with pytest.raises(DataError, match=re.escape(f"{file}:2: expected a non-empty question")):
        read("jsonl", file)


# The hub


@pytest.mark.usefixtures("offline_hub")
@pytest.mark.parametrize("answers", ["1987", ["1987", "in 1987"], {"text": ["1987"], "answer_start": [19]}])
def test_hub_reads_a_folder_with_any_form_of_answers(answers: Any, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    jsonl_file(tmp_path / "set", row(answers=answers, title="Cafés"), name="train.jsonl")
    (example,) = Hub(str(tmp_path / "set"), group="title").examples("all", 0, None)
    assert example.answers[0] == "1987"
    assert (example.id, example.context, example.group) == ("r1", CONTEXT, "Cafés")


@pytest.mark.usefixtures("offline_hub")
def test_hub_reads_parquet_and_numbers_rows_without_id(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"passage": f"It is {n}.", "question": "What is it?", "answers": str(n)} for n in range(3)]
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "set" / "test.parquet"))
    examples = Hub(str(tmp_path / "set"), hub_split="test", context="passage").examples("all", 0, None)
    assert {(e.id, e.context) for e in examples} == {(f"{tmp_path}/set[test]:{n}", f"It is {n}.") for n in range(3)}
    assert {example.group for example in examples} == {context_hash(f"It is {n}.") for n in range(3)}


@pytest.mark.usefixtures("offline_hub")
def test_hub_split_that_is_not_there_raises_data_error(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    jsonl_file(tmp_path / "set", row(), name="train.jsonl")
    with pytest.raises(DataError, match=r"got 'ValueError: .*test.*; check id, subset, hub_split"):
        Hub(str(tmp_path / "set"), hub_split="test").examples("all", 0, None)


@pytest.mark.usefixtures("offline_hub")
def test_hub_file_that_is_no_json_raises_data_error(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"context": ')
    with pytest.raises(DataError, match="expected a hub data set or a folder of one"):
        Hub(str(tmp_path / "set")).examples("all", 0, None)


@pytest.mark.usefixtures("offline_hub")
def test_hub_file_in_another_encoding_raises_data_error(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(json.dumps(row(), ensure_ascii=False).encode("latin-1"))
    with pytest.raises(DataError, match=r"expected a hub data set or a folder of one, got 'Unicode"):
        Hub(str(tmp_path / "set")).examples("all", 0, None)


@pytest.mark.usefixtures("offline_hub")
@pytest.mark.parametrize("path", ["nobody/no-such-set", "/no/such/folder"])
def test_hub_id_that_cannot_be_loaded_raises_one_line(path: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"{path}: expected a hub data set or a folder of one")) as caught:
        Hub(path).examples("all", 0, None)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline_hub")
def test_hub_column_that_is_not_there_raises_data_error(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    jsonl_file(tmp_path / "set", row(), name="train.jsonl")
    with pytest.raises(DataError, match="row 0: expected 'passage' to be text, got nothing"):
        Hub(str(tmp_path / "set"), context="passage").examples("all", 0, None)


def test_hub_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"expected the `datasets` library.*pip install 'latentwire\[hub\]'"):
        Hub("rajpurkar/squad").examples("all", 0, None)


# What all data sets share


def test_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    examples = numbered(10, 3)
    first = select(examples, "all", 1, None, "test")
    assert first == select(list(reversed(examples)), "all", 1, None, "test")
    assert first != select(examples, "all", 2, None, "test")
    assert sorted(first, key=examples.index) == examples


def test_smaller_limit_is_the_beginning_of_a_larger_one() -> None:
    examples = numbered(10, 3)
    assert select(examples, "all", 1, 7, "test") == select(examples, "all", 1, 20, "test")[:7]


def test_every_group_lies_in_exactly_one_split_and_about_a_tenth_is_held_out() -> None:
    groups = [f"group {number}" for number in range(2000)]
    held_out = [group for group in groups if in_split(group, "heldout")]
    assert all(in_split(group, "train") != in_split(group, "heldout") for group in groups)
    assert 140 <= len(held_out) <= 260


def test_same_context_in_training_and_evaluation_raises_data_error() -> None:
    train, evaluation = numbered(3, 1), [Example("e", " context\n2 ", "another question?", ("no",), "other")]
    with pytest.raises(DataError, match="evaluation example 'e' has the same context as training example '2-0'"):
        refuse_overlap(train, evaluation)
    refuse_overlap(train[:2], evaluation)


@pytest.mark.parametrize(("typo", "meant"), [("sqaud", "squad"), ("fact", "facts"), ("hotpot_qa", "hotpotqa")])
def test_misspelt_dataset_is_answered_with_the_nearest_name(typo: str, meant: str) -> None:
    with pytest.raises(RegistryError, match=f"unknown dataset '{typo}': did you mean '{meant}'?"):
        DATASETS[typo]


def test_registry_holds_the_five_data_sets() -> None:
    assert {"facts", "hotpotqa", "hub", "jsonl", "squad"} <= set(DATASETS)
    assert DATASETS["hotpotqa"] is HotpotQA
