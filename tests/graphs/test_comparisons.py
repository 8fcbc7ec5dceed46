"""`descant run` with a list of recipes: nothing is paid before all of them are sound, and one budget is for all."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import descant
from store.database import query

BASE = """
name: four
recipe: [rmboost, rlcd]
seeds: {format: rehearsal, world: lists, limit: 8}
models: {assistant: {model: rehearsal/varied}}
"""


def run(folder: Path, *sets: str, text: str = BASE) -> Result:
    (folder / "config.yaml").write_text(text)
    words = ["run", str(folder / "config.yaml"), "--db", str(folder / "corpus.duckdb"), "--quiet", "--json"]
    return CliRunner().invoke(descant.build(), [*words, *(part for one in sets for part in ("--set", one))])


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["recipe=[rmboost, west_of_n]"], "west_of_n picks by a reward model: set scorer.model"),
        (["recipe=[rmboost, west_of_n]", "scorer.model=fits/nobody"], "no model in 'fits/nobody'"),
        (["recipe=[rmboost, rlaif]", "models.judges=[{model: rehearsal/nobody}]"], "unknown rehearsal model"),
    ],
)
def test_what_is_wrong_with_the_last_recipe_is_told_before_the_first_one_plays(
    tmp_path: Path, sets: list[str], message: str
) -> None:
    done = run(tmp_path, *sets)
    assert done.exception is not None
    assert message in str(done.exception)
    assert not (tmp_path / "corpus.duckdb").exists()


def test_one_budget_is_for_all_whichever_of_them_paid_before(tmp_path: Path) -> None:
    def reports(done: Result) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    first = run(tmp_path)
    assert first.exit_code == 0, first.output
    paid = sum(report["calls_sent"] for report in reports(first))
    more = run(tmp_path, "seeds.limit=9", f"budget.calls={paid}")  # both have paid: the first has nothing left either
    assert more.exit_code == 1
    (stopped,) = reports(more)
    assert (stopped["name"], stopped["calls_sent"]) == ("four-rmboost", 0)
    (row,) = query(tmp_path / "corpus.duckdb", "SELECT count(*) AS n FROM calls WHERE status = 'done'")
    assert row["n"] == paid
    assert run(tmp_path, "seeds.limit=9").exit_code == 0
