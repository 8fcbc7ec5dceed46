"""Seed files: every format, every cut, and every way in which a row can be wrong."""

import gzip
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from configs.settings import SeedSettings
from store.database import StoreError
from store.export import read_preference_file
from store.records import Message
from store.seeds import SeedFile, read_seeds

U1, A1, U2 = (
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "one."},
    {"role": "user", "content": "two?"},
)
ROWS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [U1, A1, U2], "id": "m1"},
    "mtbench": {"question_id": 81, "category": "writing", "turns": ["one?", "two?"]},
    "mtbench101": {
        "task": "GR",
        "id": 1,
        "history": [{"user": "one?", "bot": "one."}, {"user": "two?", "bot": "two."}],
    },
    "skywork": {"chosen": [U1, A1, U2, A1], "rejected": [U1, A1], "source": "magpie"},
    "sharegpt": {"id": "x", "conversations": [{"from": "human", "value": "one?"}, {"from": "gpt", "value": "one."}]},
    "ultrachat": {"id": "0", "data": ["one?", "one.", "two?", "two."]},
    "ultrafeedback": {
        "prompt": "one?",
        "prompt_id": "p1",
        "chosen": [U1, A1],
        "rejected": [U1, {"role": "assistant", "content": "none."}],
        "messages": [U1, A1],
        "score_chosen": 8.5,
        "score_rejected": 3.0,
    },
    "hh": {
        "chosen": "\n\nHuman: one?\n\nAssistant: one.\n\nHuman: two?\n\nAssistant: two.",
        "rejected": "\n\nHuman: one?\n\nAssistant: none.",
    },
    "ultrainteract": {
        "task": "Math_CoT",
        "dataset": "gsm8k",
        "trajectory": [
            {"from": "user", "value": "one?"},
            {"from": "assistant", "value": "one."},
            {"from": "user", "value": "two?"},
        ],
        "chosen": "two.",
        "rejected": "none.",
        "id": "i",
        "parent_id": "0",
    },
    "qa-feedback": {
        "question": "one?",
        "passages": [],
        "gold": "one.",
        "prediction 1": "none.",
        "prediction 2": "one",
        "preference": [2],
    },
}
METADATA: dict[str, dict[str, Any]] = {
    "messages": {"id": "m1"},
    "mtbench": {"question_id": 81, "category": "writing", "turns": ["one?", "two?"]},
    "mtbench101": {"task": "GR", "id": 1},
    "skywork": {"source": "magpie"},
    "sharegpt": {"id": "x"},
    "ultrachat": {"id": "0"},
    "ultrafeedback": {"prompt_id": "p1", "score_chosen": 8.5, "score_rejected": 3.0},
    "hh": {},
    "ultrainteract": {"task": "Math_CoT", "dataset": "gsm8k", "id": "i", "parent_id": "0"},
    "qa-feedback": {},
}
CUTS = {
    "messages": ("one?", "one? one. two?", "one? one."),
    "mtbench": ("one?", "one?", None),
    "mtbench101": ("one?", "one? one. two?", "one? one. two? two."),
    "skywork": ("one?", "one? one. two?", "one? one. two? one."),
    "sharegpt": ("one?", "one?", "one? one."),
    "ultrachat": ("one?", "one? one. two?", "one? one. two? two."),
    "ultrafeedback": ("one?", "one?", "one? one."),
    "hh": ("one?", "one? one. two?", "one? one. two? two."),
    "ultrainteract": ("one?", "one? one. two?", "one? one."),
    "qa-feedback": ("one?", "one?", "one? one."),
}
"""What first_user, last_user and last_assistant keep; null where there is no such turn."""


def read(tmp_path: Path, *lines: Any, skip_bad: bool = False, **settings: Any) -> SeedFile:
    path = tmp_path / "seeds.jsonl"
    path.write_bytes(b"".join(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in lines))
    return read_seeds(SeedSettings(path=str(path), **settings), skip_bad=skip_bad)


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [message.content for message in messages]


@pytest.mark.parametrize("shape", list(ROWS))
def test_each_format_is_recognised_and_keeps_its_metadata(shape: str, tmp_path: Path) -> None:
    (seed,) = read(tmp_path, ROWS[shape]).seeds
    assert texts(seed.messages) == ["one?"]
    assert seed.metadata == METADATA[shape]
    assert seed.source == "seeds.jsonl"
    assert read(tmp_path, ROWS[shape], format=shape).seeds == [seed]


