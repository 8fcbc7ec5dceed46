"""The views: the corpus as people ask for it, without knowing the tree. A change of one reaches a database by itself.

Conversations are grouped by the very column that a view is asked by (dialogue_id, pair_id): so a filter on it
reaches the scans. On a million turns that was 40 times faster than a correlated subquery. Turns are looked for by their
seed too: one value is a filter that DuckDB pushes into the scan of `turns`, the ten turn_ids of a dialogue are none.
Conversations are joined from the left, so that they are built only where they are asked for.
"""

from store.pair_views import PAIR_VIEWS
from store.pairs import NEAR_IDENTICAL
from store.requests import AFTER_ROLE, BETWEEN_MESSAGES
from store.tables import (
    CAMPAIGN_STATUS,
    JUDGED_LABEL,
    LENGTH_RATIO,
    LOST_TOKENS,
    LOST_USD,
    SIMILARITY,
    TABLES,
    View,
)

SESSIONS = (
    "Dialogues that are done and that the figures a session are of: main branches where there are any, else chosen and "
    "rejected ones, of recipe capo the chosen alone."
)


def _conversations(key: str, paths: str) -> str:
    """SQL of the conversations of `paths` (columns `key`, seed_id and turn_ids), one row a key."""
    return f"""(
            SELECT {key}, list({{'role': role, 'content': content}} ORDER BY place) FILTER (role IS NOT NULL) AS messages
            FROM (
                SELECT {key}, seed_id, unnest(turn_ids) AS turn_id, generate_subscripts(turn_ids, 1) AS place FROM {paths}
            ) LEFT JOIN turns USING (seed_id, turn_id)
            GROUP BY {key}
        )"""


_BASE = (
    f"array_to_string([message.role || chr({ord(AFTER_ROLE)}) || message.content FOR message IN base.messages], "
    f"chr({ord(BETWEEN_MESSAGES)}))"
)
REQUEST_AGAIN = f"""[
                {{'role': split_part(part, chr({ord(AFTER_ROLE)}), 1), 'content': split_part(part, chr({ord(AFTER_ROLE)}), 2)}}
                FOR part IN string_split(
                    left({_BASE}, calls.kept_head) || calls.inserted || right({_BASE}, calls.kept_tail),
                    chr({ord(BETWEEN_MESSAGES)})
                )
            ]"""
"""SQL of what `store.requests.changed` and `from_text` do."""
_CALLS = next(table for table in TABLES if table.name == "calls")
_CHANGE = ("based_on", "kept_head", "kept_tail", "inserted")

