"""MUSIC's whole chain over HTTP: campaign, verification, two judges, a tiny reward model, Best-of-N, cost by agent.

    .venv/bin/python -m benchmarks.music_over_http --seeds mtbench101.jsonl --limit 60
    .venv/bin/python -m benchmarks.music_over_http --limit 200            the rehearsal's own seeds

`descant serve rehearsal` answers in OpenAI's protocol; everything else is `descant` as people run it, into one corpus.
Each command and what it printed goes to stdout. On real seeds the rehearsal's text says nothing: what is shown is that
the chain runs and that every row is kept.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.kill_and_resume import serve_rehearsal
from benchmarks.shown import Shown

TABLES = ("seeds", "dialogues", "turns", "perturbations", "calls", "pairs", "judgements", "fits", "metrics", "scores")
COUNTS = " UNION ALL ".join(f"SELECT '{table}' AS kept, count(*) AS n FROM {table}" for table in TABLES)
COSTS = "SELECT agent, model, sum(calls) AS calls, sum(prompt_tokens + completion_tokens) AS tokens, sum(cost_usd) AS cost_usd FROM usage_by_agent GROUP BY ALL ORDER BY ALL"
BETWEEN = "SELECT label_set, rubric, judge, verdict, count(*) AS n FROM judgements GROUP BY ALL ORDER BY ALL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", help="a file of seeds; the rehearsal's own without it")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="of reward model A; B takes a quarter")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serve_rehearsal(Path(name), 0.0) as server:
        folder = Path(name)
        prices = "{input_cost_per_token: 1e-7, output_cost_per_token: 4e-7}"
        model = [
            f"models.default.model=hosted_vllm/{server.model}",
            f"models.default.api_base={server.api_base}",
            "models.judges=[{}, {params: {judge_error_rate: 0.2}}]",
            f"models.default.params={prices}",
        ]
        seeds = ["seeds.format=rehearsal"]
        if arguments.seeds:
            seeds = ["seeds.format=auto", f"seeds.path={Path(arguments.seeds).resolve()}"]
        play = [*model, *seeds, f"seeds.limit={arguments.limit}", f"turns={arguments.turns}"]
        careless = {"model": "hosted_vllm/careless", "api_base": server.api_base, "params": prices}
        best = [*play, *(f"models.assistant.{key}={value}" for key, value in careless.items())]

        seeds_file = Path(arguments.seeds or "-")
        hidden = {
            str(folder): ".",
            str(seeds_file.resolve()): seeds_file.name,
            server.api_base: "http://127.0.0.1:PORT/v1",
        }
        run = Shown(hidden).run
        corpus = str(folder / "corpus.duckdb")
        run("run", "music", "--db", corpus, sets=play, progress=True)
        run("judge", "pairwise", "--db", corpus, sets=model, progress=True)
        for side, steps in (("a", arguments.steps), ("b", max(1, arguments.steps // 4))):
            own = [f"name={side}", f"steps={steps}", f"out={folder / side}"]
            run("fit", "reward", "reward-tiny", "--db", corpus, sets=own, progress=True)
        sides = [word for side in "ab" for word in ("--model", str(folder / side))]
        run(
            "evaluate",
            "best-of-n",
            "best-of-n-rehearsal",
            *sides,
            "--db",
            corpus,
            "--candidates",
            "2,4",
            sets=best,
            progress=True,
        )
        for query in (BETWEEN, COUNTS, COSTS):
            run("sql", query, "--db", corpus)


if __name__ == "__main__":
    main()
