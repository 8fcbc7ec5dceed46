"""What goes from the database when dialogues become `open`, to be played again.

It goes as their rows are taken in (`store.ingest`, in the same transaction): a later playing may turn out otherwise, and
would leave some of it as orphans. Which dialogues those are, `store.retry` knows.
"""

from collections.abc import Sequence

import duckdb

OWN_VERDICTS = "campaign"
"""The set of verdicts that a campaign makes as it runs."""


def clear(connection: duckdb.DuckDBPyConnection, dialogue_ids: Sequence[str]) -> None:
    """Removes what dialogues that have just become `open` left behind, and what hangs on them; calls and labels stay.

    Turns that a dialogue of another trial shares stay too.
    """
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE reopened AS
        SELECT dialogue_id, campaign_id, seed_id, trial, turn_ids FROM dialogues
        WHERE status = 'open' AND dialogue_id IN (SELECT unnest($ids))
        """,
        {"ids": list(dialogue_ids)},
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE gone AS
        SELECT dialogue_id, turn_ids, false AS hangs FROM reopened UNION ALL
        SELECT dialogues.dialogue_id, dialogues.turn_ids, true FROM dialogues JOIN reopened
            ON dialogues.forked_from = reopened.dialogue_id AND dialogues.campaign_id = reopened.campaign_id
            AND dialogues.seed_id = reopened.seed_id AND dialogues.trial = reopened.trial
        WHERE dialogues.status <> 'open'
        """
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE gone_pairs AS
        SELECT pair_id FROM pairs
        WHERE chosen_id IN (SELECT dialogue_id FROM gone) OR rejected_id IN (SELECT dialogue_id FROM gone)
        """
    )
    connection.execute(
        """
        DELETE FROM turns WHERE turn_id IN (SELECT unnest(turn_ids) FROM gone) AND turn_id NOT IN (
            SELECT unnest(turn_ids) FROM dialogues
            WHERE seed_id IN (SELECT seed_id FROM reopened) AND dialogue_id NOT IN (SELECT dialogue_id FROM gone)
        )
        """
    )
    connection.execute(
        f"""
        DELETE FROM judgements WHERE label_set = '{OWN_VERDICTS}' AND (
            dialogue_id IN (SELECT dialogue_id FROM gone) OR pair_id IN (SELECT pair_id FROM gone_pairs)
        )
        """
    )
    for table in ("perturbations", "caught", "dialogue_stats", "scores"):
        connection.execute(f"DELETE FROM {table} WHERE dialogue_id IN (SELECT dialogue_id FROM gone)")
    for table in ("pair_stats", "pairs"):
        connection.execute(f"DELETE FROM {table} WHERE pair_id IN (SELECT pair_id FROM gone_pairs)")
    connection.execute("DELETE FROM dialogues WHERE dialogue_id IN (SELECT dialogue_id FROM gone WHERE hangs)")
    connection.execute(
        "UPDATE dialogues SET turn_ids = [], n_turns = 0 WHERE dialogue_id IN (SELECT dialogue_id FROM reopened)"
    )
    for table in ("reopened", "gone", "gone_pairs"):
        connection.execute(f"DROP TABLE {table}")
