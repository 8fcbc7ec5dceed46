"""Language models of the other families: they answer, ask and learn preferences as a Gemma-2 does."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from store.records import PreferencePair
from tests.train.backbones import FAMILIES, pads_with_its_end_token, shape_for
from tests.train.test_dpo import settings as dpo
from tests.train.test_dpo import stop
from tests.train.test_language import THINGS, ask, sft, talks, weights
from train.dpo import fit_dpo
from train.errors import InterruptedFitError
from train.generate import generate
from train.language import fit_language
from train.loop import Progress
from train.tokenizer import load_tokenizer

OTHERS = [family for family in FAMILIES if family != "gemma2"]
END_MARKS = {
    "gemma3": ("<end_of_turn>", "<end_of_turn>"),
    "llama": ("<|eot_id|>", "<|eot_id|>"),
    "qwen2": ("<|im_end|>", "<|im_end|>"),
    "qwen3": ("<|im_end|>", "<|im_end|>"),
    "mistral": ("[/INST]", "</s>"),
}
"""Behind the user's turns and behind the assistant's."""


def small(family: str) -> dict[str, object]:
    return shape_for(family, layers=1, initializer_range=0.08).model_dump()


@pytest.fixture(scope="module", params=OTHERS)
def answering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fits") / str(request.param)
    fit_language(sft(out, tiny=small(str(request.param)), steps=60), sessions=talks(40))
    return out


def stops_at(folder: Path) -> set[str]:
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    ends = model.generation_config.eos_token_id
    return set(load_tokenizer(str(folder / "model")).convert_ids_to_tokens(ends))


def test_a_model_of_the_assistant_answers_and_learns_preferences(answering: Path, tmp_path: Path) -> None:
    talk = talks(1)[0].messages
    several = generate(answering, [talk[:1], talk[:3]] * 2, max_tokens=20, batch_size=3)
    assert several == several[:2] * 2  # neither the batch nor its padding changes an answer
    assert several[0] in {f"One {thing}." for thing in THINGS}
    assert several[1] in {f"It is {thing}." for thing in THINGS}
    assert END_MARKS[answering.name][1] in stops_at(answering)

    pairs = [
        PreferencePair(f"p{n}", (talk[0], talk[1]), (talk[0], talks(4)[n].messages[1]), "train", "toy", 1, 1)
        for n in (1, 2, 3)
    ]
    whole, stopped = (dpo(tmp_path / name, model=str(answering), learning_rate=1e-3) for name in ("whole", "stopped"))
    fit_dpo(whole, pairs=pairs)
    card = json.loads((tmp_path / "whole" / "data_card.json").read_text("utf-8"))
    assert card["trees"], card["why_no_trees"]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < losses[0]
    stop(stopped, 3, pairs)
    fit_dpo(stopped, pairs=pairs)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_a_model_of_the_user_stops_where_its_turn_ends_and_goes_on_bit_for_bit(answering: Path, tmp_path: Path) -> None:
    end = pads_with_its_end_token(answering / "model").eos_token
    whole, again = (ask(tmp_path / name, model=str(answering), steps=6) for name in ("whole", "again"))
    fit_language(whole, sessions=talks(20))
    assert END_MARKS[answering.name][0] in stops_at(tmp_path / "whole")
    assert (
        load_tokenizer(str(tmp_path / "whole" / "model")).pad_token != end
    )  # else torch would not train its embedding
    assert len(generate(tmp_path / "whole", [talks(1)[0].messages[:2], ()], max_tokens=4)) == 2

    def press_ctrl_c(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedFitError):
        fit_language(again, sessions=talks(20), progress=press_ctrl_c)
    fit_language(again, sessions=talks(20))
    assert weights(tmp_path / "again") == weights(tmp_path / "whole")
