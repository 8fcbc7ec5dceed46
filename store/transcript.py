"""A stored dialogue, pair, seed, campaign or call, laid out to be read. Knows rich; changes nothing.

In a terminal roles have colours and long lines are wrapped; in a pipe it is plain text, one line a line. Control
characters in what models wrote are shown as escapes, so that a transcript cannot drive a terminal.
"""

import io
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import duckdb
import orjson
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from store.database import reading, rows_of
from store.queries import CALLED, resolve, the_one_called

ROLE_STYLES = {"system": "magenta", "user": "bold cyan", "assistant": "bold green"}
PERTURBED_STYLE, BETTERED_STYLE = "bold red", "bold blue"
VERDICTS = {"landed": "it landed", "missed": "it missed", "unchecked": "not checked"}

# C0 except tab and newline, DEL, C1, and the marks that turn the direction of text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class ShownTurn(NamedTuple):
    """A turn with what was done to it."""

    turn_id: str
    role: str
    content: str
    kind: str | None = None
    altered_instruction: str | None = None
    verdict: str | None = None
    verdict_source: str | None = None
    direction: str | None = None
    aspects: Sequence[str] | None = None
    plan: str | None = None


def neutral(text: str) -> str:
    """Text that no terminal acts on: control characters as `\\x1b`, Windows line ends as plain ones."""
    return _CONTROL.sub(_escape, text.replace("\r\n", "\n"))


def print_wide(table: Table, console: Console) -> None:
    """Fitted to a terminal; in a pipe as wide as it needs to be, with no blanks at the ends of lines."""
    if console.is_terminal:
        console.print(table)
        return
    page = io.StringIO()
    Console(file=page, width=100_000, color_system=None).print(table)
    console.file.writelines(line.rstrip() + "\n" for line in page.getvalue().splitlines())


def show(path: str | os.PathLike[str], prefix: str, console: Console) -> None:
    """Prints what an id, an unambiguous beginning of one, or a campaign's name means: all of one state of the corpus.

    The page is laid out first and handed on when the database is closed again: a pager may take its time.
    """
    with console.capture() as page, reading(path) as connection:
        _show(connection, os.fspath(path), prefix, console)
    console.file.write(page.get())


def _show(connection: duckdb.DuckDBPyConnection, path: str, prefix: str, console: Console) -> None:
    named = [row["campaign_id"] for row in rows_of(connection, CALLED, [prefix])]
    campaign = the_one_called(prefix, named)
    kind, identity = ("campaign", campaign) if campaign is not None else resolve(connection, prefix)
    if kind == "dialogue":
        _show_dialogue(connection, identity, console)
    elif kind == "pair":
        _show_pair(connection, identity, console)
    elif kind == "seed":
        _show_seed(connection, identity, console)
    elif kind == "campaign":
        _show_campaign(connection, path, identity, console)
    elif kind == "call":
        # A call that was asked otherwise before has superseded rows beside its own.
        asked = "SELECT * FROM requests WHERE call_id = ? ORDER BY status = 'superseded'"
        _fields(console, rows_of(connection, asked, [identity])[0])
    else:
        table, column = _PLACES[kind]
        (row,) = rows_of(connection, f"SELECT * FROM {table} WHERE {column} = ?", [identity])
        _fields(console, row)


_PLACES = {
    "turn": ("turns", "turn_id"),
    "perturbation": ("perturbations", "perturbation_id"),
    "label": ("labels", "label_id"),
    "catch": ("caught", "catch_id"),
    "judgement": ("judgements", "judgement_id"),
    "fit": ("fits", "fit_id"),
}


def _show_dialogue(connection: duckdb.DuckDBPyConnection, identity: str, console: Console) -> None:
    (dialogue,) = rows_of(connection, "SELECT * EXCLUDE (turn_ids) FROM dialogues WHERE dialogue_id = ?", [identity])
    _line(console, Text(f"dialogue {identity}", style="bold"))
    _line(
        console,
        Text(
            f"branch {dialogue['branch']} · trial {dialogue['trial']} · {dialogue['n_turns']} turns · {dialogue['status']}: "
            f"{dialogue['termination_reason']}"
        ),
    )
    if dialogue["error"]:
        _line(console, Text(f"error: {neutral(dialogue['error'])}", style="red"))
    _line(console, Text(f"{dialogue['seed_id']} · {dialogue['campaign_id']}", style="dim"))
    turns = _path_of(connection, identity)
    if dialogue["forked_from"]:
        others = {turn.turn_id for turn in _path_of(connection, dialogue["forked_from"])}
        shared = sum(turn.turn_id in others for turn in turns)
        _line(console, Text(f"shares its first {shared} turns with {dialogue['forked_from']}", style="dim"))
    _turns(console, turns)
    _caught(connection, identity, console)
    _verdicts(
        connection, console, "judgements.dialogue_id = ? AND rubric NOT IN ('verify', 'verify_context')", [identity]
    )


