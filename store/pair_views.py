"""The views of what preference pairs cost and how good they are: a row a campaign and method, ready to be compared.

What SQL cannot count comes from `pair_stats` and `method_stats`, which `descant report` fills. docs/pair-quality.md
says what each figure means.

A filter on a campaign reaches the scans only where the campaign is grouped by: so verdicts are joined to their pairs before
anything is counted. Nothing counts DISTINCT over all verdicts, which DuckDB answers with a second pass and a join.
"""

from configs.pairing_settings import METHODS
from store.pairs import NEAR_IDENTICAL
from store.tables import LOST_TOKENS, LOST_USD, View

ORACLE = "oracle"
"""The set of true labels, where the rehearsal's world is known."""
MAJORITY = "majority"
NORMAL = 1.959963984540054
"""Standard errors on either side of a mean that hold 95 %."""
_MAKES_PAIRS = ("music", "capo", *METHODS)
_COUNT = "Pairs of the campaign and method."
_INTERVAL = "end of its 95 % interval (Wilson; it takes pairs for independent, which those of one seed are not quite)."
_NOISE = "disagree by agree and disagree: the share of labels that are wrong where one can tell; null where none can be told."


def _wilson(wrong: str, n: str, sign: str) -> str:
    """SQL of an end of Wilson's 95 % interval of a share; null where n is 0."""
    z = NORMAL
    p = f"({wrong} / {n})"
    spread = f"{z} * sqrt({p} * (1 - {p}) / {n} + {z * z} / (4.0 * {n} * {n}))"
    end = f"({p} + {z * z} / (2.0 * {n}) {sign} {spread}) / (1 + {z * z} / {n})"
    return f"CASE WHEN {n} > 0 THEN least(1.0, greatest(0.0, {end})) END"


