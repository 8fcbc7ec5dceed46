"""The store alone: how fast turns come in, and how fast every view answers on a corpus of a million turns.

    .venv/bin/python -m benchmarks.store_speed                                  a million turns, in a temporary folder
    .venv/bin/python -m benchmarks.store_speed --turns 100000 --keep made.duckdb
    .venv/bin/python -m benchmarks.store_speed --keep made.duckdb               made before: only asked

In: the rows of `benchmarks.made_corpus` go through `store.writer.Writer` as a campaign's do: appended to the journal, moved
into DuckDB by its thread meanwhile. The clock runs from the first append of a slice until the slice stands in DuckDB; it is
stopped while words are drawn. Each slice goes in in three parts, one after the other: the turns; their seeds, dialogues and
figures; and everything else (above all the calls, each with the messages that were sent).

Asked: a summary of each view over the whole corpus (at most 1 s), and one dialogue, pair or campaign of it (at most
50 ms). Warm is a connection that was asked the same before: the view's own time, which the limits are of; cold is a new
connection with its opening, as each command of `descant` makes one. Commands are whole processes, at most 2 s. Beside each
view stands `count(*)` of what it is mainly read from.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.made_corpus import CorpusMaker
from store.database import query, reading
from store.records import Record
from store.writer import Writer

HOME = Path(__file__).parent.parent
SLICE_TURNS = 150_000
DIALOGUE_TABLES = {"seeds", "dialogues", "dialogue_stats"}
SUMMARY_LIMIT_MS, ONE_LIMIT_MS, COMMAND_LIMIT_MS = 1_000.0, 50.0, 2_000.0
TURNS_A_SECOND = 100_000


class Asked(NamedTuple):
    """What is asked of a view; `one` has the id that is looked for as its parameter."""

    summary: str
    one: str
    of: str
    """dialogue, pair, campaign or fit: what `one` is."""
    table: str
    """What the view is mainly read from."""


QUESTIONS = {
    "transcripts": Asked(
        "SELECT status, split, count(*), avg(n_turns) FROM transcripts GROUP BY ALL",
        "SELECT * FROM transcripts WHERE dialogue_id = ?",
        "dialogue",
        "dialogues",
    ),
    "preference_pairs": Asked(
        "SELECT method, split, count(*), avg(n_turns), avg(similarity), count(*) FILTER (agreement), "
        "count(*) FILTER (len(kinds) > 0) FROM preference_pairs GROUP BY ALL",
        "SELECT * FROM preference_pairs WHERE pair_id = ?",
        "pair",
        "pairs",
    ),
    "usage_by_agent": Asked(
        "SELECT * FROM usage_by_agent", "SELECT * FROM usage_by_agent WHERE campaign_id = ?", "campaign", "calls"
    ),
    "requests": Asked(
        "SELECT agent, purpose, count(*), avg(len(messages)) FROM requests GROUP BY ALL",
        "SELECT * FROM requests WHERE dialogue_id = ?",
        "dialogue",
        "calls",
    ),
    "errors": Asked(
        "SELECT what, reason, count(*) FROM errors GROUP BY ALL",
        "SELECT * FROM errors WHERE dialogue_id = ?",
        "dialogue",
        "calls",
    ),
    "campaign_stats": Asked(
        "SELECT * FROM campaign_stats", "SELECT * FROM campaign_stats WHERE campaign_id = ?", "campaign", "dialogues"
    ),
    "leaderboard": Asked("SELECT * FROM leaderboard", "SELECT * FROM leaderboard WHERE fit_id = ?", "fit", "metrics"),
    "pair_costs": Asked(
        "SELECT * FROM pair_costs", "SELECT * FROM pair_costs WHERE campaign_id = ?", "campaign", "calls"
    ),
    "label_noise": Asked(
        "SELECT * FROM label_noise", "SELECT * FROM label_noise WHERE campaign_id = ?", "campaign", "judgements"
    ),
    "pair_diversity": Asked(
        "SELECT * FROM pair_diversity", "SELECT * FROM pair_diversity WHERE campaign_id = ?", "campaign", "pairs"
    ),
    "pair_report": Asked(
        "SELECT * FROM pair_report", "SELECT * FROM pair_report WHERE campaign_id = ?", "campaign", "judgements"
    ),
}


class Speed(NamedTuple):
    """How long a slice took to come in."""

    rows: int
    seconds: float
    cpu_seconds: float


def write(database: Path, turns: int) -> bool:
    """Make the corpus, and print how fast it came in; whether it is fast enough."""
    speeds: dict[str, list[Speed]] = {"turns": [], "dialogues": [], "the rest": []}
    counts: Counter[str] = Counter()
    with Writer(database) as writer:
        slices: dict[str, list[Sequence[Record]]] = {name: [] for name in speeds}
        waiting = 0
        for made in CorpusMaker(turns).made():
            by_part: dict[str, list[Record]] = {name: [] for name in speeds}
            for record in made.records:
                by_part[_part(record.table)].append(record)
            for name, records in by_part.items():
                slices[name].append(records)
            counts.update(record.table for record in made.records)
            waiting += made.turns
            if waiting >= SLICE_TURNS:
                for name, parts in slices.items():
                    speeds[name].append(_take_in(writer, parts))
                    parts.clear()
                waiting = 0
        for name, parts in slices.items():
            speeds[name].append(_take_in(writer, parts))
    print(f"{sum(counts.values()):,} rows: {', '.join(f'{n:,} {table}' for table, n in counts.most_common())}")
    megabytes = database.stat().st_size / 1e6
    seconds = {name: sum(speed.seconds for speed in found) for name, found in speeds.items()}
    cpu = {name: sum(speed.cpu_seconds for speed in found) for name, found in speeds.items()}
    rows = {name: sum(speed.rows for speed in found) for name, found in speeds.items()}
    print(f"{megabytes:,.0f} MB on disk, {1e6 * megabytes / counts['turns']:,.0f} bytes a turn with its calls")
    for name in speeds:
        print(
            f"{name:<10} {rows[name]:>11,} rows in {seconds[name]:6.1f} s ({cpu[name]:.1f} s of CPU): {rows[name] / seconds[name]:>9,.0f} rows/s"
        )
    rate = counts["turns"] / seconds["turns"]
    with_dialogues = counts["turns"] / (seconds["turns"] + seconds["dialogues"])
    whole = counts["turns"] / sum(seconds.values())
    print(f"turns/s in: {rate:,.0f} (at least {TURNS_A_SECOND:,}: {_verdict(rate >= TURNS_A_SECOND)})")
    print(f"turns/s in, with their seeds, dialogues and figures: {with_dialogues:,.0f}")
    print(f"turns/s in, with everything that came with them: {whole:,.0f}", flush=True)
    return rate >= TURNS_A_SECOND


def _part(table: str) -> str:
    if table == "turns":
        return "turns"
    return "dialogues" if table in DIALOGUE_TABLES else "the rest"


def _take_in(writer: Writer, parts: Sequence[Sequence[Record]]) -> Speed:
    """Appends record by record group, as dialogues end, and waits until all are in DuckDB."""
    gc.collect()
    gc.freeze()  # the collector would look through all that was made and waits here, which no store would hold
    started, cpu = time.perf_counter(), time.process_time()
    for records in parts:
        writer.append(*records)
    writer.flush()
    gc.unfreeze()
    return Speed(sum(map(len, parts)), time.perf_counter() - started, time.process_time() - cpu)


IDS = {
    "dialogue": "SELECT dialogue_id FROM dialogues ORDER BY hash(dialogue_id) LIMIT ?",
    "pair": "SELECT pair_id FROM pairs ORDER BY hash(pair_id) LIMIT ?",
    "campaign": "SELECT campaign_id FROM pairs GROUP BY campaign_id ORDER BY count(*) DESC, campaign_id LIMIT ?",
    "fit": "SELECT fit_id FROM fits ORDER BY fit_id LIMIT ?",
}
"""Which ones are asked for: of campaigns those with the most pairs, since a view of one of them costs what they have."""


class Timing(NamedTuple):
    """Medians in milliseconds."""

    cold: float
    warm: float
    cpu: float
    """Of both cores, warm."""
    rows: int


def ask(database: Path, rounds: int) -> bool:
    """Time all views; whether each keeps its limits."""
    found = {of: [next(iter(row.values())) for row in query(database, sql, [rounds])] for of, sql in IDS.items()}
    for of, ids in found.items():
        found[of] = (ids * rounds)[:rounds]
    print(
        f"\n{'view':<17} {'asked for':<10} {'rows':>5} {'cold':>7} {'warm':>7} {'CPU':>7} {'count(*)':>9} {'limit':>7}   ms"
    )
    all_hold = True
    for name, asked in QUESTIONS.items():
        bare = timed(database, f"SELECT count(*) FROM {asked.table}", [[]] * rounds)
        for what, sql, parameters, limit in (
            ("summary", asked.summary, [[]] * rounds, SUMMARY_LIMIT_MS),
            (f"a {asked.of}", asked.one, [[identity] for identity in found[asked.of]], ONE_LIMIT_MS),
        ):
            timing = timed(database, sql, parameters)
            holds = timing.warm <= limit
            all_hold &= holds
            print(
                f"{name:<17} {what:<10} {timing.rows:>5} {timing.cold:>7.1f} {timing.warm:>7.1f} {timing.cpu:>7.1f} "
                f"{bare.warm:>9.1f} {limit:>7,.0f}   {_verdict(holds)}",
                flush=True,
            )
    return all_hold


def timed(database: Path, sql: str, rounds: Sequence[Sequence[str]]) -> Timing:
    """Each round asks in a connection of its own, and then once more in it."""
    cold, warm, cpu, rows = [], [], [], 0
    for parameters in rounds:
        started = time.perf_counter()
        with reading(database) as connection:
            connection.execute(sql, parameters).fetchall()
            cold.append(time.perf_counter() - started)
            started, used = time.perf_counter(), time.process_time()
            rows = len(connection.execute(sql, parameters).fetchall())
            warm.append(time.perf_counter() - started)
            cpu.append(time.process_time() - used)
    medians = [1e3 * statistics.median(taken) for taken in (cold, warm, cpu)]
    return Timing(medians[0], medians[1], medians[2], rows)


def run_commands(database: Path, rounds: int) -> bool:
    """Time whole processes, from their start to their end; whether each keeps its limit."""
    (dialogue,), (pair,), (campaign,), _ = (
        [next(iter(row.values())) for row in query(database, sql, [1])] for sql in IDS.values()
    )
    commands = {
        "--version": ["--version"],
        "status": ["status"],
        "show dlg_...": ["show", dialogue],
        "show dlg_... (its beginning)": ["show", dialogue[:16]],
        "show pair_...": ["show", pair],
        "show camp_...": ["show", campaign],
        "sql, a view's summary": ["sql", QUESTIONS["transcripts"].summary],
        "sql, one dialogue": ["sql", f"FROM transcripts WHERE dialogue_id = '{dialogue}'"],
    }
    print(f"\n{'command, a process each time':<30} {'median':>7} {'slowest':>8} {'CPU':>7} {'limit':>7}   ms")
    all_hold = True
    for shown, words in commands.items():
        taken, cpu = [], []
        for _ in range(rounds):
            started, used = time.perf_counter(), os.times()
            where = [] if words == ["--version"] else ["--db", str(database)]
            command = [sys.executable, "-m", "descant", *words, *where]
            subprocess.run(command, cwd=HOME, stdout=subprocess.DEVNULL, check=True)
            taken.append(1e3 * (time.perf_counter() - started))
            after = os.times()
            cpu.append(1e3 * (after.children_user + after.children_system - used.children_user - used.children_system))
        holds = max(taken) <= COMMAND_LIMIT_MS
        all_hold &= holds
        print(
            f"{shown:<30} {statistics.median(taken):>7.0f} {max(taken):>8.0f} {statistics.median(cpu):>7.0f} "
            f"{COMMAND_LIMIT_MS:>7,.0f}   {_verdict(holds)}",
            flush=True,
        )
    return all_hold


def _verdict(holds: bool) -> str:
    return "PASS" if holds else "FAIL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="where the corpus is made and kept; asked alone if it is there")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        database: Path = arguments.keep or Path(name) / "made.duckdb"
        holds = database.exists() or write(database, arguments.turns)
        (counts,) = query(
            database, "SELECT (SELECT count(*) FROM turns) AS turns, (SELECT count(*) FROM calls) AS calls"
        )
        print(f"\n{counts['turns']:,} turns, {counts['calls']:,} calls; medians of {arguments.rounds}")
        holds = ask(database, arguments.rounds) and holds
        holds = run_commands(database, arguments.rounds) and holds
    sys.exit(not holds)


if __name__ == "__main__":
    main()