def test_ultrafeedback_without_ids_is_still_read_from_its_chosen_side(tmp_path: Path) -> None:
    row = {key: value for key, value in ROWS["ultrafeedback"].items() if key != "prompt_id"}
    (seed,) = read(tmp_path, row | {"messages": [U1]}, cut="last_assistant").seeds
    assert texts(seed.messages) == ["one?", "one."]


@pytest.mark.parametrize(
    ("cut", "kept"), [("first_user", 1), ("last_user", 3), ("last_assistant", 2)], ids=lambda value: str(value)
)
def test_a_cut_keeps_the_prefix_that_it_names(cut: str, kept: int, tmp_path: Path) -> None:
    (seed,) = read(tmp_path, {"messages": [U1, A1, U2]}, cut=cut).seeds
    assert len(seed.messages) == kept


@pytest.mark.parametrize("place", range(3), ids=["first_user", "last_user", "last_assistant"])
@pytest.mark.parametrize("shape", list(ROWS))
def test_every_format_can_be_cut_in_every_way(shape: str, place: int, tmp_path: Path) -> None:
    cut, kept = ("first_user", "last_user", "last_assistant")[place], CUTS[shape][place]
    if kept is None:
        with pytest.raises(StoreError, match="no assistant turn to cut at: use `cut: first_user`"):
            read(tmp_path, ROWS[shape], cut=cut)
    else:
        (seed,) = read(tmp_path, ROWS[shape], cut=cut).seeds
        assert " ".join(texts(seed.messages)) == kept


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
@pytest.mark.parametrize("shape", list(ROWS))
def test_parquet_and_gzipped_lines_give_the_same_seeds(shape: str, suffix: str, tmp_path: Path) -> None:
    rows = [ROWS[shape] | {"number": number} for number in (1, 2)]
    path = written(tmp_path / f"seeds{suffix}", rows)
    found = read_seeds(SeedSettings(path=str(path)))
    lines = read(tmp_path, *rows)
    assert [seed.seed_id for seed in found.seeds] == [seed.seed_id for seed in lines.seeds]
    assert found.seeds[1].metadata == METADATA[shape] | {"number": 2}
    assert {seed.source for seed in found.seeds} == {path.name}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(b"".join(orjson.dumps(row) + b"\n" for row in rows)))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_a_broken_row_of_any_file_is_named_or_skipped(suffix: str, tmp_path: Path) -> None:
    good, broken = ROWS["skywork"], ROWS["skywork"] | {"chosen": [U1, {"role": "assistant", "content": " "}]}
    path = written(tmp_path / f"seeds{suffix}", [good, broken, good])
    with pytest.raises(StoreError, match=rf"seeds\{suffix}:2: turn 2 .assistant. is empty; .*--skip-bad"):
        read_seeds(SeedSettings(path=str(path)))
    found = read_seeds(SeedSettings(path=str(path)), skip_bad=True)
    assert (len(found.seeds), len(found.skipped)) == (2, 1)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("seeds.parquet", b"{}", "cannot be read as Parquet"),
        ("seeds.jsonl.gz", b"{}", "cannot be unpacked .Not a gzipped file"),
        ("seeds.jsonl.gz", gzip.compress(b"{}\n" * 99, mtime=0)[:-9], "cannot be unpacked"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    name: str, content: bytes, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StoreError, match=expected) as caught:
        read_seeds(SeedSettings(path=str(tmp_path / name), format="messages"), skip_bad=True)
    assert "\n" not in str(caught.value)


HH_FAULTS = {
    "Hello there.": 'does not begin with "Human:" or "Assistant:" after a blank line',
    "Hello.\n\nHuman: one?": 'does not begin with "Human:"',
    "\n\nAssistant: one.": "turn 1 is an assistant turn with no user turn before it",
    "\n\nHuman: one?\n\nHuman: two?": "turns 1 and 2 are both user turns",
    "\n\nHuman: one?\n\nAssistant:": "turn 2 .assistant. is empty",
}


@pytest.mark.parametrize("text", list(HH_FAULTS))
def test_a_broken_transcript_of_hh_is_told_apart(text: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f":1: .*{HH_FAULTS[text]}"):
        read(tmp_path, {"chosen": text, "rejected": text}, format="hh")


