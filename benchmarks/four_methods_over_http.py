"""RMBoost and its rivals over HTTP, all four into one corpus: campaigns, a reward model, judges, the report, one query.

    .venv/bin/python -m benchmarks.four_methods_over_http --seeds mtbench101.jsonl --server rehearsal
    .venv/bin/python -m benchmarks.four_methods_over_http --seeds mtbench101.jsonl --server vllm --limit 20

`rehearsal` is `descant serve rehearsal`; `vllm` is vLLM's server with a tiny model, trained on the rehearsal's answers to such
prompts so that its own end, and held to the schemas of the prompts by the server. Everything else is `descant` as people run it. On
real seeds neither model's text says anything: what is shown is that the chain runs and that every row is kept.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import tiny_vllm
from benchmarks.kill_and_resume import serve_rehearsal
from benchmarks.shown import Shown
from configs.model_settings import Endpoint

POSITIONS = 8192
LEARNED_FROM = 500
"""Conversations that the tiny model sees."""
OF_SERVER = {"rehearsal": ["seeds.cut=last_user"], "vllm": ["pairing.redraws=4"]}
"""The prompts keep their history where the model can read so much; a judge that is noise seldom says the same in both orders."""
TABLES = ("seeds", "dialogues", "turns", "labels", "perturbations", "calls", "caught", "pairs", "judgements", "scores")
COUNTS = " UNION ALL ".join(f"SELECT '{table}' AS kept, count(*) AS n FROM {table}" for table in TABLES)
PRICES = "{input_cost_per_token: 1e-7, output_cost_per_token: 4e-7}"
"""Made up, so that costs are seen."""
COMPARED = "SELECT method, pairs, calls_a_pair, cost_usd_a_pair, judged_noise, self_rouge, chosen_longer FROM pair_report ORDER BY 1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", required=True, help="a file of conversations")
    parser.add_argument("--server", choices=("rehearsal", "vllm"), default="rehearsal")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60, help="of the reward model that West-of-N goes by")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, seeds = Path(name), Path(arguments.seeds)
        hidden = {str(folder): ".", str(seeds.resolve()): seeds.name}
        with _served(arguments.server, folder, str(seeds.resolve()), Shown(hidden)) as server:
            shown = Shown(hidden | {server.api_base: "http://127.0.0.1:PORT/v1"})
            _chain(shown, folder, server, arguments)


def _chain(shown: Shown, folder: Path, server: Endpoint, arguments: argparse.Namespace) -> None:
    corpus, model = str(folder / "corpus.duckdb"), f"models.default.api_base={server.api_base}"
    sets = [f"models.default.model={server.litellm_model}", model]
    judges = (
        sets
        if arguments.server == "rehearsal"
        else [
            *sets,
            "models.default.max_tokens=400",
            "models.default.json_schema=true",
            "models.default.temperature=2.0",
        ]
    )
    if arguments.server == "rehearsal":
        sets = [
            *sets,
            f"models.default.params={PRICES}",
            f"models.assistant.params={{mistake_rate: 0.3, omission_rate: 0.3, {PRICES[1:]}",
        ]
    else:
        sets = [
            *sets,
            "models.default.json_schema=true",
            "models.default.max_tokens=900",
            "models.judges=[{temperature: 2.0}]",
        ]
    play = [*sets, f"seeds.limit={arguments.limit}", "name=http", *OF_SERVER[arguments.server]]
    boost = ["pairing.boost.longest=4.0"] if arguments.server == "vllm" else []  # so that a schema ends its answers
    seeds = ["--seeds", str(Path(arguments.seeds).resolve())]
    run, db = shown.run, ["--db", corpus]
    run("run", "compare", *seeds, *db, sets=["recipe=[rmboost, rlaif, rlcd]", *play, *boost], progress=True)
    own = [f"steps={arguments.steps}", f"out={folder / 'rm'}", "max_length=4096"]
    run("fit", "reward", "reward-tiny", *db, sets=own, progress=True)
    scorer = f"scorer.model={folder / 'rm'}"
    run("run", "compare", *seeds, *db, sets=["recipe=[west_of_n]", scorer, *play], progress=True)
    run("judge", "pairwise", *db, sets=judges, progress=True)
    run("report", *db)
    for query in (COMPARED, COUNTS):
        run("sql", query, *db)


@contextmanager
def _served(kind: str, folder: Path, seeds: str, shown: Shown) -> Iterator[Endpoint]:
    if kind == "rehearsal":
        with serve_rehearsal(folder, 0.0) as server:
            yield server
        return
    corpus, model = str(folder / "plain.duckdb"), folder / "answers"
    plain = ["models.default.model=rehearsal/varied", "turns=1", f"seeds.limit={LEARNED_FROM}"]
    shown.run("run", "dialogue", "--seeds", seeds, "--db", corpus, sets=plain, progress=True)
    learned = ["steps=300", f"max_length={POSITIONS}", f"out={model}"]
    shown.run("fit", "sft", "sft-tiny", "--db", corpus, sets=learned, progress=True)
    with tiny_vllm.serve(model / "model", log=folder / "vllm.log") as server:
        yield server


if __name__ == "__main__":
    main()
