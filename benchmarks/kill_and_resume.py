"""The main job on real seeds over HTTP: uninterrupted, and killed halfway and resumed, side by side.

    .venv/bin/python -m benchmarks.kill_and_resume --seeds mtbench101.jsonl --server vllm
    .venv/bin/python -m benchmarks.kill_and_resume --seeds mtbench101.jsonl --server rehearsal

A `music` campaign runs twice with `descant run`, each into a corpus of its own: once from end to end, once
ended by SIGKILL when half of its calls are done and started again by the same command. Printed are counts and
whether ids are equal, table by table; contents too with `--server rehearsal`, whose answers depend on the request
alone (vLLM's do not: floating-point sums change with the batch). Then the pairs are exported and a reward model is
fitted on them. Against vLLM the text is noise; everything around it is what is shown.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.tiny_vllm import make_tiny_causal_lm
from benchmarks.tiny_vllm import serve as serve_vllm
from configs.model_settings import Endpoint
from store.database import query

IDS = {
    "seeds": "seed_id",
    "dialogues": "dialogue_id",
    "turns": "turn_id",
    "perturbations": "perturbation_id",
    "judgements": "judgement_id",
    "pairs": "pair_id",
    "calls": "call_id",
}
WHEN_OR_WHERE = {"created_at", "latency_ms", "attempts"}
"""Columns that tell how a call went, not what was said."""


@contextmanager
def serve_rehearsal(folder: Path, latency_ms: float) -> Iterator[Endpoint]:
    """`descant serve rehearsal`, with a log of all requests."""
    command = [sys.executable, "-m", "descant", "serve", "rehearsal", "--port", "0", "--latency", str(latency_ms)]
    with subprocess.Popen(
        [*command, "--log", str(folder / "requests.jsonl")], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                found = re.search(r"http://127\.0\.0\.1:\d+(/v1)?", line)
                if found:
                    yield Endpoint(found.group(0).removesuffix("/v1") + "/v1", "default")
                    break
        finally:
            process.terminate()


def command_of(database: Path, seeds: Path, server: Endpoint, arguments: argparse.Namespace) -> list[str]:
    settings = {
        "models.default.model": f"hosted_vllm/{server.model}",
        "models.default.api_base": server.api_base,
        "models.default.max_tokens": arguments.max_tokens,
        "turns": arguments.turns,
        "concurrency": arguments.concurrency,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    run = [sys.executable, "-m", "descant", "run", "music", "--seeds", str(seeds), "--db", str(database)]
    return [*run, "--limit", str(arguments.limit), "--json", *sets]


def run_to_the_end(command: list[str]) -> dict[str, object]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, object] = json.loads(done.stdout)
    return report


def kill_halfway(command: list[str], database: Path, calls: int) -> int:
    """SIGKILL once the journal holds `calls` finished calls; how many it held then."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None and calls_done(database) < calls:
            time.sleep(0.2)
        if process.poll() is not None:
            raise SystemExit("the campaign ended before it could be killed: take more seeds")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return calls_done(database)


def calls_done(database: Path) -> int:
    """Finished calls in the corpus as another process sees it."""
    if not database.exists():
        return 0
    return int(query(database, "SELECT count(*) AS n FROM calls WHERE status = 'done'")[0]["n"])


def compare(whole: Path, resumed: Path, *, contents: bool) -> bool:
    """Print both corpora table by table; whether they agree."""
    agree = True
    print(f"\n{'table':<14} {'uninterrupted':>13} {'resumed':>8}  ids      {'contents' if contents else ''}")
    for table, key in IDS.items():
        sql = f"SELECT * FROM {'requests' if table == 'calls' else table} ORDER BY {key}"
        rows = [query(database, sql) for database in (whole, resumed)]
        ids = [[row[key] for row in side] for side in rows]
        same_ids = ids[0] == ids[1]
        same = "" if not contents else "equal" if _said(rows[0]) == _said(rows[1]) else "DIFFER"
        agree &= same_ids and same != "DIFFER"
        print(f"{table:<14} {len(ids[0]):>13,} {len(ids[1]):>8,}  {'equal' if same_ids else 'DIFFER':<8} {same}")
    return agree


def _said(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key not in WHEN_OR_WHERE} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=Path, required=True)
    parser.add_argument("--server", choices=["vllm", "rehearsal"], required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--latency", type=float, default=20.0, help="Milliseconds, of the rehearsal server.")
    parser.add_argument("--out", type=Path, default=Path("kill-and-resume"))
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True)
    os.environ["OMP_NUM_THREADS"] = "1"

    if arguments.server == "vllm":
        serving = serve_vllm(make_tiny_causal_lm(out / "tiny"), log=out / "vllm.log")
    else:
        serving = serve_rehearsal(out, arguments.latency)
    with serving as server:
        whole, resumed = out / "uninterrupted.duckdb", out / "resumed.duckdb"
        report = run_to_the_end(command_of(whole, arguments.seeds, server, arguments))
        print("uninterrupted", json.dumps(report))
        command = command_of(resumed, arguments.seeds, server, arguments)
        held = kill_halfway(command, resumed, calls_done(whole) // 2)
        print(f"killed by SIGKILL with {held} calls in the corpus")
        print("resumed      ", json.dumps(run_to_the_end(command)))
    agree = compare(whole, resumed, contents=arguments.server == "rehearsal")

    exports = [out / f"{database.stem}.jsonl" for database in (whole, resumed)]
    for database, export in zip((whole, resumed), exports, strict=True):
        subprocess.run(
            [sys.executable, "-m", "descant", "export", str(export), "--format", "skywork", "--db", str(database)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    lines = [export.read_bytes().count(b"\n") for export in exports]
    same = exports[0].read_bytes() == exports[1].read_bytes()
    print(f"\nexport         {lines[0]:>13,} {lines[1]:>8,}  bytes {'equal' if same else 'differ'}")
    agree &= lines[0] == lines[1] and (same or arguments.server == "vllm")
    fit = [sys.executable, "-m", "descant", "fit", "reward", "reward-tiny", "--db", str(resumed)]
    subprocess.run([*fit, "--set", "steps=20", "--set", f"out={out / 'reward-model'}"], check=True)
    print("ALL EQUAL" if agree else "NOT EQUAL")
    sys.exit(not agree)


if __name__ == "__main__":
    main()
