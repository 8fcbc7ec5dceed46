"""QA Feedback and TL;DR: the turn a user would have written, the pairs that people made, and every broken row."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.settings import SeedSettings
from store.database import StoreError
from store.export import numbered_pairs, read_preference_file
from store.importing import whole_conversations
from store.records import Message, PreferencePair, Seed
from store.seeds import read_seeds

QA: dict[str, Any] = {
    "question": "Where does the film take place?",
    "passages": [
        ["The Film", "The Film\n\nThe Film is a film of 2009.", "It is set in Oslo. "],
        ["The Film", "It won a prize."],
        ["Oslo", "Oslo\n\nOslo is a city."],
    ],
    "gold": "In Oslo.",
    "prediction 1": "In Oslo, Norway.",
    "prediction 2": "In Rome.",
    "prediction 3": "In Paris.",
    "prediction 4": "In Oslo.",
    "feedback": {"errors": [], "missing-info": [], "corrected-prediction": "In Oslo."},
    "preference": [1, 1, 0, 0, 2, 2],
}
"""As in dev_feedback.json, shorter."""
QA_TURN = """\
Where does the film take place?

Passages:

[1] The Film
The Film is a film of 2009. It is set in Oslo.

[2] The Film
It won a prize.

[3] Oslo
Oslo is a city."""
QA_PLAIN: dict[str, Any] = {
    "text": "question: Where does the film take place? context: ...",
    "answer": ["In Oslo."],
    "question": "Where does the film take place?",
    "passages": [
        {"wikipage": "The Film", "content": "The Film\n\nThe Film is a film of 2009. It is set in Oslo."},
        {"wikipage": "The Film", "content": "It won a prize."},
        {"wikipage": "Oslo", "content": "Oslo\n\nOslo is a city."},
    ],
}
"""As in dev.json, which holds the same questions without feedback."""
TLDR: dict[str, Any] = {
    "info": {
        "id": "t3_1",
        "post": "My neighbour keeps a goat.\n\nIt sings. ",
        "title": "What to do about a goat?",
        "subreddit": "legaladvice",
    },
    "summaries": [
        {"text": " a goat sings.", "policy": "sup4_ppo_rm3_kl10", "note": "what goat?"},
        {"text": " my neighbour's goat sings; what can I do?", "policy": "ref", "note": None},
    ],
    "choice": 1,
    "worker": "w",
    "batch": "batch9",
    "split": "train",
    "extra": {"confidence": 8},
}
"""As a line of comparisons/batch9.json."""
TLDR_TURN = """\
Summarise this post from r/legaladvice in one or two sentences, as its TL;DR.

Title: What to do about a goat?

My neighbour keeps a goat.

