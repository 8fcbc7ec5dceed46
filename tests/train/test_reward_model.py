"""The model and its scores: eager attention, batches that do not matter, folders that plain transformers loads."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from configs.fit_settings import TinySettings
from store.records import Message
from tests.train.conftest import Talk
from train.checkpoint import save_model
from train.errors import TrainError
from train.model import load_model, tiny_model
from train.score import load_scorer, score_conversations, score_tokens
from train.tokenizer import encode, train_tokenizer

CPU = torch.device("cpu")
SHAPE = TinySettings(
    hidden_size=32, intermediate_size=64, layers=2, heads=2, kv_heads=1, vocab_size=300, sliding_window=8
)
# Weights so large that attention logits leave the soft-cap's straight part.
BITING = SHAPE.model_copy(update={"initializer_range": 1.0, "attention_softcap": 5.0})


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["Please speak of tea now. It is rye."] * 4, vocab_size=300, max_length=128)


@pytest.fixture(scope="module")
def conversations(talk: Talk) -> list[tuple[Message, ...]]:
    return [
        talk("Hi.", "It is tea."),
        talk("Please speak of tea now.", "It is rye. " * 6, "And now?", "It is oil."),
        talk("Hi.", ""),
        talk("Only a question so far"),
        talk(*["It is so. "] * 8),
    ]


@pytest.fixture(scope="module")
def model_dir(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "biting"
    save_model(folder, tiny_model(BITING, tokenizer, max_length=128, random_seed=3), tokenizer, {"fit_id": "fit_x"})
    return folder


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(tokenizer: Any) -> None:
    first = tiny_model(SHAPE, tokenizer, max_length=64, random_seed=1)
    torch.rand(7)
    again = tiny_model(SHAPE, tokenizer, max_length=64, random_seed=1)
    other = tiny_model(SHAPE, tokenizer, max_length=64, random_seed=2)
    assert torch.equal(first.score.weight, again.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)


def test_a_score_depends_on_neither_the_batch_nor_the_order(
    model_dir: Path, conversations: list[tuple[Message, ...]]
) -> None:
    alone = [score_conversations(model_dir, [conversation])[0] for conversation in conversations]
    together = score_conversations(model_dir, conversations)
    backwards = score_conversations(model_dir, conversations[::-1], batch_size=2)[::-1]
    assert together == pytest.approx(alone, abs=2e-6)
    assert backwards == pytest.approx(alone, abs=2e-6)
    assert len({round(score, 4) for score in alone}) == len(alone)


@pytest.mark.parametrize("side", ["left", "right"])
def test_plain_transformers_gives_the_same_scores_with_padding_on_either_side(
    model_dir: Path, conversations: list[tuple[Message, ...]], side: str
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(model_dir, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir, padding_side=side)
    texts = tokenizer.apply_chat_template(
        [[message.model_dump() for message in conversation] for conversation in conversations],
        padding=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        plain = model(**texts).logits[:, 0].tolist()
    assert score_conversations(model_dir, conversations) == pytest.approx(plain, abs=5e-6)


def test_the_soft_cap_is_kept_where_transformers_default_drops_it(
    model_dir: Path, conversations: list[tuple[Message, ...]]
) -> None:
    scores = score_conversations(model_dir, conversations)
    dropping = AutoModelForSequenceClassification.from_pretrained(model_dir, attn_implementation="sdpa").eval()
    scorer = load_scorer(model_dir)
    assert scorer.model.config._attn_implementation == "descant_stream"
    without = score_tokens(
        dropping, scorer.encode(conversations), pad_token_id=0, device=CPU, batch_size=8, streams=False
    )
    assert max(abs(a - b) for a, b in zip(scores, without, strict=True)) > 0.05


def test_a_prefix_scores_the_same_within_its_conversation_as_alone(tokenizer: Any, talk: Talk) -> None:
    from train.masks import Reader
    from train.model import rewards

    model = tiny_model(BITING, tokenizer, max_length=128, random_seed=0).eval()
    turns = ["Hi.", "It is tea.", "And now?", "It is rye."]
    whole, first = encode(tokenizer, [talk(*turns), talk(*turns[:2])])
    reader = Reader(tokenizer)
    places = reader.answer_ends(talk(*turns), reader.read([talk(*turns)])[0]) or []
    with torch.no_grad():
        inside = rewards(model, [[whole]], [(0, place) for place in places], pad_token_id=0, device=CPU).tolist()
    assert inside == pytest.approx(
        score_tokens(model, [first, whole], pad_token_id=0, device=CPU, batch_size=1), abs=2e-6
    )


def test_a_conversation_that_is_too_long_is_refused_not_truncated(model_dir: Path, talk: Talk) -> None:
    with pytest.raises(TrainError, match=r"conversation 2 has .* tokens, more than the model's 128"):
        score_conversations(model_dir, [talk("Hi.", "Yes."), talk("Hi.", "word " * 200)])


def test_a_chat_model_without_a_head_gets_one_from_the_seed(tokenizer: Any, tmp_path: Path) -> None:
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    heads = [load_model(tmp_path, tokenizer, random_seed=seed).score.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    with pytest.raises(TrainError, match="without a reward head"):
        load_scorer(tmp_path)


def test_damaged_weights_are_an_error_in_one_line(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TrainError, match="no model in") as mistake:
        load_scorer(folder)
    assert "\n" not in str(mistake.value)


def test_folders_that_hold_no_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        TrainError, match="no model in 'fits/sft-tiny': there is no such fit; make it first with descant fit"
    ):
        load_scorer("fits/sft-tiny")
    with pytest.raises(TrainError, match="no model in"):
        load_scorer(tmp_path / "absent")
    with pytest.raises(TrainError, match=r"no config\.json"):
        load_scorer(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(TrainError):
        load_scorer(tmp_path)
