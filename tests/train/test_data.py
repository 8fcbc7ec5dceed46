"""Pairs as token ids, and the batches they come in."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from configs.fit_settings import PairSettings
from store.database import StoreError
from store.human_feedback import LeftOut
from store.records import PreferencePair
from tests.train.conftest import MakePairs, Talk
from train.batches import plan_batches
from train.data import EncodedPair, data_card, encode_pairs, pairs_of, read_conversations, read_pairs
from train.errors import TrainError
from train.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["Please speak of tea now. It is rye."] * 4, vocab_size=400, max_length=64)


def encoded(lengths: list[int], turns: list[int] | None = None) -> list[EncodedPair]:
    return [
        EncodedPair(str(n), [5] * length, [5] * length, [(length - 1, length - 1)], turn, 0.0)
        for n, (length, turn) in enumerate(zip(lengths, turns or [1] * len(lengths), strict=True))
    ]


def test_a_pair_with_a_side_that_is_too_long_is_dropped_and_counted_never_truncated(tokenizer: Any, talk: Talk) -> None:
    short, long = talk("Hi.", "It is tea."), talk("Hi.", "It is tea. " * 30)
    pairs = [
        PreferencePair("a", short, short[:1] + talk("", "It is rye.")[1:], "train", "toy", 1, 1),
        PreferencePair("b", long, short, "train", "toy", 1, 1),
        PreferencePair("c", short, long, "train", "toy", 1, 1),
        PreferencePair("d", long, long, "train", "toy", 1, 1),
    ]
    result = encode_pairs(pairs, tokenizer, max_length=40)
    assert [pair.pair_id for pair in result.pairs] == ["a"]
    assert {key: result.counts[key] for key in ("pairs", "kept", "dropped", "chosen_too_long", "rejected_too_long")} == {
        "pairs": 4, "kept": 1, "dropped": 3, "chosen_too_long": 2, "rejected_too_long": 2,
    }  # fmt: skip


def test_a_pair_of_exactly_the_limit_is_kept(tokenizer: Any, make_pairs: MakePairs) -> None:
    pair = make_pairs(1)[0]
    longest = encode_pairs([pair], tokenizer, max_length=99).pairs[0].tokens
    assert encode_pairs([pair], tokenizer, max_length=longest).counts["kept"] == 1
    assert encode_pairs([pair], tokenizer, max_length=longest - 1).counts["dropped"] == 1


def test_equal_sides_are_kept_and_reported(tokenizer: Any, talk: Talk) -> None:
    same = talk("Hi.", "It is tea.")
    result = encode_pairs([PreferencePair("a", same, same, "train", "toy", 1, 1)], tokenizer, max_length=64)
    assert (result.counts["kept"], result.counts["equal"]) == (1, 1)


def test_a_pair_that_the_template_refuses_is_named(tokenizer: Any, talk: Talk) -> None:
    bad = PreferencePair("pair_x", talk("Hi.", "Yes."), talk("", "Hi.")[1:], "train", "toy", 1, 1)
    with pytest.raises(TrainError, match="pair pair_x: message 1 is a assistant turn"):
        encode_pairs([bad], tokenizer, max_length=64)


def test_every_answer_is_compared_from_the_first_that_differs(tokenizer: Any, talk: Talk) -> None:
    chosen = talk("Hi.", "Yes.", "And?", "It is tea.", "So?", "Fine.")
    rejected = talk("Hi.", "Yes.", "And?", "It is rye.", "Oh?", "Fine then.")
    pair = PreferencePair("a", chosen, rejected, "train", "toy", 3, 2)
    (found,) = encode_pairs([pair], tokenizer, max_length=99, every_answer=True).pairs
    assert len(found.ends) == 2
    assert found.ends[-1] == (len(found.chosen) - 1, len(found.rejected) - 1)
    (at_end,) = encode_pairs([pair], tokenizer, max_length=99).pairs
    assert at_end.ends == [found.ends[-1]]


def test_a_pass_takes_every_pair_once_in_batches_of_like_length() -> None:
    pairs = encoded([10 + (n * 37) % 90 for n in range(256)])
    plan = plan_batches(pairs, batch_size=8, steps=32, random_seed=0)
    assert sorted(place for batch in plan for place in batch) == list(range(256))
    padded = sum(max(pairs[place].tokens for place in batch) * len(batch) for batch in plan)
    assert padded / sum(pair.tokens for pair in pairs) < 1.05
    first_lengths = [pairs[batch[0]].tokens for batch in plan]
    assert first_lengths != sorted(first_lengths)


def test_the_plan_depends_on_the_seed_and_nothing_else() -> None:
    pairs = encoded([10, 20, 30, 40, 50] * 10)
    plans = [plan_batches(pairs, batch_size=4, steps=40, random_seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert [len(plan) for plan in plans] == [40] * 3


def test_a_longer_run_begins_with_the_batches_of_a_shorter_one() -> None:
    pairs = encoded([10, 20, 30, 40, 50] * 10)
    assert plan_batches(pairs, batch_size=4, steps=90, random_seed=0)[:30] == plan_batches(
        pairs, batch_size=4, steps=30, random_seed=0
    )


def test_short_first_begins_with_few_turns_and_ends_with_all() -> None:
    pairs = encoded([20] * 90, turns=[1, 3, 5] * 30)
    plan = plan_batches(pairs, batch_size=10, steps=40, random_seed=0, short_first_share=0.5)
    most = [max(pairs[place].n_turns for place in batch) for batch in plan]
    assert set(most[: math.ceil(20 / 3)]) == {1}
    assert 5 not in most[:13]
    assert sum(value == 5 for value in most[20:]) > 15
    assert len(plan) == 40


def test_the_data_card_counts_each_split_and_hashes_it(tokenizer: Any, make_pairs: MakePairs) -> None:
    pairs = make_pairs(10)
    parts = {"train": encode_pairs([p for p in pairs if p.split == "train"], tokenizer, max_length=64)}
    card = data_card("given", pairs, parts, max_length=64)
    assert card["splits"]["train"]["kept"] == 6
    assert card["splits"]["test"] == {"pairs": 2}
    assert len(card["splits"]["train"]["hash"]) == 20
    assert card["methods"] == {"toy": 10}


def test_missing_data_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="no data is named"):
        pairs_of(PairSettings())
    with pytest.raises(TrainError, match=r"no file '.*absent.jsonl'"):
        read_pairs(str(tmp_path / "absent.jsonl"))
    with pytest.raises(TrainError, match="no file"):
        read_conversations(str(tmp_path / "absent.jsonl"))


def test_people_who_prefer_neither_make_no_pair_and_are_counted(tmp_path: Path) -> None:
    row = {"question": "Who?", "passages": [], "preference": [1, 0, 2]} | {
        f"prediction {n}": f"answer {n}" for n in (1, 2, 3)
    }
    (tmp_path / "feedback.json").write_text(json.dumps([row, row | {"question": "Where?"}]))
    left_out: Counter[LeftOut] = Counter()
    pairs = pairs_of(PairSettings(path=str(tmp_path / "feedback.json")), left_out=left_out)
    assert {(pair.chosen[-1].content, pair.rejected[-1].content) for pair in pairs} == {
        ("answer 1", "answer 2"),
        ("answer 3", "answer 2"),
    }
    assert (len(pairs), left_out) == (4, {"tie": 2})
    names = [name for name, _ in read_conversations(str(tmp_path / "feedback.json"))]
    assert names[:4] == ["1.1/chosen", "1.1/rejected", "1.3/chosen", "1.3/rejected"]
    assert len(names) == len(set(names)) == 8


def test_conversations_are_read_from_jsonl_and_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    line = '{"id": "a", "messages": [{"role": "user", "content": "Hi."}]}\n'
    path.write_text(line, encoding="utf-8")
    ((key, messages),) = read_conversations(str(path))
    assert (key, messages[0].content) == ("a", "Hi.")
    path.write_text(line + '{"messages": "no"}\n', encoding="utf-8")
    with pytest.raises(TrainError, match=r"talks.jsonl:2: messages should be a list"):
        read_conversations(str(path))


USER, ANSWER = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes."}


def test_both_sides_of_a_preference_file_have_its_order_and_the_numbers_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"chosen": [USER, ANSWER | {"content": text}], "rejected": [USER, ANSWER | {"content": f"Not {text}"}]}
        for text in ("zebra", "mule", "ass")
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = read_conversations(str(path))
    assert [key for key, _ in found] == [f"{n}/{side}" for n in (1, 3, 5) for side in ("chosen", "rejected")]
    assert [messages[-1].content for _, messages in found][::2] == ["zebra", "mule", "ass"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    assert [key for key, _ in read_conversations(str(tmp_path / "pairs.parquet"))][::2] == [
        "1/chosen",
        "2/chosen",
        "3/chosen",
    ]


def test_a_conversation_has_its_own_id_or_its_line_number_and_no_two_share_one(tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"

    def write(*ids: object) -> str:
        rows = [{"messages": [USER]} | ({} if key is None else {"id": key}) for key in ids]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    assert [key for key, _ in read_conversations(write("x", None, 7))] == ["x", "2", "7"]
    with pytest.raises(TrainError, match=r"talks.jsonl:3: an earlier row has the id 'x' too"):
        read_conversations(write("x", "y", "x"))
    with pytest.raises(TrainError, match=r"talks.jsonl:2: an earlier row has the id '2' too"):
        read_conversations(write(2, None))


def test_a_file_of_another_shape_is_told_which_shapes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mtbench.jsonl"
    path.write_text('{"question_id": 81, "turns": ["One?"]}\n', encoding="utf-8")
    with pytest.raises(TrainError, match=r"`messages`.*`chosen` and `rejected`; its first has question_id, turns"):
        read_conversations(str(path))


def test_a_hugging_face_dataset_is_read_from_its_cache_without_a_network(
    make_pairs: MakePairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StoreError, match="not to be had as a Hugging Face dataset"):
        read_pairs("Skywork/Absent-80K-v0.2")
    repository = tmp_path / "datasets--Skywork--Toy-80K-v0.2"
    folder = repository / "snapshots" / "abc" / "data"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    pair = make_pairs(1)[0]
    sides = {"chosen": [m.model_dump() for m in pair.chosen], "rejected": [m.model_dump() for m in pair.rejected]}
    (folder / "train.jsonl").write_text(json.dumps(sides | {"source": "toy"}) + "\n", encoding="utf-8")
    (found,) = read_pairs("Skywork/Toy-80K-v0.2")
    assert (found.chosen, found.method) == (pair.chosen, "toy")