It sings."""
ARTICLE: dict[str, Any] = TLDR | {
    "info": {"id": "167f", "site": "cnn", "title": "A goat", "article": "It sang.", "post": None, "subreddit": None},
    "batch": "cnndm0",
}
TRL_PROMPT = "SUBREDDIT: r/legaladvice\n\nTITLE: What to do about a goat?\n\nPOST: My neighbour keeps a goat.\n\nIt sings.\n\nTL;DR:"


def written(tmp_path: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def seeds(tmp_path: Path, *rows: Any, name: str = "rows.jsonl", **settings: Any) -> list[Seed]:
    return read_seeds(SeedSettings(path=str(written(tmp_path, *rows, name=name)), **settings)).seeds


def pairs(tmp_path: Path, *rows: Any, left_out: Counter[Any] | None = None) -> list[PreferencePair]:
    return read_preference_file(written(tmp_path, *rows), left_out=left_out)


def answer(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


def answers(pair: PreferencePair) -> tuple[str, str]:
    return pair.chosen[-1].content, pair.rejected[-1].content


@pytest.mark.parametrize("row", [QA, QA_PLAIN], ids=["feedback", "plain"])
def test_a_question_is_asked_with_its_passages_and_its_gold_answer_follows(row: dict[str, Any], tmp_path: Path) -> None:
    (seed,) = seeds(tmp_path, row)
    assert [(message.role, message.content) for message in seed.messages] == [("user", QA_TURN)]
    assert seed.metadata == {}
    (whole,) = seeds(tmp_path, row, cut="last_assistant", format="qa-feedback")
    assert whole.messages[1:] == answer("In Oslo.")


def test_a_question_without_passages_stands_alone(tmp_path: Path) -> None:
    (seed,) = seeds(tmp_path, QA | {"passages": []})
    assert seed.messages[0].content == "Where does the film take place?"


def test_a_post_is_to_be_summarised_and_keeps_its_ids(tmp_path: Path) -> None:
    (seed,) = seeds(tmp_path, TLDR)
    assert [(message.role, message.content) for message in seed.messages] == [("user", TLDR_TURN)]
    ids = {"id": "t3_1", "subreddit": "legaladvice", "worker": "w", "batch": "batch9", "split": "train", "choice": 1}
    assert seed.metadata == ids
    (whole,) = seeds(tmp_path, TLDR, cut="last_assistant", format="tldr")
    assert whole.messages[1:] == answer("my neighbour's goat sings; what can I do?")


def test_an_article_is_to_be_summarised_from_parquet_too(tmp_path: Path) -> None:
    post, article = seeds(tmp_path, TLDR, ARTICLE, name="rows.parquet")
    assert post.messages[0].content == TLDR_TURN
    asked = "Summarise this article in one or two sentences, as its TL;DR.\n\nTitle: A goat\n\nIt sang."
    assert article.messages[0].content == asked
    assert {key: article.metadata[key] for key in ("id", "site")} == {"id": "167f", "site": "cnn"}
    assert "subreddit" not in article.metadata


def test_a_rated_summary_gives_its_prompt_and_no_answer(tmp_path: Path) -> None:
    rated = {"info": TLDR["info"], "summary": {"text": "bad.", "axes": {"overall": 1}}, "split": "test"}
    (seed,) = seeds(tmp_path, rated, cut="last_user")
    assert seed.messages[0].content == TLDR_TURN
    ((_, _, _, messages),) = whole_conversations(str(written(tmp_path, rated)))
    assert len(messages) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": TRL_PROMPT, "completion": " My goat."},
        {"prompt": TRL_PROMPT, "chosen": " My goat.", "rejected": " No."},
        {**TLDR["info"], "summary": "My goat."},
    ],
    ids=["trl-lib/tldr", "trl-lib/tldr-preference", "tldr_3_filtered"],
)
def test_the_same_post_in_other_files_is_the_same_turn(row: dict[str, Any], tmp_path: Path) -> None:
    (seed,) = seeds(tmp_path, row, cut="last_assistant")
    assert seed.messages[0].content == TLDR_TURN
    assert seed.messages[1:] == answer("My goat.")
    assert seed.split == seeds(tmp_path, TLDR)[0].split


def test_an_article_of_trls_set_is_an_article(tmp_path: Path) -> None:
    row = {"prompt": "TITLE: A goat\n\nIt sang.\n\nTL;DR:", "chosen": " goat.", "rejected": " no."}
    assert seeds(tmp_path, row)[0].messages == seeds(tmp_path, ARTICLE)[0].messages


def test_people_prefer_one_of_two_summaries(tmp_path: Path) -> None:
    first, second = pairs(tmp_path, TLDR, TLDR | {"choice": 0})
    assert answers(first) == ("my neighbour's goat sings; what can I do?", "a goat sings.") == answers(second)[::-1]
    assert first.method == "tldr"
    assert [message.content for message in first.chosen[:-1]] == [TLDR_TURN]
    assert first.first_divergent_turn == 1
    assert first.pair_id != second.pair_id


def test_six_comparisons_of_four_predictions_make_a_pair_where_one_is_better(tmp_path: Path) -> None:
    left_out: Counter[str] = Counter()
    found = pairs(tmp_path, QA, left_out=left_out)
    assert [answers(pair) for pair in found] == [
        ("In Oslo, Norway.", "In Rome."),  # 1 and 2
        ("In Oslo, Norway.", "In Paris."),  # 1 and 3
        ("In Oslo.", "In Rome."),  # 2 and 4
        ("In Oslo.", "In Paris."),  # 3 and 4
    ]
    assert left_out == {"tie": 2}
    assert {pair.method for pair in found} == {"qa-feedback"}
    assert [place for place, _ in numbered_pairs(written(tmp_path, QA))] == ["1.1", "1.2", "1.5", "1.6"]


def test_all_comparisons_of_a_prompt_are_of_its_seeds_split(tmp_path: Path) -> None:
    rows = [
        TLDR | {"info": TLDR["info"] | {"post": f"Post {post}."}, "choice": choice}
        for post in range(40)
        for choice in (0, 1)
    ] + [QA | {"question": f"Question {number}?"} for number in range(40)]
    splits: dict[str, set[str]] = {}
    for pair in pairs(tmp_path, *rows):
        splits.setdefault(pair.chosen[0].content, set()).add(pair.split)
    assert len(splits) == 80
    assert {len(found) for found in splits.values()} == {1}
    assert set.union(*splits.values()) == {"train", "validation", "test"}
    for row in rows:
        (seed,) = seeds(tmp_path, row)
        assert splits[seed.messages[0].content] == {seed.split}


def test_what_nobody_can_learn_from_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        TLDR,
        TLDR | {"choice": None},
        TLDR | {"summaries": [{"text": " same"}, {"text": "same "}]},
        TLDR | {"summaries": [{"text": "same"}, {"text": " \n"}]},
        QA | {"preference": [0, 0, 0, 0, None, 0]},
    ]
    left_out: Counter[str] = Counter()
    assert len(pairs(tmp_path, *rows, left_out=left_out)) == 1
    assert left_out == {"undecided": 2, "identical": 1, "empty": 1, "tie": 5}
    with pytest.raises(StoreError, match="holds no pairs: all 6 comparisons in it are ties or empty"):
        pairs(tmp_path, rows[-1])


INFO = TLDR["info"]
BROKEN_PROMPTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no question": ({"question": " ", "passages": []}, "qa-feedback", "question is empty"),
    "question missing": ({"passages": []}, "qa-feedback", "the key 'question' is missing"),
    "no passages": (QA | {"passages": "x"}, "qa-feedback", "passages should be a list, not text"),
    "empty passage": (QA | {"passages": [[]]}, "qa-feedback", r"passages.0. is an empty list"),
    "no sentence": (QA | {"passages": [["T", 7]]}, "qa-feedback", r"passages.0..1. should be text, not a number"),
    "no content": (QA | {"passages": [{"wikipage": "T"}]}, "qa-feedback", r"passages.0. lacks the key 'content'"),
    "info": (TLDR | {"info": "x"}, "tldr", "info should be an object with a post or an article, not text"),
    "no post": (
        TLDR | {"info": {"id": "x", "post": None}},
        "tldr",
        "neither post nor article stands in the row .there are: id, post",
    ),
    "empty post": (TLDR | {"info": INFO | {"post": "\n"}}, "tldr", "post is empty"),
    "title": (TLDR | {"info": INFO | {"title": 7}}, "tldr", "title should be text, not a number"),
    "no tldr": ({"prompt": "hello"}, "tldr", "prompt is not .SUBREDDIT"),
}


@pytest.mark.parametrize("fault", list(BROKEN_PROMPTS))
def test_a_row_without_a_prompt_is_named_with_its_line(fault: str, tmp_path: Path) -> None:
    row, shape, what = BROKEN_PROMPTS[fault]
    with pytest.raises(StoreError, match=rf"rows\.jsonl:2: .*{what}.*--skip-bad") as caught:
        seeds(tmp_path, QA if shape == "qa-feedback" else TLDR, row, format=shape)
    assert "\n" not in str(caught.value)


BROKEN_PAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "choice": (TLDR | {"choice": 2}, "choice is 2: it should be 0 or 1"),
    "true": (TLDR | {"choice": True}, "choice is True"),
    "text choice": (TLDR | {"choice": "1"}, "choice is '1'"),
    "no choice": ({key: TLDR[key] for key in ("info", "summaries")}, "the key 'choice' is missing"),
    "three": (TLDR | {"summaries": TLDR["summaries"] + TLDR["summaries"][:1]}, "summaries should be two, not 3"),
    "no text": (TLDR | {"summaries": [{"text": "x"}, {"policy": "ref"}]}, r"summaries.1. lacks the key 'text'"),
    "no info": ({key: TLDR[key] for key in ("summaries", "choice")}, "neither post nor article"),
    "five verdicts": (QA | {"preference": [0] * 5}, "preference has 5 verdicts: 4 predictions make 6"),
    "verdict": (QA | {"preference": [1, 1, 1, 1, 1, 3]}, r"preference.5. is 3: it should be 1 or 2"),
    "false": (QA | {"preference": [1, 1, 1, 1, 1, False]}, r"preference.5. is False"),
    "null": (QA | {"prediction 2": None}, "prediction 2 should be text, not null"),
    "no passages": ({key: value for key, value in QA.items() if key != "passages"}, "the key 'passages' is missing"),
}


@pytest.mark.parametrize("fault", list(BROKEN_PAIRS))
def test_a_row_that_is_no_comparison_is_named_with_its_line(fault: str, tmp_path: Path) -> None:
    row, what = BROKEN_PAIRS[fault]
    with pytest.raises(StoreError, match=rf"rows\.jsonl:2: .*{what}.*; mend the row") as caught:
        pairs(tmp_path, TLDR, row)
    assert "\n" not in str(caught.value)


USER, GOOD, BAD = (
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Good."},
    {"role": "assistant", "content": "Bad."},
)
OTHERS: dict[str, dict[str, Any]] = {
    "ultrafeedback": {
        "prompt": "Who?",
        "prompt_id": "p",
        "chosen": [USER, GOOD],
        "rejected": [USER, BAD],
        "messages": [USER, GOOD],
        "score_chosen": 8.0,
        "score_rejected": 3.0,
    },
    "hh": {
        "chosen": "\n\nHuman: Who?\n\nAssistant: Good.",
        "rejected": "\n\nHuman: Who?\n\nAssistant: Bad.",
    },
    "ultrainteract": {"trajectory": [{"from": "user", "value": "Who?"}], "chosen": "Good.", "rejected": "Bad."},
    "trl, text": {"prompt": "Who?", "chosen": "Good.", "rejected": " Bad."},
    "trl, explicit": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "tldr of trl, with messages": {**TLDR, "prompt": "Who?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
}


@pytest.mark.parametrize("shape", list(OTHERS))
def test_pairs_of_every_other_format_are_read(shape: str, tmp_path: Path) -> None:
    (pair,) = pairs(tmp_path, OTHERS[shape])
    assert [message.content for message in pair.chosen] == ["Who?", "Good."]
    assert [message.content for message in pair.rejected] == ["Who?", "Bad."]
    assert pair.method == (shape if shape in ("hh", "ultrainteract") else "imported")


def test_hhs_pairs_without_a_difference_are_left_out(tmp_path: Path) -> None:
    row, none = OTHERS["hh"], "\n\nHuman: Who?\n\nAssistant:"
    left_out: Counter[str] = Counter()
    assert len(pairs(tmp_path, row, row | {"rejected": row["chosen"]}, row | {"chosen": none}, left_out=left_out)) == 1
    assert left_out == {"identical": 1, "empty": 1}
    with pytest.raises(StoreError, match="rejected ends on a user turn"):
        pairs(tmp_path, row | {"rejected": row["rejected"] + "\n\nHuman: Thanks."})
    with pytest.raises(StoreError, match="ends on an assistant turn"):
        pairs(
            tmp_path,
            OTHERS["ultrainteract"]
            | {"trajectory": [{"from": "user", "value": "Who?"}, {"from": "gpt", "value": "I."}]},
        )


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"messages": [USER], "question": "Who?", "info": {"post": "x"}, "summary": "y"}, "messages"),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD], **TLDR}, "skywork"),
        ({"conversations": [{"from": "human", "value": "Who?"}], "info": {"post": "x"}, "summary": "y"}, "sharegpt"),
        ({"turns": ["Who?"], "question": "Who?", "passages": []}, "mtbench"),
    ],
)
def test_keys_of_these_formats_beside_a_conversation_do_not_matter(
    row: dict[str, Any], shape: str, tmp_path: Path
) -> None:
    assert [seed.messages[0].content for seed in seeds(tmp_path, row)] == ["Who?"]
    assert seeds(tmp_path, row) == seeds(tmp_path, row, format=shape)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Who?", "answer": "I."},
        {"info": {"id": 1}, "summaries": []},
        {"prompt": "Who?", "completion": "I."},
        {"prompt": TRL_PROMPT, "chosen": [GOOD], "rejected": "x", "x": 1},
        {"title": "A", "post": "B"},
    ],
)
def test_rows_that_only_resemble_them_are_not_taken_for_them(row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"rows\.jsonl:1: "):
        seeds(tmp_path, row)
