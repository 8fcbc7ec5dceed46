"""Whole conversations to learn from, out of files and corpora, and what of them carries loss."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from configs.language_settings import AskFitSettings, SessionSettings, SftFitSettings
from store.database import StoreError
from store.identity import split_of
from store.records import Message
from tests.train.conftest import MakePairs, Talk
from tests.train.test_train_commands import write_corpus
from train.errors import TrainError
from train.sessions import Session, encode_sessions, learned_part, limited_sessions, read_sessions
from train.tokenizer import train_tokenizer

TALK = ["Is it tea?", "It is.", "And now?"]
ROWS: dict[str, dict[str, object]] = {
    "sharegpt": {
        "conversations": [{"from": f, "value": t} for f, t in zip(("human", "gpt", "human"), TALK, strict=True)]
    },
    "ultrachat": {"id": "0", "data": TALK},
    "ultrachat 200k": {
        "prompt": TALK[0],
        "prompt_id": "x",
        "messages": [{"role": r, "content": t} for r, t in zip(("user", "assistant", "user"), TALK, strict=True)],
    },
    "messages": {
        "messages": [{"role": r, "content": t} for r, t in zip(("user", "assistant", "user"), TALK, strict=True)]
    },
}


def write(path: Path, *rows: object) -> SessionSettings:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return SessionSettings(path=str(path))


@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("name", ["sessions.jsonl", "sessions.jsonl.gz"])
def test_a_file_is_read_whole_whatever_its_shape(tmp_path: Path, talk: Talk, shape: str, name: str) -> None:
    (session,) = read_sessions(write(tmp_path / name, ROWS[shape])).sessions
    assert session.messages == talk(*TALK)
    assert session.split == split_of(session.messages)
    assert session.session_id.endswith(f"{name}:1")


def test_mtbench101_is_read_with_its_last_answer(tmp_path: Path, talk: Talk) -> None:
    row = {"task": "CM", "id": 1, "history": [{"user": "Is it tea?", "bot": "It is."}, {"user": "Now?", "bot": "Yes."}]}
    (session,) = read_sessions(write(tmp_path / "mtbench101.jsonl", row)).sessions
    assert session.messages == talk("Is it tea?", "It is.", "Now?", "Yes.")


def test_equal_conversations_are_read_once_and_bad_rows_are_refused_or_counted(tmp_path: Path) -> None:
    bad = {"conversations": [{"from": "gpt", "value": "Hello."}]}
    settings = write(tmp_path / "s.jsonl", ROWS["sharegpt"], bad, ROWS["sharegpt"])
    with pytest.raises(StoreError, match=r"s\.jsonl:2: turn 1 is an assistant turn with no user turn before it"):
        read_sessions(settings)
    found = read_sessions(settings.model_copy(update={"skip_bad": True}))
    assert (len(found.sessions), len(found.skipped), found.repeated) == (1, 1, 1)
    both = read_sessions(settings.model_copy(update={"skip_bad": True, "distinct": False}))
    assert (len(both.sessions), both.repeated) == (2, 0)


def test_a_corpus_gives_the_dialogues_of_the_branches_that_are_asked_for(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(20, turns=2)
    write_corpus(tmp_path / "corpus.duckdb", pairs)
    whole = SessionSettings(path=str(tmp_path / "corpus.duckdb"), distinct=False)
    found = read_sessions(whole).sessions
    assert Counter(session.messages for session in found) == Counter(pair.chosen for pair in pairs)
    assert {session.split for session in found} == {"train", "validation", "test"}
    rejected = read_sessions(whole.model_copy(update={"branches": ("rejected",)})).sessions
    assert Counter(session.messages for session in rejected) == Counter(pair.rejected for pair in pairs)
    assert len(read_sessions(whole.model_copy(update={"method": "music", "campaign": "toy"})).sessions) == 20
    with pytest.raises(TrainError, match=r"no conversations in .* of campaign 'other' and branches"):
        read_sessions(whole.model_copy(update={"campaign": "other"}))


def test_a_source_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no file"):
        read_sessions(SessionSettings(path=str(tmp_path / "absent.jsonl")))
    with pytest.raises(TrainError, match="no data is named"):
        read_sessions(SessionSettings())


def test_a_limit_takes_the_same_training_conversations_and_leaves_the_other_splits_whole(talk: Talk) -> None:
    sessions = [Session(str(n), talk(f"{n}?"), ("train", "train", "test")[n % 3]) for n in range(30)]
    few, more = (limited_sessions(sessions, limit, random_seed=0) for limit in (4, 9))
    assert [sum(s.split == "train" for s in found) for found in (few, more)] == [4, 9]
    assert {s.session_id for s in few} <= {s.session_id for s in more}
    assert sum(s.split == "test" for s in few) == 10


def test_what_is_learned_of_a_conversation(talk: Talk) -> None:
    said = (Message(role="system", content="Brief."), *talk("A?", "a.", "B?", "b.", "C?"))
    ask, later = AskFitSettings(), AskFitSettings(first_query=False)
    assert learned_part(ask, said) == (said, [0, 1, 2])
    assert learned_part(ask, said[:5]) == (said[:4], [0, 1])  # nothing behind the last user turn could change the loss
    assert learned_part(later, said) == (said, [1, 2])
    assert learned_part(later, said[:3]) == ((), [])
    assert learned_part(SftFitSettings(), said) == (said[:5], [0, 1])
    assert learned_part(SftFitSettings(turns=1), said) == (said[:3], [0])
    assert learned_part(SftFitSettings(), said[:2]) == ((), [])


def test_what_does_not_fit_is_dropped_and_counted_never_cut(talk: Talk) -> None:
    tokenizer = train_tokenizer(["Is it tea?", "It is."], vocab_size=400, max_length=64)
    sessions = [
        Session("long", talk("tea " * 80, "It is."), "train"),
        Session("mark", talk("Is it <end_of_turn>?", "It is."), "train"),
        Session("mute", talk("Is it tea?"), "train"),
        Session("good", talk("Is it tea?", "It is.", "And " * 80), "train"),
    ]
    encoded = encode_sessions(SftFitSettings(max_length=32), sessions, tokenizer)
    assert [session.session_id for session in encoded.sessions] == ["good"]  # its long last turn has no answer to learn
    assert {name: encoded.counts[name] for name in ("kept", "dropped", "too_long", "imitates_marks", "nothing_to_learn")} == {
        "kept": 1, "dropped": 3, "too_long": 1, "imitates_marks": 1, "nothing_to_learn": 1,
    }  # fmt: skip
    assert encoded.counts["targets"] == encoded.sessions[0].n_targets
