"""Which tokens carry loss, token by token, on examples worked out by hand."""

from pathlib import Path
from typing import Any

import pytest

from store.records import Message
from tests.train.conftest import Talk
from train.errors import TrainError
from train.families import CHATML
from train.masks import IGNORED, Read, Reader
from train.templates import PLAIN, asking_template, end_mark, give_template, is_asking
from train.tokenizer import train_tokenizer

LLAMA_3 = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

THREE_TURNS = (
    Message(role="system", content=" Be brief. "),
    Message(role="user", content="Is the user Ilse? "),
    Message(role="assistant", content="Yes."),
    Message(role="user", content="user"),
)
"""The user's words stand in the headers too, and once beside a blank that the template takes away."""


def tokenizer_with(template: str | None, *marks: str) -> Any:
    texts = ["Is the user Ilse?", "Yes.", "Be brief.", "user", "assistant"]
    tokenizer = train_tokenizer(texts * 4, vocab_size=330, max_length=128)
    if template is not None:
        tokenizer.chat_template = template
    if marks:
        tokenizer.add_special_tokens({"extra_special_tokens": list(marks)}, replace_extra_special_tokens=False)
    return tokenizer


def read(tokenizer: Any, conversation: tuple[Message, ...] = THREE_TURNS) -> Read:
    (found,) = Reader(tokenizer).read([conversation])
    return found


def shown(tokenizer: Any, found: Read, role: Any) -> str:
    """All tokens in their order, those that carry loss in brackets."""
    pieces = [token.replace("ĠĊ", "\\n").replace("Ġ", "_") for token in tokenizer.convert_ids_to_tokens(found.ids)]
    targets = found.targets(role)
    assert all(target in (IGNORED, token) for target, token in zip(targets, found.ids, strict=True))
    return " ".join(f"[{piece}]" if target != IGNORED else piece for piece, target in zip(pieces, targets, strict=True))


def test_gemmas_template_with_system_text_token_by_token() -> None:
    tokenizer = tokenizer_with(None)
    found = read(tokenizer)
    assert shown(tokenizer, found, "user") == (
        "<bos> <start_of_turn> _user \\n _Be _brief . \\n \\n [_Is] [_the] [_user] [_Ilse] [?] [<end_of_turn>] \\n "
        "<start_of_turn> _model \\n _Yes . <end_of_turn> \\n "
        "<start_of_turn> _user \\n [_user] [<end_of_turn>] \\n"
    )
    assert shown(tokenizer, found, "assistant") == (
        "<bos> <start_of_turn> _user \\n _Be _brief . \\n \\n _Is _the _user _Ilse ? <end_of_turn> \\n "
        "<start_of_turn> _model \\n [_Yes] [.] [<end_of_turn>] \\n "
        "<start_of_turn> _user \\n _user <end_of_turn> \\n"
    )


def test_a_template_like_chatml_token_by_token() -> None:
    tokenizer = tokenizer_with(CHATML, "<|im_start|>", "<|im_end|>")
    found = read(tokenizer)
    assert shown(tokenizer, found, "user") == (
        "<|im_start|> _user \\n _Be _brief . \\n \\n [_Is] [_the] [_user] [_Ilse] [?] [<|im_end|>] \\n "
        "<|im_start|> _assistant \\n _Yes . <|im_end|> \\n "
        "<|im_start|> _user \\n [_user] [<|im_end|>] \\n"
    )
    assert "[_Yes] [.] [<|im_end|>] \\n" in shown(tokenizer, found, "assistant")


