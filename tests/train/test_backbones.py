"""Six families of models: one conversation has one reward, whoever pads it, with what, and on which side."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from configs.fit_settings import TinySettings
from tests.train.backbones import CONVERSATIONS, FAMILIES, pads_with_its_end_token, save_tiny, shape_for, tokenizer_for
from tests.train.conftest import MakePairs, MakeSettings
from tests.train.test_checkpoint import curve, interrupt, weights
from train.backbone import reading_pad
from train.checkpoint import read_metrics
from train.masks import Reader
from train.model import last_tokens, masked_rewards
from train.reward import fit_reward
from train.score import load_scorer
from train.tokenizer import encode, fold_system

# Of whom the end token is the last one of a conversation: padded with it, plain transformers reads the token before.
ENDS_ON_ITS_END_TOKEN = {"llama", "mistral"}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / str(request.param), str(request.param))


def padded(tokenizer: Any, side: str) -> Any:
    messages = [[message.model_dump() for message in fold_system(talk)] for talk in CONVERSATIONS]
    tokenizer.padding_side = side
    return tokenizer.apply_chat_template(messages, padding=True, return_dict=True, return_tensors="pt")


def plain_rewards(folder: Path, side: str) -> list[float]:
    """By transformers alone, which looks for the last token that is no pad token."""
    attention = "eager" if '"gemma2"' in (folder / "config.json").read_text("utf-8") else None
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation=attention).eval()
    with torch.no_grad():
        found: list[float] = model(**padded(AutoTokenizer.from_pretrained(folder), side)).logits[:, 0].tolist()
    return found


def masked(folder: Path, side: str) -> list[float]:
    scorer = load_scorer(folder)
    inputs = padded(scorer.tokenizer, side)
    with torch.no_grad():
        found: list[float] = masked_rewards(scorer.model, inputs["input_ids"], inputs["attention_mask"]).tolist()
    return found


def test_neither_batch_nor_order_nor_side_nor_reader_changes_a_reward(folder: Path) -> None:
    scorer = load_scorer(folder)
    alone = [scorer.score([talk])[0] for talk in CONVERSATIONS]
    assert len({round(reward, 3) for reward in alone}) == len(alone)  # else the test could not fail
    others = {
        "together": scorer.score(CONVERSATIONS),
        "backwards": scorer.score(CONVERSATIONS[::-1], batch_size=2)[::-1],
        "left": masked(folder, "left"),
        "right": masked(folder, "right"),
        "plain left": plain_rewards(folder, "left"),
        "plain right": plain_rewards(folder, "right"),
    }
    for way, rewards in others.items():
        assert rewards == pytest.approx(alone, abs=1e-5), way


def test_a_pad_token_equal_to_the_end_token_changes_no_reward(folder: Path, tmp_path: Path) -> None:
    before = load_scorer(folder).score(CONVERSATIONS)
    bad = save_tiny(tmp_path / folder.name, folder.name)
    pads_with_its_end_token(bad)
    assert load_scorer(bad).score(CONVERSATIONS) == before
    for side in ("left", "right"):
        assert masked(bad, side) == pytest.approx(before, abs=1e-5)
    plain = plain_rewards(bad, "right")
    if folder.name in ENDS_ON_ITS_END_TOKEN:  # what plain transformers makes of such a folder
        assert max(abs(a - b) for a, b in zip(plain, before, strict=True)) > 0.05
    else:
        assert plain == pytest.approx(before, abs=1e-5)


def test_a_fit_from_a_model_that_pads_with_its_end_token_mends_it(
    folder: Path, tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    bad = save_tiny(tmp_path / folder.name, folder.name)
    tokenizer = pads_with_its_end_token(bad)
    before = load_scorer(bad)
    settings = tiny_settings(model=str(bad), steps=2, out=str(tmp_path / "fit"), learning_rate=1e-3)
    done = fit_reward(settings, pairs=make_pairs(20, turns=2))
    after = load_scorer(done.model_dir)
    assert after.tokenizer.pad_token_id == after.model.config.pad_token_id not in (None, tokenizer.eos_token_id)
    for side in ("left", "right"):
        assert plain_rewards(done.model_dir, side) == pytest.approx(after.score(CONVERSATIONS), abs=1e-5)
    end = before.tokenizer.eos_token_id
    moved = (after.model.model.embed_tokens.weight[end] - before.model.model.embed_tokens.weight[end]).abs().max()
    # Gemma's <eos> stands in no conversation; the others' end tokens end turns, and are learned.
    assert (moved > 1e-5) == (not folder.name.startswith("gemma"))


def test_every_answer_gets_the_reward_of_the_conversation_cut_there(folder: Path) -> None:
    scorer = load_scorer(folder)
    found = scorer.score_answers(CONVERSATIONS, scorer.encode(CONVERSATIONS), ids="abcdef", batch_size=4)
    for talk, rewards in zip(CONVERSATIONS, found, strict=True):
        ends = [place for place, message in enumerate(talk) if message.role == "assistant"]
        alone = [scorer.score([talk[: end + 1]])[0] for end in ends]
        assert rewards.after_answers == pytest.approx(alone, abs=1e-5)
        assert rewards.whole == pytest.approx(scorer.score([talk])[0], abs=1e-5)
    reader = Reader(scorer.tokenizer)
    talk = CONVERSATIONS[3]
    assert reader.answer_ends(talk, reader.read([talk])[0]) is not None  # in one reading, not one by one


def small(family: str) -> TinySettings:
    return shape_for(family, initializer_range=0.08, layers=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_short_fit_lowers_the_loss(
    family: str, tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    settings = tiny_settings(tiny=small(family), steps=60)
    fit_reward(settings, pairs=make_pairs(100))
    losses = [line["loss"] for line in read_metrics(tmp_path / "fit" / "metrics.jsonl")]
    assert sum(losses[-10:]) / 10 < 0.7 * sum(losses[:5]) / 5
    card = json.loads((tmp_path / "fit" / "data_card.json").read_text("utf-8"))["backbone"]
    assert card["attention"] == "descant_stream"
    assert card["pad_token"] != card["end_token"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fit_that_was_stopped_goes_on_bit_for_bit(
    family: str, tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    whole, stopped = (
        tiny_settings(tiny=small(family), out=str(tmp_path / name), read_at="every_answer", steps=10)
        for name in ("whole", "stopped")
    )
    fit_reward(whole, pairs=make_pairs(40, turns=2))
    interrupt(stopped, 6, make_pairs(40, turns=2))
    fit_reward(stopped, pairs=make_pairs(40, turns=2))
    assert weights(stopped.out) == weights(whole.out)
    assert curve(stopped.out) == curve(whole.out)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_tokenizer_reads_as_it_did(family: str, tmp_path: Path) -> None:
    scorer = load_scorer(save_tiny(tmp_path / family, family))
    fresh = tokenizer_for(family)
    assert scorer.encode(CONVERSATIONS) == encode(fresh, CONVERSATIONS)


def test_the_last_token_is_the_last_that_the_mask_names() -> None:
    mask_BT = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
    assert last_tokens(mask_BT).tolist() == [3, 1, 3, 1]


def test_any_token_fills_up_a_batch_that_is_read_at_counted_places(folder: Path) -> None:
    scorer = load_scorer(folder)
    before = scorer.score(CONVERSATIONS)
    scorer.tokenizer.pad_token = None
    assert reading_pad(scorer.tokenizer) == scorer.tokenizer.eos_token_id
    assert scorer.score(CONVERSATIONS) == before
