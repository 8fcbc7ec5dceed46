"""Fork: dialogues that begin with the turns of others and go on their own way, at any turn, without a copy of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from configs.load import ConfigError, laid_over
from configs.settings import CampaignSettings
from descant import build
from graphs.campaign import CampaignReport, ForkMissingError, campaign_identity, run_campaign
from graphs.cast import ModelMissingError, models_in_use, prompts_of
from graphs.fork import ForkError, fork_of
from graphs.replay import replay, report_lines
from graphs.seeds import load_seeds
from store.corpus_stats import stats_of_campaigns
from store.database import StoreError, query
from store.identity import campaign_id as identify
from store.importing import import_file
from store.queries import preference_pairs
from tests.graphs.conftest import reward_model
from tests.servers import failure, scripted_server


def rehearsed(**given: Any) -> CampaignSettings:
    data: dict[str, Any] = {"name": "first", "recipe": "dialogue", "turns": 3}
    return CampaignSettings.model_validate({**data, "seeds": {"format": "rehearsal", "limit": 2}, **given})


def run(settings: CampaignSettings, database: Path) -> CampaignReport:
    return run_campaign(settings, load_seeds(settings).seeds, database)


def forked(database: Path, name: str, at: int | str, *overrides: str, **given: Any) -> CampaignReport:
    """Fork and run; `scorer` picks where the recipe wants it."""
    scorer = given.pop("scorer", None)
    settings, seeds, trunks = fork_of(database, name, str(at), overrides=overrides, **given)
    return run_campaign(settings, seeds, database, trunks=trunks, scorer=scorer)


def dialogues(database: Path, campaign: str, **wanted: str) -> list[dict[str, Any]]:
    """The dialogues of a campaign, by its name, with their texts."""
    rows = query(
        database,
        """
        SELECT dialogues.*, messages FROM dialogues JOIN transcripts USING (dialogue_id)
        WHERE dialogues.campaign_id IN (SELECT campaign_id FROM campaigns WHERE name = ?) ORDER BY dialogue_id
        """,
        [campaign],
    )
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def roles(dialogue: dict[str, Any]) -> list[str]:
    return [message["role"] for message in dialogue["messages"]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("played") / "corpus.duckdb"
    run(rehearsed(), path)
    return path


@pytest.fixture
def database(played: Path, tmp_path: Path) -> Path:
    """A corpus of one's own with two plain dialogues of three answers."""
    return Path(shutil.copy(played, tmp_path / "corpus.duckdb"))


@pytest.fixture
def original(database: Path) -> dict[str, Any]:
    return dialogues(database, "first")[0]


@pytest.mark.parametrize(("at", "calls"), [(0, 5), (1, 4), (2, 3), (4, 1)])
def test_a_fork_shares_the_trunk_and_goes_on_to_the_same_length(
    database: Path, original: dict[str, Any], at: int, calls: int
) -> None:
    report = forked(database, original["dialogue_id"], at, "models.assistant.model=rehearsal/careless")
    assert (report.done, report.calls_sent) == (1, calls), "the assistant after a user's turn, the user after an answer"
    (fork,) = dialogues(database, "first-fork")
    assert fork["turn_ids"][: at + 1] == original["turn_ids"][: at + 1]
    assert not set(fork["turn_ids"][at + 1 :]) & set(original["turn_ids"])
    assert (fork["forked_from"], fork["seed_id"]) == (original["dialogue_id"], original["seed_id"])
    assert (fork["n_turns"], len(fork["turn_ids"]), fork["branch"]) == (3, 6, "main")
    assert roles(fork) == ["user", "assistant"] * 3
    turns = query(database, "SELECT turn_id, parent_id, depth FROM turns WHERE campaign_id = ?", [fork["campaign_id"]])
    assert {turn["turn_id"] for turn in turns} == set(fork["turn_ids"][at + 1 :]), "no copies of the trunk"
    by_depth = {turn["depth"]: turn for turn in turns}
    assert [by_depth[depth]["parent_id"] for depth in range(at + 1, 6)] == fork["turn_ids"][at:-1]


