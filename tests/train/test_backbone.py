"""What is checked of a model at the start: pad and end tokens, dates, layouts, and templates that rewrite what was said."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from store.records import Message
from tests.train.backbones import CONVERSATIONS, save_tiny, shape_for, tokenizer_for
from tests.train.conftest import MakePairs, MakeSettings, Talk
from tests.train.test_checkpoint import interrupt, weights
from train.backbone import NEW_PAD, freeze_date, settle_embeddings, settle_tokens
from train.causal import pretrained_language_model
from train.checkpoint import save_model
from train.errors import TrainError
from train.families import CHATML
from train.masks import Reader
from train.model import load_model, tiny_model
from train.reward import fit_reward
from train.score import load_scorer
from train.tokenizer import encode, fold_system, render

THINKING = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
"""Writes the last answer otherwise than the earlier ones, as Qwen-3's own template does."""


@pytest.mark.parametrize(
    ("family", "pad", "end"),
    [
        ("gemma2", "<pad>", "<end_of_turn>"),
        ("gemma3", "<pad>", "<end_of_turn>"),
        ("llama", "<|finetune_right_pad_id|>", "<|eot_id|>"),
        ("qwen2", "<|endoftext|>", "<|im_end|>"),
        ("qwen3", "<|endoftext|>", "<|im_end|>"),
        ("mistral", "<unk>", "</s>"),
    ],
)
def test_each_family_gets_a_pad_token_that_ends_nothing(family: str, pad: str, end: str) -> None:
    tokenizer = tokenizer_for(family)
    before = len(tokenizer)
    assert settle_tokens(tokenizer) == (pad, end)
    assert settle_tokens(tokenizer) == (pad, end)  # settled, it stays
    assert len(tokenizer) == before


@pytest.mark.parametrize(
    ("special", "expected"),
    [
        ((), NEW_PAD),
        (("<|reserved_special_token_1|>", "<|reserved_special_token_0|>"), "<|reserved_special_token_1|>"),
        (("<|reserved_special_token_0|>", "[PAD]"), "[PAD]"),
    ],
)
def test_a_pad_token_equal_to_the_end_token_is_replaced(special: tuple[str, ...], expected: str) -> None:
    tokenizer = tokenizer_for("mistral")
    tokenizer.unk_token = None
    tokenizer.pad_token = "</s>"
    if special:
        tokenizer.add_special_tokens({"extra_special_tokens": list(special)}, replace_extra_special_tokens=False)
    before = len(tokenizer)
    assert settle_tokens(tokenizer).pad_token == expected
    assert tokenizer.eos_token == "</s>"
    assert len(tokenizer) == before + (not special)  # the first in the vocabulary, or a new one behind it


def test_a_pad_token_that_the_template_writes_is_replaced() -> None:
    tokenizer = tokenizer_for("qwen2")
    tokenizer.pad_token, tokenizer.eos_token = "<|im_end|>", "<|endoftext|>"
    assert settle_tokens(tokenizer).pad_token not in ("<|im_end|>", "<|endoftext|>")


def without_spare_tokens(folder: Path) -> Path:
    """A Mistral reward model that pads with its end token, and has no other token to pad with."""
    tokenizer = tokenizer_for("mistral")
    tokenizer.unk_token, tokenizer.pad_token = None, "</s>"
    save_model(folder, tiny_model(shape_for("mistral"), tokenizer, max_length=256, random_seed=1), tokenizer, {})
    return folder