VIEWS: dict[str, View] = {
    "transcripts": View(
        "One row a dialogue, with its conversation read along the tree.",
        {
            "dialogue_id": "The dialogue.",
            "campaign_id": "The campaign it belongs to.",
            "seed_id": "The seed it starts from.",
            "branch": "main, chosen, rejected or candidate.",
            "trial": "Which play of the seed, from 0.",
            "split": "The seed's split: train, validation or test.",
            "status": "done or failed; open: to be played again, without messages until then.",
            "termination_reason": "Why it ended.",
            "n_turns": "Assistant answers, those of the seed included.",
            "messages": "The conversation, as a list of role and content.",
        },
        f"""
        SELECT
            dialogues.dialogue_id, dialogues.campaign_id, dialogues.seed_id, dialogues.branch, dialogues.trial,
            seeds.split, dialogues.status, dialogues.termination_reason, dialogues.n_turns,
            coalesce(conversation.messages, []) AS messages
        FROM dialogues
        LEFT JOIN seeds USING (seed_id)
        LEFT JOIN {_conversations("dialogue_id", "dialogues")} AS conversation USING (dialogue_id)
        """,
    ),
    "preference_pairs": View(
        "One row a preference pair, with both conversations in full.",
        {
            "pair_id": "The pair.",
            "campaign_id": "The campaign it belongs to.",
            "seed_id": "The seed that both sides start from.",
            "method": "How it was made: music, capo, ...",
            "split": "train, validation or test, by the seed's text.",
            "n_turns": "Assistant answers of the chosen side.",
            "first_divergent_turn": "Which assistant answer differs first, from 1.",
            "n_contrast_turns": "Answers of the rejected side that were perturbed and not found to have missed.",
            "aspects": "What the pair was made to differ in, where the method says so.",
            "label_source": "construction, or the judges or the reward model that gave the label.",
            "intended_label": "Which side was meant to be better; null where none was.",
            "judged_label": JUDGED_LABEL,
            "agreement": "Whether the judged label is the intended one; null where one of the two is missing.",
            "margin": "How far apart the sides are; null when nothing says so.",
            "chosen_id": "The dialogue of the chosen side.",
            "rejected_id": "The dialogue of the rejected side.",
            "chosen": "The chosen conversation, as a list of role and content.",
            "rejected": "The rejected conversation, as a list of role and content.",
            "kinds": "The perturbation kinds of the rejected side that did not miss, sorted; an empty list without any.",
            "similarity": SIMILARITY,
            "length_ratio": LENGTH_RATIO,
        },
        f"""
        SELECT
            pairs.pair_id, pairs.campaign_id, good.seed_id, pairs.method, pairs.split, good.n_turns,
            pairs.first_divergent_turn, pairs.n_contrast_turns, pairs.aspects, pairs.label_source,
            pairs.intended_label, pairs.judged_label, pairs.judged_label = pairs.intended_label AS agreement, pairs.margin, pairs.chosen_id, pairs.rejected_id,
            chosen.messages AS chosen, rejected.messages AS rejected, coalesce(perturbed.kinds, []) AS kinds,
            pairs.similarity, pairs.length_ratio
        FROM pairs
        JOIN dialogues AS good ON good.dialogue_id = pairs.chosen_id
        JOIN {_conversations("pair_id", "pairs JOIN dialogues ON dialogue_id = chosen_id")} AS chosen USING (pair_id)
        JOIN {_conversations("pair_id", "pairs JOIN dialogues ON dialogue_id = rejected_id")} AS rejected USING (pair_id)
        LEFT JOIN (
            SELECT pair_id, list_sort(list(DISTINCT kind)) AS kinds
            FROM pairs JOIN perturbations ON dialogue_id = rejected_id WHERE verdict <> 'missed' GROUP BY pair_id
        ) AS perturbed USING (pair_id)
        """,
    ),
    "usage_by_agent": View(
        "Calls, tokens and cost of every campaign, by agent and model. Superseded calls count: they were paid.",
        {
            "campaign_id": "The campaign.",
            "campaign": "Its name.",
            "agent": "Who called: user, assistant, perturbation, judge.",
            "model": "The LiteLLM model string.",
            "calls": "Calls that were answered.",
            "failed": "Calls that failed for good.",
            "in_flight": "Calls noted as started and not yet answered (or cut off by a kill).",
            "prompt_tokens": "As the provider counted them.",
            "completion_tokens": "As the provider counted them.",
            "cost_usd": "Null when the price of any answered call is unknown; 0 when all are known to be free.",
            "median_latency_ms": "Of answered calls.",
            "p95_latency_ms": "95 % of answered calls took at most this.",
            "lost_tokens": LOST_TOKENS,
            "lost_usd": LOST_USD,
        },
        """
        SELECT
            calls.campaign_id, any_value(campaigns.name) AS campaign, calls.agent, calls.model,
            count(*) FILTER (calls.status IN ('done', 'superseded')) AS calls,
            count(*) FILTER (calls.status = 'failed') AS failed,
            count(*) FILTER (calls.status = 'started') AS in_flight,
            coalesce(sum(calls.prompt_tokens), 0)::BIGINT AS prompt_tokens,
            coalesce(sum(calls.completion_tokens), 0)::BIGINT AS completion_tokens,
            CASE WHEN count(*) FILTER (calls.status IN ('done', 'superseded') AND calls.cost_usd IS NULL) = 0
                 THEN coalesce(sum(calls.cost_usd), 0.0) END AS cost_usd,
            round(quantile_cont(calls.latency_ms, 0.5) FILTER (calls.status IN ('done', 'superseded')), 1)
                AS median_latency_ms,
            round(quantile_cont(calls.latency_ms, 0.95) FILTER (calls.status IN ('done', 'superseded')), 1)
                AS p95_latency_ms,
            coalesce(sum(calls.lost_tokens) FILTER (calls.status <> 'started'), 0)::BIGINT AS lost_tokens,
            CASE WHEN count(*) FILTER (calls.status <> 'started' AND calls.lost_tokens > 0 AND calls.lost_usd IS NULL) = 0
                 THEN coalesce(sum(calls.lost_usd) FILTER (calls.status <> 'started'), 0.0) END AS lost_usd
        FROM calls LEFT JOIN campaigns USING (campaign_id)
        GROUP BY calls.campaign_id, calls.agent, calls.model
        """,
    ),
    "requests": View(
        "The calls, with what was sent: in the table itself a long request stands as a change of an earlier one.",
        {
            column.name: "What was sent; null in a row that only notes the start."
            if column.name == "messages"
            else column.comment
            for column in _CALLS.columns
            if column.name not in _CHANGE
        },
        f"""
        SELECT
            calls.* EXCLUDE ({", ".join(_CHANGE)})
            REPLACE (CASE WHEN calls.based_on IS NULL THEN calls.messages ELSE {REQUEST_AGAIN} END AS messages)
        FROM calls
        LEFT JOIN calls AS base ON base.request_hash = calls.based_on AND base.dialogue_id = calls.dialogue_id
        """,
    ),
    "errors": View(
        "Everything that failed: dialogues and calls, with the reason.",
        {
            "what": "dialogue or call.",
            "id": "The dialogue_id or call_id.",
            "campaign_id": "The campaign.",
            "dialogue_id": "The dialogue.",
            "agent": "Who called; null for a dialogue.",
            "model": "The model that was called; null for a dialogue.",
            "reason": "The error's kind: termination_reason of the dialogue, or finish_reason of the call.",
            "error": "What was said.",
        },
        """
        SELECT 'dialogue' AS what, dialogue_id AS id, campaign_id, dialogue_id, NULL::VARCHAR AS agent,
               NULL::VARCHAR AS model, termination_reason AS reason, error
        FROM dialogues WHERE status = 'failed'
        UNION ALL
        SELECT 'call', call_id, campaign_id, dialogue_id, agent, model, finish_reason, error
        FROM calls WHERE status = 'failed'
        """,
    ),
    "campaign_stats": View(
        "One row a campaign: how much, how long, how varied, how balanced.",
        {
            "campaign_id": "The campaign.",
            "name": "What people call it.",
            "recipe": "dialogue, music, ...",
            "status": CAMPAIGN_STATUS,
            "dialogues": "Dialogues that are done; candidates that were not picked are none.",
            "failed": "Dialogues that failed.",
            "pairs": "Preference pairs.",
            "sessions": SESSIONS,
            "turns": "Assistant answers a session, on average.",
            "context_dependent_turns": "User turns a session that cannot be understood alone, by rules, on average.",
            "self_rouge": "How far user turns repeat each other, from 0 to 100: the average of sessions with two or more.",
            "words": "Words a session, on average.",
            "tokens": "Tokens a session, on average, of `dialogue_stats.n_tokens`; null when some are unknown.",
            "chosen_words": "Words a chosen side, on average.",
            "rejected_words": "Words a rejected side, on average.",
            "chosen_longer": "Share of pairs whose chosen side has more words: near 0.5 is balanced.",
            "near_identical": f"Pairs whose sides have a similarity of at least {NEAR_IDENTICAL}.",
            "perturbed": "Perturbations injected.",
            "landed": "Perturbations found to have landed.",
            "missed": "Perturbations found to have missed.",
        },
        f"""
        WITH marked AS (
            SELECT dialogues.*, dialogue_stats.* EXCLUDE (dialogue_id), status = 'done' AND CASE
                WHEN has_main THEN branch = 'main'
                WHEN recipe = 'capo' THEN branch = 'chosen'
                ELSE true END AS is_session
            FROM dialogues
            LEFT JOIN dialogue_stats USING (dialogue_id)
            LEFT JOIN (SELECT campaign_id, recipe FROM campaigns) USING (campaign_id)
            LEFT JOIN (
                SELECT campaign_id, true AS has_main FROM dialogues WHERE branch = 'main' GROUP BY campaign_id
            ) USING (campaign_id)
            WHERE branch <> 'candidate'
        ), played AS (
            SELECT campaign_id,
                count(*) FILTER (status = 'done') AS dialogues,
                count(*) FILTER (status = 'failed') AS failed,
                count(*) FILTER (is_session) AS sessions,
                avg(n_turns) FILTER (is_session) AS turns,
                avg(context_dependent_turns) FILTER (is_session) AS context_dependent_turns,
                avg(self_rouge) FILTER (is_session) AS self_rouge,
                avg(n_words) FILTER (is_session) AS words,
                CASE WHEN count(*) FILTER (is_session AND n_tokens IS NULL) = 0
                    THEN avg(n_tokens) FILTER (is_session) END AS tokens
            FROM marked GROUP BY campaign_id
        ), paired AS (
            SELECT campaign_id, count(*) AS pairs,
                avg(good.n_words) AS chosen_words,
                avg(bad.n_words) AS rejected_words,
                avg(CASE WHEN good.n_words > bad.n_words THEN 1.0 WHEN good.n_words = bad.n_words THEN 0.5
                         WHEN good.n_words < bad.n_words THEN 0.0 END) AS chosen_longer,
                count(*) FILTER (similarity >= {NEAR_IDENTICAL}) AS near_identical
            FROM pairs
            LEFT JOIN dialogue_stats AS good ON good.dialogue_id = chosen_id
            LEFT JOIN dialogue_stats AS bad ON bad.dialogue_id = rejected_id
            GROUP BY campaign_id
        ), perturbed AS (
            SELECT campaign_id, count(*) AS perturbed,
                count(*) FILTER (verdict = 'landed') AS landed,
                count(*) FILTER (verdict = 'missed') AS missed
            FROM perturbations JOIN dialogues USING (dialogue_id) GROUP BY campaign_id
        )
        SELECT campaigns.campaign_id, campaigns.name, campaigns.recipe, campaigns.status,
            coalesce(dialogues, 0) AS dialogues, coalesce(failed, 0) AS failed, coalesce(pairs, 0) AS pairs,
            coalesce(sessions, 0) AS sessions, round(turns, 2) AS turns, round(context_dependent_turns, 2) AS context_dependent_turns,
            round(self_rouge, 2) AS self_rouge, round(words, 1) AS words, round(tokens, 1) AS tokens,
            round(chosen_words, 1) AS chosen_words, round(rejected_words, 1) AS rejected_words,
            round(chosen_longer, 3) AS chosen_longer, coalesce(near_identical, 0) AS near_identical,
            coalesce(perturbed, 0) AS perturbed, coalesce(landed, 0) AS landed, coalesce(missed, 0) AS missed
        FROM campaigns
        LEFT JOIN played USING (campaign_id)
        LEFT JOIN paired USING (campaign_id)
        LEFT JOIN perturbed USING (campaign_id)
        """,
    ),
    "leaderboard": View(
        "The latest value of every metric of every fit.",
        {
            "metric": "The metric's name.",
            "slice": "all, or what the figure is restricted to.",
            "name": "The fit's name.",
            "arm": "Which training of a lab; null outside labs.",
            "objective": "reward, sft, ...",
            "value": "The figure.",
            "low": "Lower end of its interval.",
            "high": "Upper end of its interval.",
            "n": "Over how many items.",
            "step": "At which step it was taken.",
            "fit_id": "The fit.",
        },
        """
        SELECT metrics.name AS metric, metrics.slice, fits.name, fits.arm, fits.objective,
            metrics.value, metrics.low, metrics.high, metrics.n, metrics.step, metrics.fit_id
        FROM metrics LEFT JOIN fits USING (fit_id)
        QUALIFY row_number() OVER (PARTITION BY metrics.fit_id, metrics.name, metrics.slice ORDER BY metrics.step DESC) = 1
        """,
    ),
    **PAIR_VIEWS,
}