def test_the_same_fork_has_the_same_ids_and_pays_nothing_twice(database: Path, original: dict[str, Any]) -> None:
    first = forked(database, original["dialogue_id"], 2)
    again = forked(database, original["dialogue_id"], 2)
    assert (again.campaign_id, again.calls_sent) == (first.campaign_id, 0)
    elsewhere = [
        forked(database, original["dialogue_id"], 1).campaign_id,
        forked(database, dialogues(database, "first")[1]["dialogue_id"], 2).campaign_id,
        forked(database, original["dialogue_id"], 2, turns=1).campaign_id,
    ]
    assert len({first.campaign_id, *elsewhere}) == 4, "where it forks is part of what a fork is"


def test_a_fork_that_was_stopped_goes_on(database: Path, original: dict[str, Any]) -> None:
    stopped = forked(database, original["dialogue_id"], 1, "budget.calls=2")
    assert (stopped.done, stopped.calls_sent) == (0, 2)
    gone_on = forked(database, original["dialogue_id"], 1, "budget.calls=9")
    assert (gone_on.campaign_id, gone_on.done) == (stopped.campaign_id, 1)
    assert (gone_on.calls_sent, gone_on.calls_reused) == (2, 2)


def test_a_campaign_that_is_no_fork_keeps_its_id() -> None:
    settings = rehearsed()
    prompts = prompts_of(settings)
    plain = identify(
        name="first",
        recipe="dialogue",
        random_seed=0,
        turns=3,
        perturb=None,
        models={role: model.sampling() for role, model in models_in_use(settings).items()},
        prompt_hashes=prompts.hashes,
    )
    assert campaign_identity(settings, prompts) == plain
    fork = CampaignSettings.model_validate(settings.model_dump() | {"fork": {"of": "dlg_1", "at": 1}})
    assert campaign_identity(fork, prompts) != plain


@pytest.mark.parametrize("place", [0, 3])
def test_a_fork_replays_and_can_be_forked_in_its_turn(database: Path, original: dict[str, Any], place: int) -> None:
    forked(database, original["dialogue_id"], 3, called="second", turns=2)
    (second,) = dialogues(database, "second")
    assert (second["n_turns"], len(second["turn_ids"])) == (4, 8), "two answers more than the two that it begins with"
    forked(database, second["dialogue_id"], 2 + place, called="third")
    (third,) = dialogues(database, "third")
    assert third["turn_ids"][: 3 + place] == second["turn_ids"][: 3 + place]
    assert (third["forked_from"], third["n_turns"]) == (second["dialogue_id"], 4)
    for name in ("second", "third"):
        report = replay(database, name)
        assert report.equal, report_lines(report)
        assert (report.rows["dialogues"], report.sent) == (1, 0)


def test_a_rebuilt_fork_has_the_turns_that_it_shares(database: Path, original: dict[str, Any], tmp_path: Path) -> None:
    forked(database, original["dialogue_id"], 3)
    out = tmp_path / "again.duckdb"
    assert replay(database, "first-fork", out=out).equal
    assert dialogues(out, "first-fork") == dialogues(database, "first-fork")


def test_answers_after_the_fork_are_perturbed_and_those_before_it_are_not(
    database: Path, original: dict[str, Any]
) -> None:
    forked(database, original["dialogue_id"], 2, "perturb.kinds=[context_hallucination]", "perturb.schedule=every")
    (fork,) = dialogues(database, "first-fork")
    rows = query(
        database,
        "SELECT depth FROM perturbations JOIN turns USING (turn_id) WHERE dialogue_id = ? ORDER BY 1",
        [fork["dialogue_id"]],
    )
    assert [row["depth"] for row in rows] == [3, 5]
    assert replay(database, "first-fork").equal


def test_several_trials_are_several_ways_on_from_one_trunk(database: Path, original: dict[str, Any]) -> None:
    report = forked(database, original["dialogue_id"], 3, "trials=3", "models.user.params={early_end_rate: 0.5}")
    ways = dialogues(database, "first-fork")
    assert (report.done, len({way["dialogue_id"] for way in ways})) == (3, 3)
    assert {tuple(way["turn_ids"][:4]) for way in ways} == {tuple(original["turn_ids"][:4])}
    assert len({turn for way in ways for turn in way["turn_ids"][4:]}) == sum(len(way["turn_ids"]) - 4 for way in ways)


