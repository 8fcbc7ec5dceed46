"""Settings of fits: the paper's figures, presets that differ from the defaults only, and what makes a fit another one."""

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from configs.fit_settings import FitSettings, RewardFitSettings, TinySettings
from configs.language_settings import AskFitSettings, DpoFitSettings, SftFitSettings
from configs.load import _find, load, presets

KINDS: list[type[FitSettings]] = [RewardFitSettings, AskFitSettings, SftFitSettings, DpoFitSettings]


def test_the_gemma_preset_has_the_figures_of_the_paper() -> None:
    settings = load("reward-gemma-2-9b", RewardFitSettings, folder="fit")
    assert (settings.model, settings.learning_rate, settings.batch_size, settings.max_length) == (
        "google/gemma-2-9b-it", 2e-6, 64, 2048,
    )  # fmt: skip
    assert settings.steps is None  # which means MUSIC's 2,500
    assert (settings.margin, settings.centering, settings.read_at) == (False, 0.0, "end")


@pytest.mark.parametrize("name", presets("fit"))
def test_a_preset_names_only_what_differs_from_the_defaults(name: str) -> None:
    given = YAML(typ="safe", pure=True).load(_find(name, "fit"))
    (kind,) = (kind for kind in KINDS if kind.model_fields["objective"].default == given["objective"])
    defaults = kind.model_validate({}).model_dump(mode="json")
    if "arms" in given or "variants" in given:
        return  # a recipe says the paper's figures beside their source, defaults or not
    same = {key for key, value in given.items() if defaults[key] == value}
    assert same - {"name"} == {"objective"}


@pytest.mark.parametrize("name", ["ask-parrot", "sft-parrot"])
@pytest.mark.parametrize("variant", ["gemma", "tiny"])
def test_parrots_recipes_load_with_each_variant(name: str, variant: str) -> None:
    (kind,) = (kind for kind in KINDS if name in presets("fit", objective=kind.model_fields["objective"].default))
    settings = load(name, kind, overrides=[f"variant={variant}"], folder="fit")
    assert settings.chat_template is None  # type: ignore[attr-defined]


def test_the_defaults_of_the_user_model_are_parrots() -> None:
    settings = AskFitSettings()
    assert (settings.learning_rate, settings.schedule, settings.warmup_epochs) == (3e-5, "cosine", 0.1)
    assert (settings.batch_size, settings.max_length, settings.epochs) == (32, 4096, None)  # which means Parrot's 3
    dpo = DpoFitSettings()
    assert (dpo.learning_rate, dpo.batch_size, dpo.beta) == (1e-5, 32, 0.1)


def test_where_a_fit_is_kept_does_not_make_it_another_one() -> None:
    settings = RewardFitSettings()
    watched = settings.model_copy(update={"out": "x", "evaluate_every": 3, "keep": 9, "tiny": TinySettings(layers=9)})
    assert watched.identity() == settings.identity()
    assert settings.model_copy(update={"random_seed": 1}).identity() != settings.identity()


def test_a_gemma_2_has_the_identity_that_it_had_before_there_were_families() -> None:
    settings = RewardFitSettings(model="tiny")
    assert "family" not in settings.identity()["tiny"]
    llama = settings.model_copy(update={"tiny": TinySettings(family="llama")})
    assert llama.identity()["tiny"]["family"] == "llama"
    assert RewardFitSettings.model_validate_json(llama.model_dump_json()) == llama
    assert RewardFitSettings.model_validate_json(settings.model_dump_json()) == settings


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValidationError, match="drop one of the two"):
        RewardFitSettings(steps=1, epochs=1)
    with pytest.raises(ValidationError, match="not a multiple of kv_heads"):
        TinySettings(heads=4, kv_heads=3)