def test_a_speakers_name_within_a_line_of_hh_is_text(tmp_path: Path) -> None:
    text = "\n\nHuman: Who is Human: A?\nAssistant: B?\n\nAssistant: Nobody.\n\nReally."
    (seed,) = read(tmp_path, {"chosen": text, "rejected": text}, cut="last_assistant").seeds
    assert texts(seed.messages) == ["Who is Human: A?\nAssistant: B?", "Nobody.\n\nReally."]


CARD = """\
---
configs:
- config_name: other
  data_files: other/*
- config_name: all
  default: true
  data_files:
  - {split: test, path: "*/test*"}
  - split: train
    path: ["helpful/train*", "harmless/train*"]
---
# A card
"""


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a dataset Owner/Name in the hub's cache, with a training and a test split in two folders."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "datasets--Owner--Name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    folder = repository / "snapshots" / "abc"
    for part in ("helpful", "harmless"):
        (folder / part).mkdir(parents=True)
        for split in ("train", "test"):
            row = ROWS["hh"] | {"part": f"{part}/{split}"}
            written(folder / part / f"{split}.jsonl.gz", [row])
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.mark.usefixtures("dataset")
@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("Owner/Name", ["harmless/train", "helpful/train"]),
        ("Owner/Name/helpful", ["helpful/test", "helpful/train"]),
        ("Owner/Name/helpful/test.jsonl.gz", ["helpful/test"]),
    ],
)
def test_a_dataset_gives_its_training_split_or_what_is_named_in_it(path: str, parts: list[str]) -> None:
    found = read_seeds(SeedSettings(path=path)).seeds
    assert [seed.metadata["part"] for seed in found] == parts
    assert {seed.source for seed in found} == {path}


@pytest.mark.parametrize(
    "card", [None, "no front matter", "---\n: [\n---\n", "---\nconfigs: [{config_name: default}]\n---\n"]
)
def test_a_dataset_whose_card_names_no_split_gives_all_its_files(card: str | None, dataset: Path) -> None:
    (dataset / "README.md").unlink() if card is None else (dataset / "README.md").write_text(card)
    assert len(read_seeds(SeedSettings(path="Owner/Name")).seeds) == 4


def test_a_limit_takes_from_all_files_of_a_dataset(dataset: Path) -> None:
    for part in ("helpful", "harmless"):
        written(dataset / part / "train.jsonl.gz", [ROWS["hh"] | {"part": f"{part} {row}"} for row in range(3)])
    written(dataset / "harmless" / "train-2.jsonl.gz", [ROWS["hh"] | {"part": "more 0"}])
    found = read_seeds(SeedSettings(path="Owner/Name", limit=6)).seeds
    parts = ["more 0", "harmless 0", "helpful 0", "harmless 1", "helpful 1", "harmless 2"]
    assert [seed.metadata["part"] for seed in found] == parts


def test_a_broken_row_of_a_dataset_is_named_by_its_file(dataset: Path) -> None:
    written(dataset / "helpful" / "train.jsonl.gz", [{"chosen": "x", "rejected": "y"}])
    with pytest.raises(StoreError, match=r"^Owner/Name/helpful/train\.jsonl\.gz:1: chosen does not begin"):
        read_seeds(SeedSettings(path="Owner/Name"))


def test_a_dataset_that_cannot_be_had_and_a_mistyped_path_are_told_apart(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        StoreError, match="'Owner/Absent' is no file, and not to be had as a Hugging Face dataset"
    ) as caught:
        read_seeds(SeedSettings(path="Owner/Absent"))
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="'Owner/Name' has neither Parquet nor JSONL files in 'absent'"):
        read_seeds(SeedSettings(path="Owner/Name/absent"))
    monkeypatch.chdir(dataset)
    for path in ("helpful/absent.jsonl", "absent/seeds.jsonl", "helpful/deep/absent", "./a/b"):
        with pytest.raises(StoreError, match=f"there is no file '{path.removeprefix('./')}'"):
            read_seeds(SeedSettings(path=path))


def test_a_dataset_without_huggingface_hub_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(StoreError, match=r"needs huggingface_hub: pip install 'descant\[train\]'"):
        read_seeds(SeedSettings(path="Owner/Name"))