@pytest.mark.chain
def test_a_whole_campaign_is_forked_where_its_dialogues_get_as_far(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    run(rehearsed(turns={"weights": {1: 1, 4: 1}}, trials=2, seeds={"format": "rehearsal", "limit": 4}), database)
    long = [one for one in dialogues(database, "first") if one["n_turns"] == 4]
    assert 0 < len(long) < 8
    report = forked(database, "first", 3)
    forks = dialogues(database, "first-fork")
    assert report.done == len(forks) == len(long)
    assert {(one["forked_from"], one["seed_id"], one["trial"]) for one in forks} == {
        (one["dialogue_id"], one["seed_id"], one["trial"]) for one in long
    }
    assert {one["n_turns"] for one in forks} == {4}
    assert forked(database, "first", 3).calls_sent == 0
    assert replay(database, "first-fork").equal
    with pytest.raises(ForkError, match="forked once"):
        forked(database, "first", 3, "trials=5")


def test_a_failed_dialogue_goes_on_after_what_failed(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    with scripted_server("an answer", "a question", failure(400, "no")) as server:
        models = {"default": {"model": "hosted_vllm/x", "api_base": server.url, "attempts": 1}}
        run(rehearsed(models=models, seeds={"format": "rehearsal", "limit": 1}), database)
    (broken,) = dialogues(database, "first")
    assert (broken["status"], roles(broken)) == ("failed", ["user", "assistant", "user"])
    forked(database, broken["dialogue_id"], 2, "models.default.model=rehearsal/default")
    (fork,) = dialogues(database, "first-fork")
    assert (fork["status"], fork["n_turns"]) == ("done", 3), "as many answers as it was started for"
    assert fork["turn_ids"][:3] == broken["turn_ids"]


@pytest.mark.parametrize(("branch", "perturbed"), [("chosen", 0), ("rejected", 2)])
def test_either_branch_of_a_pair_can_be_forked(tmp_path: Path, branch: str, perturbed: int) -> None:
    database = tmp_path / "corpus.duckdb"
    run(rehearsed(recipe="music", perturb={"share": "trunk"}, judge_pairs=True), database)
    one = dialogues(database, "first", branch=branch)[0]
    forked(database, one["dialogue_id"], 2)
    (fork,) = dialogues(database, "first-fork")
    assert fork["turn_ids"][:3] == one["turn_ids"][:3]
    (found,) = query(database, "SELECT count(*) AS n FROM perturbations WHERE dialogue_id = ?", [fork["dialogue_id"]])
    assert found["n"] == perturbed, "a schedule goes on where the dialogue was perturbed"
    assert replay(database, "first-fork").equal


def test_a_fork_of_two_branches_makes_a_pair_from_one_trunk(database: Path, original: dict[str, Any]) -> None:
    report = forked(database, original["dialogue_id"], 2, "recipe=music", "judge_pairs=true")
    assert report.done == 2
    sides = dialogues(database, "first-fork")
    assert {tuple(side["turn_ids"][:3]) for side in sides} == {tuple(original["turn_ids"][:3])}
    assert len(set(sides[0]["turn_ids"]) & set(sides[1]["turn_ids"])) == 3
    assert {side["forked_from"] for side in sides} == {original["dialogue_id"]}
    (pair,) = preference_pairs(database, campaign="first-fork")
    assert (pair.n_turns, pair.first_divergent_turn) == (3, 2)
    assert [message.content for message in pair.chosen[:3]] == [
        message["content"] for message in original["messages"][:3]
    ]
    assert replay(database, "first-fork").equal


@pytest.mark.chain
@pytest.mark.parametrize(
    "overrides",
    [
        ["recipe=best_of_n", "candidates=2"],
        ["recipe=rmboost", "turns=2"],
        ["recipe=west_of_n", "turns=2"],
        ["recipe=capo", "turns=3"],
        ["recipe=music", "perturb.share=trunk"],
        ["recipe=music", "perturb.share=rest", "perturb.verify=true"],
    ],
)
def test_every_recipe_goes_on_from_a_trunk(database: Path, original: dict[str, Any], overrides: list[str]) -> None:
    letters = reward_model(lambda conversations: [len(messages[-1].content) / 7 for messages in conversations])
    picks = letters if "of_n" in overrides[0] else None
    report = forked(database, original["dialogue_id"], 3, *overrides, scorer=picks)
    assert report.failed == 0
    forks = dialogues(database, "first-fork")
    assert forks
    for fork in forks:
        assert fork["turn_ids"][:4] == original["turn_ids"][:4] or len(fork["turn_ids"]) < 4, (
            "a negative within the trunk"
        )
    own = query(database, "SELECT count(*) AS n FROM turns WHERE campaign_id = ? AND depth < 4", [report.campaign_id])
    assert own == [{"n": 0}], "no copies of the trunk"
    missing = query(
        database,
        "SELECT dialogue_id FROM (SELECT dialogue_id, unnest(turn_ids) AS turn_id FROM dialogues) ANTI JOIN turns USING (turn_id)",
    )
    assert missing == []
    again = replay(database, "first-fork")
    assert again.equal, report_lines(again)


def test_what_is_asked_of_a_fork_is_its_whole_conversation(database: Path, original: dict[str, Any]) -> None:
    forked(database, original["dialogue_id"], 3)
    (stats,) = query(database, "SELECT dialogues, turns, failed FROM campaign_stats WHERE name = 'first-fork'")
    assert (stats["dialogues"], stats["turns"], stats["failed"]) == (1, 3.0, 0)
    (row,) = stats_of_campaigns(str(database), "first-fork")
    assert (row.sessions, row.turns) == (1, 3.0)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("9", "has no turn 9 to go on from: --at takes 0 to 5"),
        ("5", "turn 5 of dlg_.* is its end.*--turns"),
        ("-1", "no turn of dlg_"),
        ("turn_", "more than one turn"),
        ("turn_zzz", "no turn"),
    ],
)
def test_a_turn_that_is_not_there_is_one_line(database: Path, original: dict[str, Any], at: str, message: str) -> None:
    with pytest.raises(ForkError, match=message):
        fork_of(database, original["dialogue_id"], at)