def _caught(connection: duckdb.DuckDBPyConnection, identity: str, console: Console) -> None:
    """What was not let pass, by the turn that it was to be."""
    for catch in rows_of(connection, "SELECT * FROM caught WHERE dialogue_id = ? ORDER BY depth, attempt", [identity]):
        first, *more = neutral(catch["content"]).splitlines() or [""]
        text = f"caught     {catch['reason']} ({catch['outcome']}), for turn {catch['depth']}: {first[:80]}"
        _line(console, Text(text + (" ..." if more or len(first) > 80 else ""), style="yellow"))


def _contrasts(turns: int) -> str:
    return f"{turns} contrast turn{'' if turns == 1 else 's'} · " if turns else ""


def _show_pair(connection: duckdb.DuckDBPyConnection, identity: str, console: Console) -> None:
    (pair,) = rows_of(connection, "SELECT * FROM pairs WHERE pair_id = ?", [identity])
    chosen, rejected = _path_of(connection, pair["chosen_id"]), _path_of(connection, pair["rejected_id"])
    trunk = 0
    for good, bad in zip(chosen, rejected, strict=False):
        if good.turn_id != bad.turn_id:
            break
        trunk += 1
    _line(console, Text(f"pair {identity}", style="bold"))
    judged = f", judges say {pair['judged_label']}" if pair["judged_label"] else ""
    _line(
        console,
        Text(
            f"method {pair['method']} · split {pair['split']} · differs from answer {pair['first_divergent_turn']} on · "
            f"{_contrasts(pair['n_contrast_turns'])}label by {pair['label_source']}{judged}"
        ),
    )
    _line(console, Text(f"{pair['chosen_id']} · {pair['rejected_id']} · {pair['campaign_id']}", style="dim"))
    _rule(console, "shared")
    _turns(console, chosen[:trunk])
    _rule(console, "chosen")
    _turns(console, chosen[trunk:], first=trunk)
    _rule(console, "rejected")
    _turns(console, rejected[trunk:], first=trunk)
    _verdicts(connection, console, "pair_id = ?", [identity])


def _verdicts(connection: duckdb.DuckDBPyConnection, console: Console, where: str, parameters: list[str]) -> None:
    """What judges said, set by set; nothing where nobody was asked."""
    rows = rows_of(
        connection,
        f"""
        SELECT label_set, rubric, coalesce(judge, judge_model) AS judge, presentation, turns.depth, verdict, score, opponent_id,
            coalesce(judgements.error, rationale, '') AS why
        FROM judgements LEFT JOIN turns USING (turn_id) WHERE {where}
        ORDER BY label_set, judge, turns.depth, rubric LIKE 'aspect: %', presentation, rubric, opponent_id
        """,
        parameters,
    )
    if not rows:
        return
    _rule(console, "verdicts")
    for row in rows:
        said = row["verdict"] if row["score"] is None else f"{row['score']:g} of 10"
        how = row["presentation"].replace("_", " ") if row["presentation"] != "single" else ""
        how = how if row["depth"] is None else f"depth {row['depth']}"
        against = f"against {row['opponent_id']}" if row["opponent_id"] else ""
        aspect = row["rubric"].removeprefix("aspect: ") if row["rubric"].startswith("aspect: ") else ""
        about = ", ".join(filter(None, (how, aspect, against)))
        head = Text.assemble((neutral(f"{row['label_set']} · {row['judge']}"), "dim"), f" · {about}" if about else "")
        why = f"  {neutral(' '.join(row['why'].split()))}" if row["why"] and not aspect else ""
        _line(console, Text.assemble(head, ": ", (neutral(said), "bold"), why))


def _show_seed(connection: duckdb.DuckDBPyConnection, identity: str, console: Console) -> None:
    (seed,) = rows_of(connection, "SELECT * FROM seeds WHERE seed_id = ?", [identity])
    _line(console, Text(f"seed {identity}", style="bold"))
    _line(console, Text(f"source {neutral(seed['source'])} · split {seed['split']}"))
    _line(console, Text(neutral(seed["metadata"]), style="dim"))
    _turns(
        console,
        [ShownTurn("", message["role"], message["content"]) for message in seed["messages"]],
    )
    dialogues = rows_of(
        connection,
        "SELECT dialogue_id, branch, trial, status FROM dialogues WHERE seed_id = ? ORDER BY campaign_id, trial, branch",
        [identity],
    )
    _rule(console, f"{len(dialogues)} dialogues")
    for row in dialogues:
        _line(console, Text(f"{row['dialogue_id']}  {row['branch']}  trial {row['trial']}  {row['status']}"))


