"""Loading: every mistake becomes one line that names the key and says what to do."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs.comparison import load_campaigns
from configs.fit_settings import FitSettings, RewardFitSettings
from configs.language_settings import AskFitSettings, DpoFitSettings, SftFitSettings
from configs.load import ConfigError, load, presets
from configs.model_settings import Endpoint
from configs.settings import BernoulliSchedule, CampaignSettings, TurnRange


def from_text(tmp_path: Path, text: str, *overrides: str) -> CampaignSettings:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load(str(path), CampaignSettings, overrides=overrides)


def mistake(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        from_text(tmp_path, text, *overrides)
    message = str(raised.value)
    assert "\n" not in message
    assert raised.value.exit_code == 2
    return message


@pytest.mark.parametrize("name", presets())
def test_every_campaign_preset_loads(name: str) -> None:
    assert all(campaign.name for campaign in load_campaigns(name))


@pytest.mark.parametrize("name", presets("fit"))
def test_every_fit_preset_loads_as_what_it_trains(name: str) -> None:
    kinds: list[type[FitSettings]] = [RewardFitSettings, AskFitSettings, SftFitSettings, DpoFitSettings]
    (kind,) = (kind for kind in kinds if name in presets("fit", objective=kind.model_fields["objective"].default))
    assert load(name, kind, folder="fit").name == name


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = from_text(tmp_path, "turns: 3")
    with pytest.raises(ValidationError, match="frozen"):
        settings.turns = 4


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert from_text(tmp_path, "# nothing yet\n").turns == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("turn: 3", "turn: unknown key; did you mean 'turns'?"),
        ("models: {default: {modle: x/y}}", "models.default.modle: unknown key; did you mean 'model'?"),
        ("models: {judges: [{}, {temprature: 1}]}", "models.judges.1.temprature: unknown key; did you mean 'temp"),
        ("perturb: {schedule: {bernouli: 0.5}}", "bernouli: unknown key; did you mean 'bernoulli'?"),
        ("budget: {zzz: 1}", "budget.zzz: unknown key; the keys here are calls, roles, tokens, usd"),
        ("turns: many", "turns: input should be a valid integer"),
        ("turns: 0", "turns: input should be greater than or equal to 1, but it is 0"),
        ("turns: {low: 3, high: 2}", "turns: low 3 is above high 2: swap them"),
        ("turns: [1, 2]", "turns: "),
        (
            "recipe: musik",
            "recipe: input should be 'dialogue', 'music', 'best_of_n', 'capo', 'rmboost', 'rlaif', 'rlcd' or 'west_of_n', but it is 'musik'",
        ),
        ("perturb: {schedule: sometimes}", "perturb.schedule: input should be 'every', 'one', 'last' or 'context'"),
        ("perturb: {schedule: {bernoulli: 2}}", "perturb.schedule.bernoulli: input should be less than or equal to 1"),
        ("perturb: {kinds: []}", "perturb: kinds is empty: name at least one"),
        ("perturb: {require_landed: true}", "perturb: require_landed needs verify: true"),
        ("models: {default: {temperature: .inf}}", "models.default.temperature: input should be a finite number"),
        ("models: {default: {temperature: -1}}", "models.default.temperature: input should be greater than or equal"),
        ("seeds: {path: a.jsonl, format: rehearsal}", "seeds: format 'rehearsal' generates its seeds"),
        ("models: 3", "models: "),
        ("1: 2", "1: "),
    ],
)
def test_a_mistake_names_its_key(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in mistake(tmp_path, text)


def test_the_number_of_further_mistakes_is_told(tmp_path: Path) -> None:
    assert mistake(tmp_path, "turn: 3\nconcurrency: 0\nrecipe: x").endswith("(and 2 more)")


def test_unions_take_each_of_their_shapes(tmp_path: Path) -> None:
    settings = from_text(tmp_path, "turns: {low: 2, high: 4}\nperturb: {schedule: {bernoulli: 0.5}}")
    assert settings.turns == TurnRange(low=2, high=4)
    assert settings.perturb is not None
    assert settings.perturb.schedule == BernoulliSchedule(bernoulli=0.5)


def test_music_is_perturbed_without_being_told_and_dialogue_is_not(tmp_path: Path) -> None:
    assert from_text(tmp_path, "recipe: music").perturb is not None
    assert from_text(tmp_path, "recipe: dialogue").perturb is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nturns: [1, 2\n", "not valid YAML: line 3"),
        ("name: x\n\tturns: 1\n", "not valid YAML: line 2"),
        ("name: x\nname: y\n", 'not valid YAML: line 2: found duplicate key "name"'),
        ("- 1\n- 2\n", "a config is a mapping of keys to values, not a list"),
        ("name: !!python/object/apply:os.system [true]\n", "not valid YAML: line 1"),
    ],
)
def test_broken_yaml_is_told_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in mistake(tmp_path, text)


def test_a_missing_file_a_folder_and_bytes_are_told(tmp_path: Path) -> None:
    (tmp_path / "image.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.yaml").mkdir()
    for name, expected in (("no.yaml", "No such file"), ("image.yaml", "not a UTF-8"), ("folder.yaml", "directory")):
        with pytest.raises(ConfigError, match=expected):
            load(str(tmp_path / name), CampaignSettings)


def test_an_unknown_preset_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rehearsal'"):
        load("reharsal", CampaignSettings)
    with pytest.raises(ConfigError, match=r"the presets are .*dialogue, music"):
        load("zzzzzz", CampaignSettings)


def test_a_folder_named_like_a_preset_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "music").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("music", CampaignSettings).name == "music"


def test_overrides_reach_into_mappings_and_lists(tmp_path: Path) -> None:
    settings = from_text(
        tmp_path,
        "models: {judges: [{model: a/b}]}",
        "turns=2",
        "models.default.temperature=0",
        "models.default.params.top_k=5",
        "models.judges.0.max_tokens=9",
        "models.judges.1.model=c/d",
        "perturb={schedule: one}",
    )
    assert settings.turns == 2
    assert settings.models.of("user").temperature == 0.0
    assert settings.models.of("assistant").params == {"top_k": 5}
    assert settings.models.of("judge", 0).max_tokens == 9
    assert settings.models.of("judge", 1).model == "c/d"
    assert settings.perturb is not None
    assert settings.perturb.schedule == "one"


def test_an_override_makes_the_list_that_the_file_leaves_out(tmp_path: Path) -> None:
    assert from_text(tmp_path, "", "models.judges.0.model=a/b").models.of("judge").model == "a/b"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("turns", "write it as key.path=value"),
        ("=3", "write it as key.path=value"),
        ("turns=[1", "--set turns: the value is not valid YAML"),
        ("name.first=x", "name is a value without keys of its own"),
        ("models.judges.7.model=x", "'7' is no place in a list of 1; places start at 0"),
        ("models.judges.first.model=x", "'first' is no place in a list of 1"),
        ("turn=3", "turn: unknown key; did you mean 'turns'?"),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in mistake(tmp_path, "name: x\nmodels: {judges: [{}]}", override)


SECRET = "hunter2-9f8e7d6c5b"


@pytest.mark.parametrize(
    "role",
    [
        f"{{api_key: {SECRET}}}",
        f"{{api_key: [{SECRET}]}}",
        f"{{headers: {{Authorization: Bearer {SECRET}}}}}",
        f"{{headers: {{X: [{SECRET}]}}}}",
        f"{{headers: {SECRET}}}",
        f"{{api_base: 'http://me:{SECRET}@127.0.0.1/v1'}}",
        f"{{api_base: 'ftp://me:{SECRET}@127.0.0.1/v1'}}",
        f"{{api_base: 'http://127.0.0.1/v1?key={SECRET}'}}",
        f"{{params: {{api_key: {SECRET}}}}}",
        f"{{params: {{extra_body: {{access_token: {SECRET}}}}}}}",
        f"{{params: {{aws_secret_access_key: {SECRET}}}}}",
        f"{{api_kye: {SECRET}}}",
        f'{{api_key: "env:A", api_key: "{SECRET}"}}',
    ],
)
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, role: str) -> None:
    assert SECRET not in mistake(tmp_path, f"models: {{default: {role}}}")


def test_a_secret_in_a_broken_override_is_not_repeated(tmp_path: Path) -> None:
    assert SECRET not in mistake(tmp_path, "", f'models.default.api_key="{SECRET}')


def test_ordinary_parameters_are_no_secrets(tmp_path: Path) -> None:
    params = "{top_k: 5, logit_bias: {}, max_completion_tokens: 9, prompt_cache_key: a, input_cost_per_token: 0.1}"
    assert len(from_text(tmp_path, f"models: {{default: {{params: {params}}}}}").models.of("user").params) == 5


@pytest.mark.parametrize(
    "params", ["{num_retries: 2}", "{fallbacks: [a/b]}", "{timeout: 3}", "{extra_body: {model: other}}"]
)
def test_parameters_that_a_role_has_itself_or_that_ask_behind_our_back_are_refused(tmp_path: Path, params: str) -> None:
    assert "is refused" in mistake(tmp_path, f"models: {{default: {{params: {params}}}}}")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("{top_k: 18446744073709551616}", "params.top_k is a whole number over 64 bits"),
        ("{logit_bias: {7: [-9223372036854775809]}}", "over 64 bits"),
        ("{extra_body: {salt: 99999999999999999999}}", "params.salt is a whole number over 64 bits"),
        ("{min_p: .inf}", "params.min_p is no JSON (float)"),
        ("{day: 2026-01-01}", "params.day is no JSON (date)"),
        ("{max_tokens: many}", "params.max_tokens is a whole number from 1 to"),
        ("{extra_body: {num_predict: -1}}", "params.num_predict is a whole number from 1 to"),
        ("{n: 1.5}", "params.n is a whole number"),
        ("{max_tokens: null}", "nothing else bounds an answer"),
    ],
)
def test_parameters_that_no_request_can_carry_or_no_budget_count_are_refused(
    tmp_path: Path, params: str, said: str
) -> None:
    assert said in mistake(tmp_path, f"models: {{default: {{params: {params}}}}}")


def test_parameters_at_the_edge_are_taken(tmp_path: Path) -> None:
    params = (
        "{a: 18446744073709551615, b: -9223372036854775808, max_tokens: null, max_completion_tokens: 9, c: [1.5, true]}"
    )
    assert len(from_text(tmp_path, f"models: {{default: {{params: {params}}}}}").models.of("user").params) == 5
    assert "max_tokens" in mistake(tmp_path, "models: {default: {max_tokens: 1000000001}}")


@pytest.mark.parametrize("address", ["localhost:8000", "http://", "http://h:99999/v1", "http://[::1", "/v1"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    assert "models.user.api_base: " in mistake(tmp_path, f"models: {{user: {{api_base: '{address}'}}}}")


DEFAULT = """
models:
  default: {model: openai/a, api_base: "http://one/v1", api_key: env:ONE, headers: {X: env:TWO}, params: {k: 1}, top_p: 0.5}