def test_a_turn_is_named_by_its_id_too_and_the_last_one_goes_on_with_turns(
    database: Path, original: dict[str, Any]
) -> None:
    by_id = fork_of(database, original["dialogue_id"], original["turn_ids"][3])
    assert by_id == fork_of(database, original["dialogue_id"], "3")
    assert by_id.settings.fork is not None
    assert by_id.settings.fork.at == 3
    forked(database, original["dialogue_id"], 5, turns=1)
    (fork,) = dialogues(database, "first-fork")
    assert roles(fork) == ["user", "assistant"] * 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recipe=[music, capo]"], "a fork is one campaign of one recipe"),
        (["turns=none"], "turns"),
        (["models.assistant.modle=x"], "modle"),
        (["recipe=capo", "capo.play=false"], "play: false"),
    ],
)
def test_settings_that_no_fork_can_have_are_refused(
    database: Path, original: dict[str, Any], overrides: list[str], message: str
) -> None:
    with pytest.raises((ForkError, ConfigError), match=message):
        fork_of(database, original["dialogue_id"], "2", overrides=overrides)


def test_a_fork_replays_while_the_original_is_to_be_played_again(database: Path, original: dict[str, Any]) -> None:
    forked(database, original["dialogue_id"], 2)
    with duckdb.connect(database) as connection:
        connection.execute("UPDATE dialogues SET status = 'open' WHERE dialogue_id = ?", [original["dialogue_id"]])
    assert replay(database, "first-fork").equal
    with pytest.raises(StoreError, match="has not ended"):
        fork_of(database, original["dialogue_id"], "2")


def test_an_imported_conversation_can_be_forked(tmp_path: Path) -> None:
    file, database = tmp_path / "chats.jsonl", tmp_path / "corpus.duckdb"
    messages = [{"role": role, "content": role} for role in ("user", "assistant") * 2]
    file.write_text(json.dumps({"messages": messages}) + "\n")
    import_file(str(file), database)
    with pytest.raises(ModelMissingError):
        forked(database, "chats", 1)
    forked(database, "chats", 1, "models.default.model=rehearsal/default")
    (fork,) = dialogues(database, "chats-fork")
    assert (fork["n_turns"], roles(fork)) == (2, ["user", "assistant"] * 2)
    assert replay(database, "chats-fork").equal