def test_a_system_turn_stays_before_the_first_user_turn(tmp_path: Path) -> None:
    (seed,) = read(tmp_path, {"messages": [{"role": "system", "content": "Be brief."}, U1, A1]}).seeds
    assert texts(seed.messages) == ["Be brief.", "one?"]


def test_equal_texts_are_different_seeds_of_one_split(tmp_path: Path) -> None:
    first, second, other = read(tmp_path, {"messages": [U1]}, {"messages": [U1, A1]}, {"messages": [U2]}).seeds
    assert first.seed_id != second.seed_id
    assert first.split == second.split
    assert read(tmp_path, {"messages": [U2]}, {"messages": [U1]}).seeds[0].seed_id == other.seed_id


def test_distinct_leaves_out_what_came_before_and_the_limit_counts_what_stays(tmp_path: Path) -> None:
    rows = ({"messages": [U1]}, {"messages": [U1, A1]}, {"messages": [U2]}, {"messages": [U1]})
    assert [texts(seed.messages) for seed in read(tmp_path, *rows, distinct=True).seeds] == [["one?"], ["two?"]]
    assert [texts(seed.messages) for seed in read(tmp_path, *rows, distinct=True, limit=2).seeds] == [
        ["one?"],
        ["two?"],
    ]
    assert len(read(tmp_path, *rows, distinct=True, cut="last_assistant", skip_bad=True).seeds) == 1


def test_a_limit_takes_seeds_from_the_front_and_reads_no_further(tmp_path: Path) -> None:
    assert texts(read(tmp_path, ROWS["messages"], b"broken\n", limit=1).seeds[0].messages) == ["one?"]


def test_blank_lines_windows_ends_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    row = orjson.dumps(ROWS["messages"])
    lines = (b"\xef\xbb\xbf" + row + b"\r\n", b"\r\n", b"  \n", row)
    assert len(read(tmp_path, *lines).seeds) == 2


GOOD = {"messages": [U1]}
BROKEN: dict[str, tuple[Any, str]] = {
    "cut off": (b'{"messages": [{"role": "us\n', "not valid JSON"),
    "utf-8": (b'{"messages": [{"role": "user", "content": "caf\xe9"}]}\n', "not valid UTF-8 at byte 47"),
    "a list": ([], "a JSON object is expected, not a list"),
    "a number": (7, "not a number"),
    "no key": ({"turns": []}, "the key 'messages' is missing"),
    "not a list": ({"messages": "hello"}, "messages should be a list, not text"),
    "empty list": ({"messages": []}, "messages is an empty list"),
    "no object": ({"messages": ["hello"]}, "messages.0. should be an object"),
    "no content": ({"messages": [{"role": "user"}]}, "messages.0. lacks the key 'content'"),
    "null": ({"messages": [{"role": "user", "content": None}]}, "messages.0..content should be text, not null"),
    "empty turn": ({"messages": [{"role": "user", "content": "  \n"}]}, "turn 1 .user. is empty"),
    "two users": ({"messages": [U1, U2]}, "turns 1 and 2 are both user turns"),
    "assistant first": ({"messages": [A1]}, "turn 1 is an assistant turn with no user turn before it"),
    "late system": ({"messages": [U1, {"role": "system", "content": "x"}]}, "turn 2 is a system turn"),
    "no user": ({"messages": [{"role": "system", "content": "x"}]}, "there is no user turn"),
    "tool": ({"messages": [U1, {"role": "tool", "content": "x"}]}, "turn 2 has the role 'tool'"),
    "surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n', "not valid JSON"),
}


@pytest.mark.parametrize("fault", list(BROKEN))
def test_a_broken_line_is_named_with_what_is_wrong(fault: str, tmp_path: Path) -> None:
    line, what = BROKEN[fault]
    with pytest.raises(StoreError, match=rf"seeds\.jsonl:2: .*{what}.*--skip-bad") as caught:
        read(tmp_path, GOOD, line, GOOD)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", list(BROKEN))
def test_a_broken_line_is_skipped_and_counted_when_asked(fault: str, tmp_path: Path) -> None:
    line, _ = BROKEN[fault]
    found = read(tmp_path, GOOD, line, GOOD, skip_bad=True)
    assert len(found.seeds) == 2
    (skipped,) = found.skipped
    assert ":2: " in skipped


