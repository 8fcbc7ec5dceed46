"""Preference pairs to and from the files that other tools read. Knows what is written; what is read, `store.pair_shapes` tells.

An export is the same bytes for the same corpus: ordered by pair_id, no dates, written beside and renamed.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from store.database import StoreError, reading
from store.human_feedback import LeftOut
from store.identity import content_hash, split_of
from store.pair_shapes import Sides, pairs_in
from store.pairs import first_divergent_turn
from store.records import PreferencePair
from store.rows import RowError, row_of, rows_of_file

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

EXPORT_FORMATS = ("skywork", "trl", "trl-explicit")
SUFFIXES = (".jsonl", ".parquet")
BATCH_ROWS = 2_000

_WHERE = """
    FROM preference_pairs
    WHERE ($split IS NULL OR split = $split) AND ($campaign IS NULL OR campaign_id IN (
        SELECT campaign_id FROM campaigns WHERE campaign_id = $campaign OR name = $campaign
    ))
"""
_COLUMNS = {
    "skywork": "chosen, rejected, method AS source",
    "trl": "chosen, rejected",
    "trl-explicit": "chosen[:-2] AS prompt, chosen[-1:] AS chosen, rejected[-1:] AS rejected",
}


def export_pairs(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str,
    *,
    campaign: str | None = None,
    split: str | None = None,
) -> int:
    """Writes the pairs of a corpus to a JSONL or Parquet file, by its suffix; returns how many.

    Args:
        campaign: only of this campaign, by id or name.
        split: only of this split.

    Raises:
        StoreError: nothing to export, a format that cannot hold these pairs, or a file that cannot be written.
    """
    target = Path(out)
    if format not in EXPORT_FORMATS:
        raise StoreError(f"no format is called {format!r}: use one of {', '.join(EXPORT_FORMATS)}")
    if target.suffix not in SUFFIXES:
        raise StoreError(f"{str(target)!r} should end in {' or '.join(SUFFIXES)}, which says how it is written")
    parameters = {"campaign": campaign, "split": split}
    with reading(path) as connection:
        n_pairs, n_margins = _count(connection, parameters)
        if not n_pairs:
            asked = "".join(f", {name} {value!r}" for name, value in parameters.items() if value is not None)
            raise StoreError(
                f"there are no pairs to export (in {str(path)!r}{asked}): `descant status` shows what there is"
            )
        if format == "trl-explicit":
            _refuse_early_differences(connection, parameters, n_pairs)
        columns = _COLUMNS[format] + (", margin" if format != "skywork" and n_margins else "")
        batches = connection.sql(f"SELECT {columns} {_WHERE} ORDER BY pair_id", params=parameters).to_arrow_reader(
            BATCH_ROWS
        )
        _write(batches, target)
    return n_pairs


def _count(connection: "duckdb.DuckDBPyConnection", parameters: dict[str, str | None]) -> tuple[int, int]:
    # fetchall, not fetchone: DuckDB 2 refuses further work on a connection that has rows left to give
    ((pairs, margins),) = connection.execute(f"SELECT count(*), count(margin) {_WHERE}", parameters).fetchall()
    return int(pairs), int(margins)


def _refuse_early_differences(
    connection: "duckdb.DuckDBPyConnection", parameters: dict[str, str | None], n_pairs: int
) -> None:
    """An explicit prompt is only legal when both sides share all but the last answer: cutting would corrupt pairs."""
    rows = connection.execute(
        f"""
        SELECT pair_id, first_divergent_turn, count(*) OVER () {_WHERE}
            AND (chosen[:-2] IS DISTINCT FROM rejected[:-2]
                 OR chosen[-1].role <> 'assistant' OR rejected[-1].role <> 'assistant')
        ORDER BY pair_id LIMIT 1
        """,
        parameters,
    ).fetchall()
    for pair_id, first_turn, count in rows:
        raise StoreError(
            f"{count} of {n_pairs} pairs do not share all but the last answer ({pair_id} differs from answer "
            f"{first_turn} on): a prompt with two answers cannot hold them; use --format trl or skywork"
        )


def _write(batches: "pa.RecordBatchReader", target: Path) -> None:
    part = target.with_name(target.name + ".part")
    try:
        if target.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetWriter(part, batches.schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        else:
            with part.open("wb") as handle:
                for batch in batches:
                    handle.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist())
        part.replace(target)
    except OSError as error:
        raise StoreError(
            f"{str(target)!r} cannot be written ({error.strerror or error}): choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def read_preference_file(
    path: str | os.PathLike[str], *, left_out: Counter[LeftOut] | None = None
) -> list[PreferencePair]:
    """The pairs of a file in any shape of `store.pair_shapes` (JSON lines, a JSON list or Parquet), in its order.

    The split is that of the shared first user turn, as for seeds, so that all pairs of one prompt are on one side. Pairs
    of other tools know no method: it is the row's `method` or `source`, or what its shape is called.

    Args:
        left_out: where comparisons that make no pair (people's ties, equal texts) are counted.

    Raises:
        StoreError: the file is missing or empty, or a row is no pair (with its line's number).
    """
    left_out = Counter() if left_out is None else left_out
    before = left_out.total()
    pairs = [pair for _, pair in numbered_pairs(path, left_out=left_out)]
    if not pairs:
        why = (
            f"all {left_out.total() - before} comparisons in it are ties or empty"
            if left_out.total() > before
            else "it is empty"
        )
        raise StoreError(f"{str(path)!r} holds no pairs: {why}")
    return pairs


def numbered_pairs(
    path: str | os.PathLike[str], *, left_out: Counter[LeftOut] | None = None
) -> Iterator[tuple[str, PreferencePair]]:
    """The pairs of a file, each with the number of its line (JSONL) or row (Parquet) from 1; where a row can hold several
    comparisons, ROW.COMPARISON."""
    seen: Counter[str] = Counter()
    for number, row in rows_of(path, "preference pairs"):
        try:
            shape, found = pairs_in(row)
            for place, sides in enumerate(found, start=1):
                if not isinstance(sides, str):
                    pair = _pair_of(row, shape, sides, seen)
                    yield (f"{number}.{place}" if shape == "qa-feedback" else str(number)), pair
                elif left_out is not None:
                    left_out[sides] += 1
        except RowError as error:
            raise StoreError(f"{path}:{number}: {error}; mend the row") from None


def rows_of(path: str | os.PathLike[str], what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file, numbered from 1 (JSONL: by line, blank ones counted)."""
    for number, line in rows_of_file(Path(path), what):
        try:
            row = line if isinstance(line, dict) else row_of(line)
        except RowError as error:
            raise StoreError(f"{path}:{number}: {error}; mend the row") from None
        yield number, row


def _pair_of(row: dict[str, Any], shape: str, sides: Sides, seen: Counter[str]) -> PreferencePair:
    chosen, rejected = sides
    first_user = [message.role for message in chosen].index("user") + 1
    if chosen[:first_user] != rejected[:first_user]:
        raise RowError("chosen and rejected start from different user turns: they are no pair")
    if chosen == rejected:
        raise RowError("chosen and rejected are the same conversation: there is nothing to prefer")
    margin = row.get("margin")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float)):
        raise RowError(f"margin should be a number, not {margin!r}")
    text = content_hash(list(chosen), list(rejected))
    identity = content_hash(text, seen[text])
    seen[text] += 1
    return PreferencePair(
        pair_id=f"pair_{identity}",
        chosen=chosen,
        rejected=rejected,
        split=split_of(chosen[:first_user]),
        method=next((row[key] for key in ("method", "source") if isinstance(row.get(key), str)), shape),
        n_turns=sum(message.role == "assistant" for message in chosen),
        first_divergent_turn=first_divergent_turn(chosen, rejected) or 0,  # 0: the sides are equal
        margin=None if margin is None else float(margin),
    )
