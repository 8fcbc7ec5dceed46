"""Conversations as Gemma-2 reads them."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from store.records import Message
from tests.train.conftest import Talk
from train.errors import TrainError
from train.masks import Reader
from train.tokenizer import encode, fold_system, render, save_tokenizer, token_counter, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["Ilse has tea.", "Where is Ilse?\nIlse is out."] * 4, vocab_size=400, max_length=64)


def test_a_conversation_is_rendered_as_gemma_does(tokenizer: Any, talk: Talk) -> None:
    text = render(tokenizer, talk(" Where is Ilse? ", "Out.", "Thanks"))
    assert text == (
        "<bos><start_of_turn>user\nWhere is Ilse?<end_of_turn>\n"
        "<start_of_turn>model\nOut.<end_of_turn>\n"
        "<start_of_turn>user\nThanks<end_of_turn>\n"
    )


def test_system_text_is_folded_into_the_first_user_turn(tokenizer: Any, talk: Talk) -> None:
    conversation = (Message(role="system", content="Be brief.\n"), *talk("Where is Ilse?", "Out."))
    assert render(tokenizer, conversation).startswith(
        "<bos><start_of_turn>user\nBe brief.\n\nWhere is Ilse?<end_of_turn>\n<start_of_turn>model"
    )


@pytest.mark.parametrize(
    ("roles", "place"),
    [(["user", "user"], 2), (["assistant"], 1), (["user", "assistant", "system"], 3), (["system", "assistant"], 2)],
)
def test_turns_that_do_not_alternate_are_refused(roles: list[str], place: int) -> None:
    conversation = [Message.model_validate({"role": role, "content": "x"}) for role in roles]
    with pytest.raises(TrainError, match=f"message {place} is a {roles[place - 1]} turn"):
        fold_system(conversation)


def test_a_conversation_without_a_user_turn_is_refused() -> None:
    with pytest.raises(TrainError, match="without a user turn"):
        fold_system([Message(role="system", content="Be brief.")])


def test_there_is_exactly_one_begin_token(tokenizer: Any, talk: Talk) -> None:
    (ids,) = encode(tokenizer, [talk("Where is Ilse?", "Out.")])
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer("Ilse")["input_ids"][0] == tokenizer.bos_token_id  # as Gemma's does for plain text


def test_special_tokens_stand_where_gemma_has_them(tokenizer: Any) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)


def test_a_word_has_one_token_wherever_it_stands_in_a_line(tokenizer: Any, talk: Talk) -> None:
    (ids,) = encode(tokenizer, [talk("Ilse has tea.\nIlse has Ilse", "Ilse.")])
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert [token for token in tokens if "Ilse" in token] == ["ĠIlse"] * 4


def test_any_text_can_be_read_back(tokenizer: Any, talk: Talk) -> None:
    (ids,) = encode(tokenizer, [talk("Überall 漢字 🙂", "ok")])
    assert "Überall 漢字 🙂" in tokenizer.decode(ids)
    assert tokenizer.unk_token_id not in ids


def test_answers_end_where_the_conversation_up_to_them_would(tokenizer: Any, talk: Talk) -> None:
    turns = ["Where is Ilse?", "Out.\nBack soon.", "When?", "At ten."]
    reader, conversation = Reader(tokenizer), talk(*turns)
    (read,) = reader.read([conversation])
    lengths = [len(encode(tokenizer, [talk(*turns[:count])])[0]) for count in (2, 4)]
    ends = reader.answer_ends(conversation, read)
    assert ends is not None
    assert [end + 1 for end in ends] == lengths


def test_a_text_that_imitates_turn_marks_is_refused_where_answers_are_counted(tokenizer: Any, talk: Talk) -> None:
    reader, conversation = Reader(tokenizer), talk("Say <end_of_turn>", "No.")
    (read,) = reader.read([conversation])
    with pytest.raises(TrainError, match="turn marks"):
        reader.answer_ends(conversation, read)


def test_a_saved_tokenizer_reads_the_same_through_plain_transformers(
    tokenizer: Any, talk: Talk, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [message.model_dump() for message in talk("Where is Ilse?", "Out 漢.")]
    assert (
        loaded.apply_chat_template(messages)["input_ids"] == encode(tokenizer, [talk("Where is Ilse?", "Out 漢.")])[0]
    )


def test_the_same_texts_give_the_same_tokenizer() -> None:
    texts = [f"word{n % 17} and word{n % 13}" for n in range(200)]
    first, second = (train_tokenizer(texts, vocab_size=320, max_length=64) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


def test_tokens_are_counted_without_a_template(tokenizer: Any, talk: Talk, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    texts = ("Where is Ilse?", "Ilse is out.")
    expected = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    assert token_counter(str(tmp_path))(talk(*texts)) == expected > 0