def test_run_does_not_take_what_fork_sets(tmp_path: Path) -> None:
    with pytest.raises(ForkMissingError, match="descant fork"):
        run(rehearsed(fork={"of": "dlg_1", "at": 1}), tmp_path / "corpus.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_a_config_is_laid_over_and_set_over_both(database: Path, original: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "variation.yaml"
    config.write_text("name: variation\nmodels: {user: {temperature: 0.1}, assistant: {temperature: 0.2}}\ngate: {}\n")
    found = fork_of(
        database, original["dialogue_id"], "2", config=str(config), overrides=["models.assistant.temperature=0.9"]
    ).settings
    assert (found.name, found.gate is not None, found.recipe) == ("variation", True, "dialogue")
    assert [found.models.of(role).temperature for role in ("user", "assistant")] == [0.1, 0.9]
    assert fork_of(database, original["dialogue_id"], "2", called="mine").settings.name == "mine"


OLD: dict[str, Any] = {
    "default": {"model": "openai/a", "api_key": "env:OLD", "params": {"x": 1}},
    "user": {"model": "openai/b", "api_base": "https://old.example/v1", "api_key": "env:OLD", "temperature": 0.5},
    "judges": [{"model": "openai/c", "api_key": "env:OLD"}, {"model": "openai/d", "api_key": "env:OLD"}],
}


@pytest.mark.parametrize(
    ("overrides", "role", "left"),
    [
        (["models.user.model=hosted_vllm/x"], "user", {"model": "hosted_vllm/x", "temperature": 0.5}),
        (["models.user.checkpoint=fits/x"], "user", {"checkpoint": "fits/x", "temperature": 0.5}),
        (
            ["models.user.api_base=http://new.example/v1"],
            "user",
            {"model": "openai/b", "api_base": "http://new.example/v1", "temperature": 0.5},
        ),
        (["models.user.temperature=0.1"], "user", {**OLD["user"], "temperature": 0.1}),
        (["models.default.model=rehearsal/default"], "default", {"model": "rehearsal/default"}),
        (["models.judges.1.model=openai/e"], "judges", [OLD["judges"][0], {"model": "openai/e"}]),
    ],
)
def test_a_key_never_travels_to_another_endpoint(overrides: list[str], role: str, left: Any) -> None:
    found = laid_over({"models": json.loads(json.dumps(OLD))}, None, overrides=overrides)["models"]
    assert found[role] == left
    assert {key: value for key, value in found.items() if key != role} == {k: v for k, v in OLD.items() if k != role}


def test_the_command_forks_tells_and_shows_the_places(database: Path, original: dict[str, Any]) -> None:
    runner, descant = CliRunner(), build()
    shown = runner.invoke(descant, ["show", original["dialogue_id"], "--db", str(database)]).output
    assert "\n3 assistant\n" in shown
    arguments = ["fork", original["dialogue_id"], "--at", "3", "--db", str(database), "--quiet"]
    result = runner.invoke(descant, arguments)
    assert result.exit_code == 0, result.output
    (fork,) = dialogues(database, "first-fork")
    assert f"fork       goes on from turn 3 of {original['dialogue_id']}" in result.output
    assert fork["dialogue_id"] in result.output
    shown = runner.invoke(descant, ["show", fork["dialogue_id"], "--db", str(database)]).output
    assert f"shares its first 4 turns with {original['dialogue_id']}" in shown
    as_json = json.loads(runner.invoke(descant, [*arguments, "--json"]).output)
    assert (as_json["done"], as_json["calls_sent"]) == (1, 0)


def test_a_limit_forks_the_first_seeds_and_more_may_follow(database: Path) -> None:
    settings, seeds, trunks = fork_of(database, "first", "2", limit=1)
    assert len(seeds) == len(trunks) == 1
    first = run_campaign(settings, seeds, database, trunks=trunks)
    assert (first.done, first.seeds) == (1, 1)
    whole = forked(database, "first", 2)
    assert (whole.campaign_id, whole.done, whole.seeds) == (first.campaign_id, 2, 2)
    asked = CliRunner().invoke(build(), ["fork", "first", "--at", "2", "--limit", "0", "--db", str(database)])
    assert asked.exit_code == 2