def test_a_cut_that_a_row_cannot_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no assistant turn to cut at"):
        read(tmp_path, ROWS["mtbench"], cut="last_assistant")


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"seeds\.jsonl:1: none of its keys \(instruction\).*mtbench101"):
        read(tmp_path, {"instruction": "x"})


def test_auto_looks_at_the_first_row_that_can_be_read(tmp_path: Path) -> None:
    found = read(tmp_path, b"broken\n", ROWS["sharegpt"], skip_bad=True)
    assert len(found.seeds) == len(found.skipped) == 1


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no seeds: it is empty"):
        read(tmp_path, content)


def test_a_file_of_broken_lines_only_is_refused_even_when_they_are_skipped(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none of its 2 rows could be read, the first because: .*:1: "):
        read(tmp_path, b"x\n", b"y\n", skip_bad=True)


def test_several_sources_are_read_in_turn_each_in_its_own_format(tmp_path: Path) -> None:
    for name, shape, count in (
        ("a.jsonl.gz", "sharegpt", 3),
        ("b.jsonl.gz", "messages", 1),
        ("c.jsonl.gz", "sharegpt", 2),
    ):
        written(tmp_path / name, [ROWS[shape] | {"part": f"{name[0]}{row}"} for row in range(count)])
    paths = [str(tmp_path / name) for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl.gz")]
    settings = SeedSettings.model_validate({"path": paths})
    found = read_seeds(settings).seeds
    assert [(seed.metadata["part"], seed.source) for seed in found] == [
        ("a0", "a.jsonl.gz"),
        ("b0", "b.jsonl.gz"),
        ("c0", "c.jsonl.gz"),
        ("a1", "a.jsonl.gz"),
        ("c1", "c.jsonl.gz"),
        ("a2", "a.jsonl.gz"),
    ]
    few = read_seeds(settings.model_copy(update={"limit": 2})).seeds
    assert [seed.metadata["part"] for seed in few] == ["a0", "b0"]
    written(tmp_path / "b.jsonl.gz", [])
    with pytest.raises(StoreError, match=r"b\.jsonl\.gz' holds no seeds: it is empty$"):
        read_seeds(settings)


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        SeedSettings.model_validate({"path": []})


def test_a_missing_file_a_folder_and_rehearsal_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no file"):
        read_seeds(SeedSettings(path=str(tmp_path / "none.jsonl")))
    with pytest.raises(StoreError, match="cannot be read"):
        read_seeds(SeedSettings(path=str(tmp_path)))
    with pytest.raises(StoreError, match="generated"):
        read_seeds(SeedSettings(format="rehearsal"))


@pytest.mark.parametrize("indent", [0, orjson.OPT_INDENT_2])
def test_a_json_list_is_read_whole_where_the_name_says_json(indent: int, tmp_path: Path) -> None:
    path = tmp_path / "seeds.json"
    path.write_bytes(b"\xef\xbb\xbf \n" + orjson.dumps([GOOD, 7, GOOD], option=indent))
    found = read_seeds(SeedSettings(path=str(path)), skip_bad=True)
    assert len(found.seeds) == 2
    assert found.skipped == [f"{path}:2: a JSON object is expected, not a number"]
    path.write_bytes(orjson.dumps(GOOD) + b"\n" + orjson.dumps(GOOD))  # as TL;DR's files: lines after all
    assert len(read_seeds(SeedSettings(path=str(path))).seeds) == 2
    path.write_bytes(orjson.dumps([GOOD], option=indent)[:-5])
    with pytest.raises(StoreError, match=r"begins as one JSON list and is not valid JSON .*: is it cut off") as caught:
        read_seeds(SeedSettings(path=str(path)), skip_bad=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("indent", [0, orjson.OPT_INDENT_2])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_one_big_json_list_is_refused_with_the_way_to_lines(indent: int, skip_bad: bool, tmp_path: Path) -> None:
    content = b"\n" + orjson.dumps([ROWS["sharegpt"], ROWS["sharegpt"]], option=indent)
    with pytest.raises(
        StoreError, match=r"is one JSON list: one JSON object a line.*`jq -c '\.\[\]' seeds\.jsonl`"
    ) as caught:
        read(tmp_path, content, skip_bad=skip_bad)
    assert "--skip-bad" not in str(caught.value)
    with pytest.raises(StoreError, match="is one JSON list"):
        read_preference_file(tmp_path / "seeds.jsonl")
