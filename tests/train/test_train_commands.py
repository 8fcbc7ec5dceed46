"""`fit`, `score` and `evaluate` from the command line, on files and on a corpus."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from configs.errors import DescantError
from configs.fit_settings import RewardFitSettings
from store import identity
from store.database import query
from store.records import Campaign, Dialogue, Pair, PreferencePair, Record, Seed, Turn
from store.writer import write_through
from tests.train.conftest import MakePairs
from train.commands import evaluate, fit, score
from train.errors import TrainError
from train.reward import fit_reward

TINY = [
    "model=tiny", "steps=6", "batch_size=8", "max_length=128",
    "tiny={hidden_size: 32, intermediate_size: 64, layers: 1, heads: 2, kv_heads: 1, vocab_size: 400}",
]  # fmt: skip


def write_corpus(path: Path, pairs: Sequence[PreferencePair], *, name: str = "toy", camp: str = "camp_a") -> None:
    """The pairs as dialogues of a campaign."""
    now = datetime(2026, 11, 20, tzinfo=UTC)
    rows: list[Record] = [
        Campaign(
            campaign_id=camp, name=name, recipe="music", config={}, config_hash="x", version="0", status="done",
            created_at=now,
        )
    ]  # fmt: skip
    for pair in pairs:
        seed = f"seed_{pair.pair_id}"
        rows.append(Seed(seed_id=seed, source="toy", messages=pair.chosen[:1], split=pair.split))  # type: ignore[arg-type]
        ids = {}
        for branch, messages in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            ids[branch] = dialogue = identity.dialogue_id(camp, seed, branch, 0)
            turn_ids: list[str] = []
            for depth, message in enumerate(messages):
                parent = turn_ids[-1] if turn_ids else None
                turn_ids.append(identity.turn_id(parent, dialogue, depth))
                rows.append(
                    Turn(
                        turn_id=turn_ids[-1], parent_id=parent, campaign_id=camp, seed_id=seed, depth=depth,
                        role=message.role, content=message.content, agent=message.role, call_id=None,
                    )
                )  # fmt: skip
            rows.append(
                Dialogue(
                    dialogue_id=dialogue, campaign_id=camp, seed_id=seed, branch=branch, trial=0, prompt_hashes={},  # type: ignore[arg-type]
                    turn_ids=tuple(turn_ids), n_turns=pair.n_turns, status="done", termination_reason="max_turns",
                )
            )  # fmt: skip
        rows.append(
            Pair(
                pair_id=pair.pair_id, campaign_id=camp, method="music", chosen_id=ids["chosen"],
                rejected_id=ids["rejected"], first_divergent_turn=1, n_contrast_turns=1, label_source="construction",
                intended_label="chosen", split=pair.split,  # type: ignore[arg-type]
            )
        )  # fmt: skip
    write_through(path, rows)


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)  # type: ignore[arg-type]


def fit_tiny(out: Path, *arguments: object) -> Result:
    overrides = [part for setting in [*TINY, f"out={out}"] for part in ("--set", setting)]
    return run(fit, "reward", "reward-tiny", *overrides, "--quiet", *arguments)


def test_a_corpus_is_trained_on_scored_and_evaluated_and_keeps_it_all(make_pairs: MakePairs, tmp_path: Path) -> None:
    db, out = tmp_path / "corpus.duckdb", tmp_path / "fit"
    write_corpus(db, make_pairs(40, turns=2))
    done = fit_tiny(out, "--db", db)
    assert "24 kept, 0 dropped" in done.stdout
    assert "is done already" in fit_tiny(out, "--db", db).stdout
    assert "80 conversations scored" in run(score, db, "--model", out).stdout
    plot = tmp_path / "accuracy.svg"
    figures = json.loads(run(evaluate, "pairs", "--model", out, "--db", db, "--json", "--plot", plot).stdout)
    assert figures["rows"][0]["n"] == 8
    assert plot.exists()
    run(evaluate, "pairs", "--model", out, "--db", db, "--by", "n_turns", "--by", "method", "--by", "kind")
    (crossed,) = query(db, "SELECT n, low, high FROM metrics WHERE name = 'test_accuracy' AND slice LIKE '%,%'")
    assert crossed["n"] == 8
    assert crossed["low"] < crossed["high"]
    slices = query(db, "SELECT DISTINCT slice FROM metrics WHERE name LIKE 'test_accuracy%' ORDER BY slice")
    assert [row["slice"] for row in slices] == [
        "all", "first_divergent_turn=1", "n_turns=2", "n_turns=2,method=music,kind=none",
    ]  # fmt: skip

    (row,) = query(db, "SELECT fit_id, status, checkpoint, data_card FROM fits")
    assert (row["status"], row["checkpoint"]) == ("done", str(out / "model"))
    counts = query(db, "SELECT fit_id, count(*) AS n, count(DISTINCT dialogue_id) AS d FROM scores GROUP BY fit_id")
    assert counts == [{"fit_id": row["fit_id"], "n": 80, "d": 80}]
    names = {line["name"] for line in query(db, "SELECT DISTINCT name FROM metrics WHERE fit_id = ?", [row["fit_id"]])}
    assert {"loss", "accuracy", "test_accuracy", "test_accuracy_bag_of_words"} <= names


def test_files_are_trained_on_scored_and_evaluated_without_a_corpus(make_pairs: MakePairs, tmp_path: Path) -> None:
    data, out, scores = tmp_path / "pairs.jsonl", tmp_path / "fit", tmp_path / "scores.jsonl"
    lines = [
        {side: [m.model_dump() for m in talk] for side, talk in (("chosen", p.chosen), ("rejected", p.rejected))}
        for p in make_pairs(90)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = json.loads(fit_tiny(out, "--set", f"data.path={data}", "--json").stdout)
    assert result["model_dir"] == str(out / "model")
    run(score, data, "--model", out, "--out", scores)
    rewards = [json.loads(line) for line in scores.read_text("utf-8").splitlines()]
    assert len(rewards) == 180
    assert [row["id"] for row in rewards[:3]] == ["1/chosen", "1/rejected", "2/chosen"]
    talks = tmp_path / "talks.jsonl"
    talks.write_text(json.dumps({"id": "t", "messages": lines[0]["chosen"]}) + "\n", encoding="utf-8")
    (alone,) = [json.loads(line) for line in run(score, talks, "--model", out).stdout.splitlines()]
    assert alone["id"] == "t"
    talks.write_text(json.dumps({"messages": lines[0]["chosen"][:1]}) + "\n", encoding="utf-8")
    unanswered = run(score, talks, "--model", out, "--db", tmp_path / "corpus.duckdb")
    assert unanswered.stderr == "1 of 1 conversations end on a user turn, without an answer\n"
    assert [row["dialogue_id"] for row in query(tmp_path / "corpus.duckdb", "FROM scores")] == ["talks.jsonl:1"]
    assert any(row["reward"] == pytest.approx(alone["reward"], abs=1e-5) for row in rewards)
    assert "bag of words" in run(evaluate, "pairs", "--model", out, "--data", data, "--split", "validation").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "{data}", "--model", "{tmp}/absent"), "no model in"),
        (("score", "{tmp}/absent.jsonl", "--model", "{tmp}"), "no file"),
        (("score", "{data}", "--model", "{tmp}"), "no config.json"),
        (("evaluate", "pairs", "--model", "{tmp}", "--db", "{tmp}/absent.duckdb"), "absent.duckdb"),
        (("evaluate", "pairs", "--model", "{tmp}", "--data", "{data}", "--plot", "a.gif"), "a .png or .svg"),
        (("fit", "reward", "no-such-preset"), "no preset or file"),
        (("fit", "reward", "reward-tiny", "--set", "learnig_rate=1"), "did you mean 'learning_rate'"),
        (("fit", "reward", "reward-tiny", "--set", "data.path={tmp}/absent.jsonl"), "no file"),
    ],
)
def test_a_users_mistake_is_one_clear_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    data = tmp_path / "talks.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "Hi."}]}\n', encoding="utf-8")
    verb, *rest = (argument.format(tmp=tmp_path, data=data) for argument in arguments)
    with pytest.raises(DescantError, match=message) as mistake:
        run({"fit": fit, "score": score, "evaluate": evaluate}[verb], *rest)
    assert mistake.value.exit_code == 2
    assert "\n" not in str(mistake.value)


def test_a_refused_fit_leaves_no_folder_that_blocks_the_mended_one(tmp_path: Path) -> None:
    def conversation(number: int, answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"Hi, {number}."}, {"role": "assistant", "content": answer}]

    rows = [{"chosen": conversation(n, "yes"), "rejected": conversation(n, "no"), "source": "toy"} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model": "tiny",
        "steps": 2,
        "out": str(tmp_path / "fit"),
        "data": {"path": str(tmp_path / "pairs.jsonl")},
    }
    with pytest.raises(TrainError, match="longer than max_length"):
        fit_reward(RewardFitSettings.model_validate(settings | {"max_length": 8}))
    assert not (tmp_path / "fit").exists()
    assert fit_reward(RewardFitSettings.model_validate(settings)).steps == 2


def language_fit(objective: str, out: Path, *arguments: object) -> Result:
    overrides = [part for setting in [*TINY, f"out={out}"] for part in ("--set", setting)]
    return run(fit, objective, f"{objective}-tiny", *overrides, "--quiet", *arguments)


def test_a_user_an_assistant_and_preferences_are_trained_from_a_corpus_that_keeps_the_fits(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    db = tmp_path / "corpus.duckdb"
    pairs = make_pairs(40, turns=2)
    write_corpus(db, pairs)
    asked = language_fit("ask", tmp_path / "ask", "--db", db)
    assert "ask-tiny (fit_" in asked.output
    assert "Train conversations: 23 kept, 0 dropped; loss on " in asked.output
    assert f"Left out before: {40 - len({pair.chosen for pair in pairs})} repeated." in asked.output
    assert "Validation loss: " in asked.output
    answered = language_fit("sft", tmp_path / "sft", "--db", db, "--set", "turns=1", "--json")
    assert json.loads(answered.output)["data_card"]["splits"]["train"]["kept"] == 23
    preferred = language_fit("dpo", tmp_path / "dpo", "--db", db, "--set", f"model={tmp_path / 'sft'}")
    assert "Train pairs: 24 kept, 0 dropped; 24 chosen sides." in preferred.output
    assert "As trees: " in preferred.output
    assert "chosen wins " in preferred.output
    assert "is done already" in language_fit("ask", tmp_path / "ask", "--db", db).output
    fits = query(db, "SELECT objective, status, checkpoint FROM fits ORDER BY objective")
    assert [(row["objective"], row["status"]) for row in fits] == [("ask", "done"), ("dpo", "done"), ("sft", "done")]
    names = {row["name"] for row in query(db, "SELECT DISTINCT name FROM metrics WHERE slice = 'validation'")}
    assert names == {"loss", "perplexity", "accuracy", "margin"}


def test_a_file_named_with_data_is_learned_from_and_its_bad_rows_are_told(tmp_path: Path) -> None:
    rows: list[object] = [{"data": [f"What is {n}?", "A number."]} for n in range(20)]
    (tmp_path / "sessions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], {"data": []}]))
    with pytest.raises(
        DescantError, match=r"sessions\.jsonl:22: data is an empty list; .* with --set data\.skip_bad=true"
    ):
        language_fit("ask", tmp_path / "ask", "--data", tmp_path / "sessions.jsonl")
    told = language_fit(
        "ask", tmp_path / "ask", "--data", tmp_path / "sessions.jsonl", "--set", "data.skip_bad=true"
    ).output
    assert "Left out before: 1 skipped, 1 repeated." in told
    with pytest.raises(DescantError, match="objective: input should be 'ask'"):
        run(fit, "ask", "sft-tiny")