def _show_campaign(connection: duckdb.DuckDBPyConnection, path: str, identity: str, console: Console) -> None:
    (stats,) = rows_of(connection, "SELECT * FROM campaign_stats WHERE campaign_id = ?", [identity])
    (campaign,) = rows_of(
        connection, "SELECT config, version, created_at, finished_at FROM campaigns WHERE campaign_id = ?", [identity]
    )
    config = orjson.loads(campaign.pop("config"))
    _fields(console, stats | campaign)
    _line(console, Text("config:", style="bold"))
    _block(console, Text(neutral(_yaml(config))))
    examples = rows_of(
        connection,
        "SELECT 'pair' AS kind, pair_id AS id FROM pairs WHERE campaign_id = $1 UNION ALL "
        "SELECT 'dialogue', dialogue_id FROM dialogues WHERE campaign_id = $1 ORDER BY kind DESC, id LIMIT 3",
        [identity],
    )
    if examples:
        _rule(console, "to look at")
        for row in examples:
            _line(console, Text(f"descant show --db {path} {row['id']}"))


def _path_of(connection: duckdb.DuckDBPyConnection, dialogue_id: str) -> list[ShownTurn]:
    rows = rows_of(
        connection,
        """
        SELECT turns.turn_id, turns.role, turns.content, perturbations.kind, perturbations.altered_instruction,
            perturbations.verdict, perturbations.verdict_source, perturbations.direction, perturbations.aspects,
            perturbations.plan
        FROM (
            SELECT seed_id, unnest(turn_ids) AS turn_id, generate_subscripts(turn_ids, 1) AS place
            FROM dialogues WHERE dialogue_id = ?
        ) JOIN turns USING (seed_id, turn_id) LEFT JOIN perturbations USING (perturbation_id)
        ORDER BY place
        """,
        [dialogue_id],
    )
    return [ShownTurn(**row) for row in rows]


def _turns(console: Console, turns: Sequence[ShownTurn], *, first: int = 0) -> None:
    """Each with its place in the conversation, from 0: what `descant fork --at` takes."""
    for place, turn in enumerate(turns, start=first):
        console.print()
        head = Text.assemble((f"{place} ", "dim"), (turn.role, ROLE_STYLES.get(turn.role, "bold")))
        if turn.kind is not None:
            by = f" (by {neutral(turn.verdict_source)})" if turn.verdict_source else ""
            verdict = VERDICTS.get(turn.verdict or "", turn.verdict or "")
            style = BETTERED_STYLE if turn.direction == "better" else PERTURBED_STYLE
            head.append(f"  [{_what_was_done(turn)}, {verdict}{by}]", style=style)
        _line(console, head)
        if turn.plan is not None:
            _block(console, Text(f"plan: {neutral(turn.plan)}", style="italic"))
        if turn.altered_instruction is not None:
            _block(console, Text(f"answered instead: {neutral(turn.altered_instruction)}", style="italic red"))
        _block(console, Text(neutral(turn.content)))


def _what_was_done(turn: ShownTurn) -> str:
    """An error that was injected, or an edit with its direction and aspects."""
    if turn.direction is None:
        return f"PERTURBED: {turn.kind}"
    aspects = f" in {neutral(', '.join(turn.aspects))}" if turn.aspects else ""
    return f"WRITTEN TO BE {turn.direction.upper()}{aspects}: {turn.kind}"


def _fields(console: Console, row: dict[str, Any]) -> None:
    for name, value in row.items():
        if value is None:
            continue
        text = neutral(value if isinstance(value, str) else _plain(value))
        if "\n" in text or len(text) > 90:
            _line(console, Text(f"{name}:", style="bold"))
            _block(console, Text(text))
        else:
            _line(console, Text.assemble((f"{name}: ", "bold"), text))


def _yaml(config: Any) -> str:
    """Settings as a config file has them."""
    from ruamel.yaml import YAML

    page, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # its stubs know only null
    yaml.width = 10_000
    yaml.dump(config, page)
    return page.getvalue().rstrip()


def _plain(value: Any) -> str:
    if isinstance(value, list | dict):
        return orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode()
    return str(value)


def _rule(console: Console, title: str) -> None:
    console.print()
    _line(console, Text(f"──── {title} ────", style="bold yellow"))


def _line(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=not console.is_terminal)


def _block(console: Console, text: Text) -> None:
    """Indented by two columns: wrapped in a terminal, line by line in a pipe."""
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, 2)))
        return
    for line in text.plain.split("\n"):
        console.print(Text("  " + line), soft_wrap=True)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