def test_a_template_like_llama_3s_token_by_token() -> None:
    tokenizer = tokenizer_with(LLAMA_3, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    found = read(tokenizer)
    assert shown(tokenizer, found, "user") == (
        "<bos> <|start_header_id|> _user <|end_header_id|> \\n \\n _Be _brief . \\n \\n "
        "[_Is] [_the] [_user] [_Ilse] [?] [<|eot_id|>] "
        "<|start_header_id|> _assistant <|end_header_id|> \\n \\n _Yes . <|eot_id|> "
        "<|start_header_id|> _user <|end_header_id|> \\n \\n [_user] [<|eot_id|>]"
    )
    assert shown(tokenizer, found, "assistant").count("[") == 3


def test_a_template_without_tokens_of_its_own_ends_each_turn_with_the_end_of_text() -> None:
    tokenizer = tokenizer_with(PLAIN)
    found = read(tokenizer)
    answers = shown(tokenizer, found, "assistant")
    assert answers.count("[") == 3
    assert "[_Yes] [.] [<eos>]" in answers
    assert end_mark(tokenizer, "user") == "<eos>"


def test_only_the_turns_that_are_asked_for_carry_loss(talk: Talk) -> None:
    tokenizer = tokenizer_with(None)
    found = read(tokenizer, talk("Is", "Yes.", "the", "brief", "user", "Yes."))
    chosen = found.targets("assistant", [1])
    assert tokenizer.decode([token for token in chosen if token != IGNORED]).split() == ["brief<end_of_turn>"]
    assert found.targets("user", []) == [IGNORED] * len(found.ids)


def test_letters_of_several_bytes_belong_to_their_turn_with_all_their_tokens(talk: Talk) -> None:
    tokenizer = tokenizer_with(None)
    found = read(tokenizer, talk("漢字 🙂", "Yes."))
    wanted = [token for token in found.targets("user") if token != IGNORED]
    assert tokenizer.decode(wanted).strip() == "漢字 🙂<end_of_turn>"


def test_ids_are_those_that_a_plain_chat_template_gives(talk: Talk) -> None:
    tokenizer = tokenizer_with(None)
    conversation = talk(" Is the user \nIlse?", "Yes.\n\nBe brief. ")
    plain = tokenizer.apply_chat_template([message.model_dump() for message in conversation])
    assert read(tokenizer, conversation).ids == plain["input_ids"]


def test_templates_that_cannot_be_read_are_refused(talk: Talk) -> None:
    changing = tokenizer_with("{% for m in messages %}{{ m['content'] | upper + eos_token }}{% endfor %}")
    with pytest.raises(TrainError, match="changes the texts of turns"):
        read(changing, talk("Is", "Yes."))
    dropping = tokenizer_with("{{ messages[-1]['content'] + eos_token }}")
    with pytest.raises(TrainError, match="leaves out or reorders turns"):
        read(dropping, talk("Is", "Yes."))
    unmarked = tokenizer_with("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}")
    with pytest.raises(TrainError, match="ends user turns without a mark"):
        end_mark(unmarked, "user")


def test_a_template_is_given_by_name_or_by_file(tmp_path: Any) -> None:
    tokenizer = tokenizer_with(None)
    assert give_template(tokenizer, "plain") == 0
    assert give_template(tokenizer, "chatml") == 2  # its marks are new tokens
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == len(tokenizer) - 1
    (tmp_path / "own.jinja").write_text("{{ 'own' }}")
    give_template(tokenizer, str(tmp_path / "own.jinja"))
    assert tokenizer.chat_template == "{{ 'own' }}"
    with pytest.raises(TrainError, match="neither one of gemma, chatml, plain nor a file"):
        give_template(tokenizer, "vicuna")


@pytest.mark.parametrize("name", ["gemma", "chatml", "plain", LLAMA_3])
def test_an_asking_template_opens_the_users_turn_where_training_put_it(name: str, talk: Talk, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(None)
    (tmp_path / "own.jinja").write_text(name)
    give_template(tokenizer, name if len(name) < 10 else str(tmp_path / "own.jinja"))
    if name == LLAMA_3:
        tokenizer.add_special_tokens({"extra_special_tokens": ["<|eot_id|>"]}, replace_extra_special_tokens=False)
    conversation = talk("Is it Ilse?", "Yes.", "Be brief.")
    (found,) = Reader(tokenizer).read([conversation])
    asked = next(place for place, target in enumerate(found.targets("user", [1])) if target != IGNORED)
    first = next(place for place, target in enumerate(found.targets("user", [0])) if target != IGNORED)
    plain = [message.model_dump() for message in conversation]
    trained = tokenizer.apply_chat_template(plain, tokenize=False)

    tokenizer.chat_template = asking_template(tokenizer)
    assert is_asking(tokenizer.chat_template)
    assert asking_template(tokenizer) == tokenizer.chat_template  # of an asking one the same again
    opened = tokenizer.apply_chat_template(plain[:2], tokenize=False, add_generation_prompt=True)
    assert tokenizer(opened, add_special_tokens=False)["input_ids"] == found.ids[:asked]
    (nothing,) = tokenizer.apply_chat_template([[]], tokenize=False, add_generation_prompt=True)
    assert tokenizer(nothing, add_special_tokens=False)["input_ids"] == found.ids[:first]
    assert tokenizer.apply_chat_template(plain, tokenize=False) == trained