def test_a_new_pad_token_changes_no_reward_and_a_fit_with_it_goes_on_bit_for_bit(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    source = without_spare_tokens(tmp_path / "source")
    before = load_scorer(source)
    tokenizer = tokenizer_for("mistral")
    tokenizer.unk_token, tokenizer.pad_token = None, "</s>"
    settle_tokens(tokenizer)
    model = load_model(source, tokenizer)
    settle_embeddings(model, tokenizer)
    assert model.config.vocab_size == len(before.tokenizer) + 1
    assert model.get_input_embeddings().weight[tokenizer.pad_token_id].abs().max() == 0
    save_model(tmp_path / "settled", model, tokenizer, {})
    assert load_scorer(tmp_path / "settled").score(CONVERSATIONS) == before.score(CONVERSATIONS)

    whole, stopped = (
        tiny_settings(model=str(source), out=str(tmp_path / name), steps=10, learning_rate=1e-3)
        for name in ("whole", "stopped")
    )
    fit_reward(whole, pairs=make_pairs(40))
    interrupt(stopped, 6, make_pairs(40))
    fit_reward(stopped, pairs=make_pairs(40))
    assert weights(stopped.out) == weights(whole.out)


def test_answers_that_are_written_otherwise_later_are_scored_as_the_conversation_stood_then(
    talk: Talk, tmp_path: Path, make_pairs: MakePairs, tiny_settings: MakeSettings
) -> None:
    source = save_tiny(tmp_path / "qwen3", "qwen3")
    scorer = load_scorer(source)
    scorer.tokenizer.chat_template = THINKING
    reader, conversation = Reader(scorer.tokenizer), talk("Speak of tea.", "It is tea.", "And now?", "It is rye.")
    assert reader.answer_ends(conversation, reader.read([conversation])[0]) is None
    conversations = [conversation, talk("Hi.", "It is."), talk("Hi.", "It is.", "So?")]
    found = scorer.score_answers(conversations, scorer.encode(conversations), ids="abc")
    for whole, rewards in zip(conversations, found, strict=True):
        ends = [place for place, message in enumerate(whole) if message.role == "assistant"]
        assert rewards.after_answers == pytest.approx([scorer.score([whole[: end + 1]])[0] for end in ends], abs=1e-5)
        assert rewards.whole == pytest.approx(scorer.score([whole])[0], abs=1e-5)
    scorer.tokenizer.save_pretrained(source)
    settings = tiny_settings(model=str(source), read_at="every_answer", max_length=256)
    with pytest.raises(TrainError, match=r"writes an answer otherwise once .*take read_at end"):
        fit_reward(settings, pairs=make_pairs(20, turns=2))


def test_a_template_may_trim_the_texts_of_one_role_alone(talk: Talk) -> None:
    tokenizer = tokenizer_for("mistral")
    conversation = talk(" Hi. ", " It is tea.\n", "\nAnd now? ", "It is rye. ")
    (read,) = Reader(tokenizer).read([conversation])
    text = render(tokenizer, conversation)
    assert [text[span.start : span.end] for span in read.spans] == [
        " Hi. [/INST]", "It is tea.</s>", "\nAnd now? [/INST]", "It is rye.</s>"
    ]  # fmt: skip


def test_a_template_with_todays_date_writes_one_and_the_same(talk: Talk) -> None:
    tokenizer = tokenizer_for("llama")
    dated = "{{ strftime_now('%d %b %Y') if strftime_now is defined else 'none' }}" + tokenizer.chat_template
    tokenizer.chat_template = dated
    today = render(tokenizer, talk("Hi."))
    freeze_date(tokenizer)
    freeze_date(tokenizer)
    assert render(tokenizer, talk("Hi.")).startswith("26 Jul 2024<|begin_of_text|>")
    assert not today.startswith("26 Jul 2024")
    assert tokenizer.chat_template.endswith(dated)


def test_system_text_is_folded_whatever_the_template_could_do() -> None:
    tokenizer = tokenizer_for("qwen2")
    assert tokenizer.chat_template == CHATML
    conversation = (Message(role="system", content="Be brief."), Message(role="user", content="Hi."))
    assert render(tokenizer, conversation) == "<|im_start|>user\nBe brief.\n\nHi.<|im_end|>\n"


def test_a_layout_that_is_not_known_is_one_clear_line(tmp_path: Path) -> None:
    tokenizer = tokenizer_for("gemma2")
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": len(tokenizer), "num_labels": 1, "pad_token_id": 0}
    save_model(tmp_path / "gpt2", GPT2ForSequenceClassification(GPT2Config(**sizes)), tokenizer, {})
    with pytest.raises(TrainError, match="GPT2ForSequenceClassification, whose layout is not known") as mistake:
        load_scorer(tmp_path / "gpt2")
    assert "\n" not in str(mistake.value)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma-3 that sees pictures too, as the larger ones are published."""
    tokenizer = tokenizer_for("gemma3")
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    folder = tmp_path_factory.mktemp("models") / "seeing"
    save_model(folder, Gemma3ForConditionalGeneration(config), tokenizer, {})
    return folder


def test_of_a_gemma_3_that_sees_pictures_the_text_is_trained_and_scored(
    seeing: Path, tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    tokenizer = tokenizer_for("gemma3")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        wrapper = AutoModelForSequenceClassification.from_pretrained(seeing, num_labels=1).eval()
    model = load_model(seeing, tokenizer, random_seed=7).eval()
    assert type(model).__name__ == "Gemma3TextForSequenceClassification"
    save_model(tmp_path / "text", model, tokenizer, {})
    scorer = load_scorer(tmp_path / "text")
    with torch.no_grad():
        plain = [wrapper(torch.tensor([ids])).logits[0, 0].item() for ids in scorer.encode(CONVERSATIONS)]
    assert scorer.score(CONVERSATIONS) == pytest.approx(plain, abs=1e-5)
    fit_reward(tiny_settings(model=str(seeing), steps=2), pairs=make_pairs(20))
    assert len(load_scorer(tmp_path / "fit").score(CONVERSATIONS)) == len(CONVERSATIONS)


def test_of_a_gemma_3_that_sees_pictures_the_text_model_speaks(seeing: Path, talk: Talk) -> None:
    tokenizer = tokenizer_for("gemma3")
    model = pretrained_language_model(str(seeing), tokenizer).eval()
    assert type(model).__name__ == "Gemma3ForCausalLM"
    wrapper = Gemma3ForConditionalGeneration.from_pretrained(seeing).eval()
    (ids,) = encode(tokenizer, [fold_system(talk("Hi.", "It is tea."))])
    with torch.no_grad():
        ours, plain = (one(torch.tensor([ids])).logits for one in (model, wrapper))
    assert torch.allclose(ours, plain, atol=1e-5)