PAIR_VIEWS: dict[str, View] = {
    "pair_costs": View(
        "What pairs cost: one row a campaign and method. Later judgings are campaigns of their own and do not count.",
        {
            "campaign_id": "The campaign.",
            "name": "What people call it.",
            "method": "How the pairs were made; the recipe where none came about.",
            "pairs": _COUNT,
            "calls": "Calls of the whole campaign that were answered or failed, those that were superseded too: they were paid.",
            "prompt_tokens": "Of the whole campaign, as providers counted them.",
            "completion_tokens": "Of the whole campaign, as providers counted them.",
            "cost_usd": "Of the whole campaign; null when the price of any answered call is unknown.",
            "calls_a_pair": "Calls by the campaign's pairs of all methods; null where it has none.",
            "prompt_tokens_a_pair": "As calls_a_pair.",
            "completion_tokens_a_pair": "As calls_a_pair.",
            "cost_usd_a_pair": "As calls_a_pair; null when cost_usd is.",
            "lost_tokens": f"Of the whole campaign. {LOST_TOKENS}",
            "lost_usd": LOST_USD,
            "lost_tokens_a_pair": "As calls_a_pair.",
            "lost_usd_a_pair": "As calls_a_pair; null when lost_usd is.",
        },
        f"""
        WITH made AS (
            SELECT campaign_id, method, count(*) AS pairs FROM pairs GROUP BY campaign_id, method
            UNION ALL
            SELECT campaign_id, recipe, 0 FROM campaigns ANTI JOIN pairs USING (campaign_id) WHERE recipe IN {_MAKES_PAIRS}
        ), spent AS (
            SELECT campaign_id, count(*) FILTER (status <> 'started') AS calls,
                coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens,
                coalesce(sum(completion_tokens), 0)::BIGINT AS completion_tokens,
                CASE WHEN count(*) FILTER (status IN ('done', 'superseded') AND cost_usd IS NULL) = 0
                     THEN coalesce(sum(cost_usd), 0.0) END AS cost_usd,
                coalesce(sum(lost_tokens) FILTER (status <> 'started'), 0)::BIGINT AS lost_tokens,
                CASE WHEN count(*) FILTER (status <> 'started' AND lost_tokens > 0 AND lost_usd IS NULL) = 0
                     THEN coalesce(sum(lost_usd) FILTER (status <> 'started'), 0.0) END AS lost_usd
            FROM calls GROUP BY campaign_id
        ), paid AS (
            SELECT made.*, coalesce(calls, 0) AS calls, coalesce(prompt_tokens, 0) AS prompt_tokens,
                coalesce(completion_tokens, 0) AS completion_tokens,
                CASE WHEN spent.campaign_id IS NULL THEN 0.0 ELSE cost_usd END AS cost_usd,
                coalesce(lost_tokens, 0) AS lost_tokens,
                CASE WHEN spent.campaign_id IS NULL THEN 0.0 ELSE lost_usd END AS lost_usd,
                nullif(sum(pairs) OVER (PARTITION BY made.campaign_id), 0) AS shares
            FROM made LEFT JOIN spent USING (campaign_id)
        )
        SELECT campaign_id, campaigns.name, method, pairs, calls, prompt_tokens, completion_tokens, cost_usd,
            calls / shares AS calls_a_pair, prompt_tokens / shares AS prompt_tokens_a_pair,
            completion_tokens / shares AS completion_tokens_a_pair, cost_usd / shares AS cost_usd_a_pair,
            lost_tokens, lost_usd, lost_tokens / shares AS lost_tokens_a_pair, lost_usd / shares AS lost_usd_a_pair
        FROM paid LEFT JOIN (SELECT campaign_id, name FROM campaigns) AS campaigns USING (campaign_id)
        """,
    ),
    "label_noise": View(
        "How often judges find a pair's label wrong: one row a campaign, method, set of verdicts and judge.",
        {
            "campaign_id": "The campaign whose pairs were judged.",
            "method": "How the pairs were made.",
            "label_set": "The set of verdicts: `oracle` is what is true in the rehearsal's world, `campaign` what the campaign's own judges said, who are not independent of labels that they gave.",
            "judge": "The judge, its two orders settled (a flip is a tie), or its two grades compared; `majority` for that of all judges of the set.",
            "pairs": "Pairs with a verdict of that judge in both orders, invalid ones too; of `majority`, with any such.",
            "agree": "Pairs whose chosen side is found better.",
            "disagree": "Pairs whose rejected side is found better.",
            "tie": "Pairs of which neither side is.",
            "invalid": "Pairs whose verdict could not be read.",
            "noise": _NOISE,
            "low": f"Lower {_INTERVAL}",
            "high": f"Upper {_INTERVAL}",
        },
        f"""
        WITH said AS NOT MATERIALIZED (
            SELECT label_set, coalesce(judge, judge_model) AS judge, pair_id, dialogue_id, rubric, presentation, verdict,
                score
            FROM judgements WHERE turn_id IS NULL AND opponent_id IS NULL
        ), labels AS (
            SELECT campaign_id, method, label_set, judge, pair_id,
                CASE WHEN min(verdict) = max(verdict) THEN min(verdict)
                     WHEN bool_or(verdict = 'invalid') THEN 'invalid' ELSE 'tie' END AS label
            FROM said JOIN pairs USING (pair_id)
            WHERE rubric IN ('compare', 'prefer', 'reference_compare', '{ORACLE}')
            GROUP BY campaign_id, method, label_set, judge, pair_id
            HAVING (min(presentation) = max(presentation)) = bool_or(presentation = 'single')
            UNION ALL
            SELECT campaign_id, method, label_set, judge, sides.pair_id,
                CASE WHEN count(score) < count(*) THEN 'invalid'
                     WHEN abs(avg(score) FILTER (is_chosen) - avg(score) FILTER (NOT is_chosen)) < 1e-9 THEN 'tie'
                     WHEN avg(score) FILTER (is_chosen) > avg(score) FILTER (NOT is_chosen) THEN 'chosen'
                     ELSE 'rejected' END
            FROM (
                SELECT campaign_id, method, pair_id, unnest([chosen_id, rejected_id]) AS dialogue_id,
                    unnest([true, false]) AS is_chosen
                FROM pairs
            ) AS sides JOIN (FROM said WHERE pair_id IS NULL AND rubric IN ('score', 'reference')) AS graded USING (dialogue_id)
            GROUP BY campaign_id, method, label_set, judge, sides.pair_id
            HAVING bool_or(is_chosen) AND NOT bool_and(is_chosen)
        ), majorities AS (
            SELECT campaign_id, method, label_set, '{MAJORITY}' AS judge, CASE
                WHEN bool_and(label = 'invalid') THEN 'invalid'
                WHEN count(*) FILTER (label = 'chosen')
                    > greatest(count(*) FILTER (label = 'rejected'), count(*) FILTER (label = 'tie')) THEN 'chosen'
                WHEN count(*) FILTER (label = 'rejected')
                    > greatest(count(*) FILTER (label = 'chosen'), count(*) FILTER (label = 'tie')) THEN 'rejected'
                ELSE 'tie' END AS label
            FROM labels GROUP BY campaign_id, method, label_set, pair_id
        ), counted AS (
            SELECT campaign_id, method, label_set, judge, count(*) AS pairs,
                count(*) FILTER (label = 'chosen') AS agree, count(*) FILTER (label = 'rejected') AS disagree,
                count(*) FILTER (label = 'tie') AS tie, count(*) FILTER (label = 'invalid') AS invalid
            FROM (
                SELECT campaign_id, method, label_set, judge, label FROM labels UNION ALL FROM majorities
            ) GROUP BY campaign_id, method, label_set, judge
        )
        SELECT *, CASE WHEN agree + disagree > 0 THEN disagree / (agree + disagree) END AS noise,
            {_wilson("disagree", "(agree + disagree)", "-")} AS low,
            {_wilson("disagree", "(agree + disagree)", "+")} AS high
        FROM counted
        """,
    ),
    "pair_diversity": View(
        "How varied the answers of pairs are, within pairs and between them: one row a campaign and method that `descant report` measured.",
        {
            "campaign_id": "The campaign.",
            "method": "How the pairs were made.",
            "pairs": _COUNT,
            "measured": "Pairs that the figures between pairs are of; fewer than `pairs` where more came since.",
            "distinct_1_within": "Different words by all words of a pair's own answers, both sides together, on average.",
            "distinct_2_within": "The same of runs of two words.",
            "self_rouge": "100 times the mean ROUGE-L F1 of answers to different seeds: higher is more alike.",
            "self_rouge_low": "Lower end of its 95 % interval (bootstrap over seeds).",
            "self_rouge_high": "Upper end of its 95 % interval (bootstrap over seeds).",
            "distinct_1": "Different words by all words of answers to different seeds, the mean of samples of equal size.",
            "distinct_1_low": "Lower end of its 95 % interval.",
            "distinct_1_high": "Upper end of its 95 % interval.",
            "distinct_2": "The same of runs of two words.",
            "distinct_2_low": "Lower end of its 95 % interval.",
            "distinct_2_high": "Upper end of its 95 % interval.",
            "chosen_words": "Words of the chosen side's own answers, on average.",
            "rejected_words": "Words of the rejected side's own answers, on average.",
        },
        """
        SELECT campaign_id, method, within.pairs, method_stats.pairs AS measured, distinct_1_within, distinct_2_within,
            self_rouge, self_rouge_low, self_rouge_high, distinct_1, distinct_1_low, distinct_1_high,
            distinct_2, distinct_2_low, distinct_2_high, chosen_words, rejected_words
        FROM (
            SELECT campaign_id, method, count(*) AS pairs, avg(distinct_1) AS distinct_1_within,
                avg(distinct_2) AS distinct_2_within, avg(chosen_words) AS chosen_words,
                avg(rejected_words) AS rejected_words
            FROM pairs LEFT JOIN pair_stats USING (pair_id) GROUP BY campaign_id, method
        ) AS within
        JOIN method_stats USING (campaign_id, method)
        """,
    ),
    "pair_report": View(
        "What a pair costs and how good it is, a row a campaign and method: `descant report` fills what must be measured.",
        {
            "campaign_id": "The campaign.",
            "name": "What people call it.",
            "method": "How the pairs were made; the recipe where none came about.",
            "pairs": _COUNT,
            "calls": "Of the whole campaign, as in pair_costs.",
            "calls_a_pair": "As in pair_costs.",
            "prompt_tokens_a_pair": "As in pair_costs.",
            "completion_tokens_a_pair": "As in pair_costs.",
            "cost_usd_a_pair": "As in pair_costs.",
            "lost_tokens_a_pair": "As in pair_costs.",
            "lost_usd_a_pair": "As in pair_costs.",
            "oracle_pairs": "Pairs of which the rehearsal's oracle can tell the true label; null where it was not asked.",
            "oracle_noise": f"By the oracle: {_NOISE}",
            "oracle_low": f"Lower {_INTERVAL}",
            "oracle_high": f"Upper {_INTERVAL}",
            "oracle_tie": "The share of oracle_pairs whose sides are truly as good as each other.",
            "judged_by": "The set of independent verdicts (neither `oracle` nor `campaign`) on most of the pairs, of equal ones the first by name; null where there is none. label_noise has them all.",
            "judged_pairs": "Pairs with a verdict of that set.",
            "judged_noise": f"By the majority of its judges: {_NOISE}",
            "judged_low": f"Lower {_INTERVAL}",
            "judged_high": f"Upper {_INTERVAL}",
            "judged_tie": "The share of judged_pairs that are ties.",
            "labelled_pairs": "Pairs with an intended and a judged label.",
            "labels_agree": "The share of labelled_pairs whose two labels are the same.",
            "self_rouge": "As in pair_diversity.",
            "distinct_1": "As in pair_diversity: between pairs.",
            "distinct_2": "As in pair_diversity: between pairs.",
            "distinct_1_within": "As in pair_diversity.",
            "distinct_2_within": "As in pair_diversity.",
            "similarity": "How like a pair's sides are (`pairs.similarity`), on average.",
            "near_identical": f"Pairs whose sides have a similarity of at least {NEAR_IDENTICAL}.",
            "chosen_longer": "Share of pairs whose chosen side has more words, equal ones half: near 0.5 is balanced.",
            "chosen_words": "Words of the chosen side's own answers, on average.",
            "rejected_words": "Words of the rejected side's own answers, on average.",
            "caught": "Answers of the campaign that could not stand in a pair (table `caught`).",
            "without_pair": "Places of dialogues that in the end got no pair.",
        },
        f"""
        WITH about AS (
            SELECT campaign_id, method,
                count(*) FILTER (intended_label IS NOT NULL AND judged_label IS NOT NULL) AS labelled_pairs,
                avg((intended_label = judged_label)::INTEGER) AS labels_agree,
                avg(similarity) AS similarity, count(*) FILTER (similarity >= {NEAR_IDENTICAL}) AS near_identical,
                avg(CASE WHEN length_ratio > 1 THEN 1.0 WHEN length_ratio = 1 THEN 0.5 WHEN length_ratio < 1 THEN 0.0 END)
                    AS chosen_longer
            FROM pairs GROUP BY campaign_id, method
        ), majorities AS (
            SELECT campaign_id, method, label_set, {{
                'label_set': label_set, 'of': pairs, 'noise': noise, 'low': low, 'high': high, 'tie': tie / pairs
            }} AS said
            FROM label_noise WHERE judge = '{MAJORITY}'
        ), told AS (
            SELECT campaign_id, method, any_value(said) FILTER (label_set = '{ORACLE}') AS truth,
                first(said ORDER BY said.of DESC, label_set) FILTER (label_set NOT IN ('{ORACLE}', 'campaign')) AS independent
            FROM majorities GROUP BY campaign_id, method
        ), lost AS (
            SELECT campaign_id, count(*) AS caught,
                count(DISTINCT (dialogue_id, depth)) FILTER (outcome = 'no_pair' AND got_a_pair IS NULL) AS without_pair
            FROM caught LEFT JOIN (
                SELECT DISTINCT campaign_id, dialogue_id, depth, true AS got_a_pair
                FROM (
                    SELECT campaign_id, dialogue_id, depth FROM caught WHERE agent <> 'user' AND outcome = 'no_pair'
                ) JOIN (
                    SELECT dialogue_id AS chosen_id, forked_from AS dialogue_id, len(turn_ids) - 1 AS depth FROM dialogues
                ) USING (dialogue_id, depth) SEMI JOIN pairs USING (chosen_id)
            ) USING (campaign_id, dialogue_id, depth)
            WHERE agent <> 'user' GROUP BY campaign_id
        )
        SELECT campaign_id, costs.name, method, costs.pairs, calls, calls_a_pair, prompt_tokens_a_pair,
            completion_tokens_a_pair, cost_usd_a_pair, lost_tokens_a_pair, lost_usd_a_pair,
            truth.of AS oracle_pairs, truth.noise AS oracle_noise, truth.low AS oracle_low, truth.high AS oracle_high,
            truth.tie AS oracle_tie, independent.label_set AS judged_by, independent.of AS judged_pairs,
            independent.noise AS judged_noise, independent.low AS judged_low, independent.high AS judged_high,
            independent.tie AS judged_tie, coalesce(labelled_pairs, 0) AS labelled_pairs, labels_agree,
            self_rouge, distinct_1, distinct_2, distinct_1_within, distinct_2_within,
            similarity, coalesce(near_identical, 0) AS near_identical, chosen_longer, chosen_words, rejected_words,
            coalesce(lost.caught, 0) AS caught, coalesce(without_pair, 0) AS without_pair
        FROM pair_costs AS costs
        LEFT JOIN about USING (campaign_id, method)
        LEFT JOIN pair_diversity USING (campaign_id, method)
        LEFT JOIN told USING (campaign_id, method)
        LEFT JOIN lost USING (campaign_id)
        """,
    ),
}