"""


def test_a_role_falls_back_on_the_default(tmp_path: Path) -> None:
    model = from_text(tmp_path, DEFAULT, "models.user.temperature=0.1").models.of("user")
    assert (model.model, model.api_base, model.api_key) == ("openai/a", "http://one/v1", "env:ONE")
    assert (model.headers, model.params, model.top_p, model.temperature) == ({"X": "env:TWO"}, {"k": 1}, 0.5, 0.1)


def test_what_belongs_to_an_endpoint_does_not_travel_to_a_role_with_its_own_model(tmp_path: Path) -> None:
    model = from_text(tmp_path, DEFAULT, "models.user.model=openai/b").models.of("user")
    assert (model.api_base, model.api_key, model.headers, model.params) == (None, None, {}, {})
    assert model.top_p == 0.5


def test_a_key_does_not_travel_to_a_role_with_its_own_address(tmp_path: Path) -> None:
    model = from_text(tmp_path, DEFAULT, "models.user.api_base=http://two/v1").models.of("user")
    assert (model.model, model.api_key, model.headers, model.params) == ("openai/a", None, {}, {"k": 1})


def test_a_role_with_its_own_checkpoint_inherits_no_model_and_no_endpoint(tmp_path: Path) -> None:
    text = """
    models:
      default: {model: openai/x, api_base: "http://a/v1", api_key: "env:KEY", params: {a: 1}, max_tokens: 9}
      user: {checkpoint: fits/ask}
    """
    models = from_text(tmp_path, text).models.served({"fits/ask": Endpoint("http://b/v1", "ask-1")})
    user = models.of("user")
    assert (user.model, user.api_base, user.api_key, user.params) == ("hosted_vllm/ask-1", "http://b/v1", None, {})
    assert user.max_tokens == 9
    assert models.of("assistant").model == "openai/x"
    assert [models.checkpoint_of(role) for role in ("user", "assistant")] == ["fits/ask", None]


def test_a_role_with_its_own_model_does_not_inherit_a_checkpoint(tmp_path: Path) -> None:
    models = from_text(
        tmp_path, "models: {default: {checkpoint: fits/ask, temperature: 1.0}, user: {model: openai/x}}"
    ).models
    assert models.of("user").model == "openai/x"
    assert models.of("user").temperature == 1.0
    assert models.is_named("assistant")
    assert models.of("assistant").checkpoint == "fits/ask"
    assert models.served({"fits/ask": Endpoint("http://b/v1", "ask-1")}).of("assistant").checkpoint is None


def test_where_checkpoints_answer_is_not_part_of_what_is_stored(tmp_path: Path) -> None:
    settings = from_text(tmp_path, "models: {user: {checkpoint: fits/ask}}")
    served = settings.model_copy(
        update={"models": settings.models.served({"fits/ask": Endpoint("http://b/v1", "ask")})}
    )
    assert served.model_dump(mode="json") == settings.model_dump(mode="json")
    assert CampaignSettings.model_validate(served.model_dump(mode="json")) == settings


@pytest.mark.parametrize("also", ["model: openai/x", 'api_base: "http://a/v1"', "api_key: env:KEY"])
def test_a_checkpoint_beside_a_model_or_an_endpoint_is_refused(tmp_path: Path, also: str) -> None:
    name = also.partition(":")[0]
    found = mistake(tmp_path, f"models: {{user: {{checkpoint: fits/ask, {also}}}}}")
    assert f"checkpoint and {name} are both given" in found


def test_an_endpoint_without_a_model_over_a_default_checkpoint_is_refused(tmp_path: Path) -> None:
    found = mistake(tmp_path, 'models: {default: {checkpoint: fits/ask}, user: {api_base: "http://a/v1"}}')
    assert "user has an endpoint of its own and no model, and default names a checkpoint" in found
