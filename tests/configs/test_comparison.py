"""A list of recipes: one campaign each, every recipe with the sections that it reads."""

from pathlib import Path

import pytest

from configs.comparison import load_campaigns
from configs.load import ConfigError


def from_text(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_each_recipe_of_a_list_is_a_campaign_of_its_own(tmp_path: Path) -> None:
    text = "name: four\nrecipe: [rmboost, rlaif, rlcd, west_of_n]\nscorer: {model: fits/x}\npairing: {domain: safety}\n"
    campaigns = load_campaigns(from_text(tmp_path, text))
    assert [(one.name, one.recipe) for one in campaigns] == [
        ("four-rmboost", "rmboost"), ("four-rlaif", "rlaif"), ("four-rlcd", "rlcd"), ("four-west_of_n", "west_of_n"),
    ]  # fmt: skip
    assert [one.scorer is not None for one in campaigns] == [False, False, False, True]
    assert all(one.pairing is not None and one.pairing.domain == "safety" for one in campaigns)
    assert all(one.turns == 1 for one in campaigns)


def test_one_recipe_is_one_campaign_under_its_own_name(tmp_path: Path) -> None:
    (campaign,) = load_campaigns(from_text(tmp_path, "name: one\nrecipe: rlaif\nturns: 2\n"))
    assert (campaign.name, campaign.turns) == ("one", 2)


def test_sections_go_to_the_recipes_that_read_them(tmp_path: Path) -> None:
    text = "name: mixed\nrecipe: [music, rmboost]\nperturb: {verify: true}\nturns: 3\n"
    music, rmboost = load_campaigns(from_text(tmp_path, text), overrides=["pairing.redraws=0"])
    assert music.perturb is not None
    assert music.perturb.verify
    assert (music.pairing, rmboost.perturb) == (None, None)
    assert rmboost.pairing is not None
    assert rmboost.pairing.redraws == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: []", "recipe: the list is empty: name at least one recipe"),
        ("recipe: [rlaif, rlaif]", "recipe: 'rlaif' is named twice: name each once"),
        (
            "recipe: [rlaif, rlcd]\nperturb: {verify: true}",
            "perturb: none of the recipes rlaif, rlcd reads it: drop it",
        ),
        ("recipe: [rlaif, rlxd]", "recipe: input should be 'dialogue', "),
        ("recipe: [rlaif, 3]", "recipe: input should be 'dialogue', "),
        ("recipe: rlaif\nperturb: {verify: true}", "recipe rlaif makes its pairs in its own way: drop perturb"),
        ("recipe: music\npairing: {}\nperturb: {}", "pairing is for the recipes rmboost, rlaif, rlcd, west_of_n"),
        ("recipe: rmboost\njudge_pairs: true", "drop judge_pairs; `descant judge pairwise` labels them afterwards"),
        ("recipe: rmboost\nscorer: {model: x}", "scorer picks candidates in the recipes best_of_n and west_of_n"),
        ("recipe: west_of_n\ncandidates: 1", "west_of_n takes the best and the worst of at least 2"),
        ("recipe: rmboost\npairing: {play: false}", "set seeds.cut=last_assistant"),
        ("recipe: rmboost\npairing: {aspects: {}}", "aspects is empty: name at least one"),
        ("recipe: rmboost\npairing: {aspects: {tone: ''}}", "aspects.tone: say what it asks of an answer"),
        (
            "recipe: rmboost\npairing: {boost: {better: 1.2}}",
            "pairing.boost.better: input should be less than or equal",
        ),
        ("recipe: rmboost\npairing: {domain: cooking}", "pairing.domain: input should be 'general', "),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_campaigns(from_text(tmp_path, text))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
