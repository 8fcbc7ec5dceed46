"""The tables of the corpus, and what each column means: plain data, from which `store.migrations` builds them.

Tables have no key constraints: the ingester is the only writer and replaces rows by key itself, and DuckDB's
own `INSERT OR REPLACE` was measured at 2,000 rows/s against 200,000. Times are UTC in plain TIMESTAMP columns,
since DuckDB needs another package (pytz) to hand TIMESTAMPTZ to Python.
"""

from typing import NamedTuple

CAMPAIGN_STATUS = "running, paused or done, as last written; `descant status` shows `interrupted` for a running one whose process is gone."
JUDGED_LABEL = (
    "chosen, rejected or tie: the majority of judges, each judge's two orders settled first (a flip is a tie); null when "
    "no judge was asked, or none could be read."
)
SIMILARITY = (
    "ROUGE-L F1 of what the two sides wrote for themselves from the first difference on, 0 to 1: from 0.9 on they are "
    "near-identical; null when not measured."
)
LENGTH_RATIO = (
    "Words of the chosen conversation by words of the rejected one: above 1, chosen is longer; null when not measured."
)
LOST_TOKENS = (
    "At most so many tokens more, for requests that brought no answer and may be billed all the same; those in flight, and "
    "those that a kill cut off, are left out."
)
LOST_USD = "The same in dollars; null when the price of any is unknown."
MESSAGES = "STRUCT(role VARCHAR, content VARCHAR)[]"


class Column(NamedTuple):
    name: str
    type: str
    comment: str
    later: bool = False
    """Added by a migration of its own, not by the first; such columns stand at the end."""
    packed: bool = True
    """False for ids of which each row has another: to pack those of `turns` saves a sixth of the table, and costs a seventh
    of the time in which rows are taken in."""


class Table(NamedTuple):
    name: str
    comment: str
    columns: tuple[Column, ...]
    later: bool = False
    """Made by a migration of its own, not by the first."""


class View(NamedTuple):
    comment: str
    columns: dict[str, str]
    sql: str


TABLES = (
    Table(
        "campaigns",
        "A run of a recipe.",
        (
            Column(
                "campaign_id",
                "VARCHAR",
                "Hash of what shapes the text: name, recipe, random_seed, turns, perturb, models, prompts.",
            ),
            Column("name", "VARCHAR", "What people call it."),
            Column("recipe", "VARCHAR", "How its dialogues are made: dialogue, music, ..."),
            Column("config", "JSON", "The resolved settings, without secrets."),
            Column("config_hash", "VARCHAR", "Hash of the resolved settings."),
            Column("version", "VARCHAR", "Of Descant, when the campaign was last started."),
            Column("status", "VARCHAR", CAMPAIGN_STATUS),
            Column("created_at", "TIMESTAMP", "First start, UTC."),
            Column("finished_at", "TIMESTAMP", "When it was done, UTC; null until then."),
            Column("n_seeds", "BIGINT", "Seeds that the last run was given; null when it did not say."),
            Column(
                "paused_by",
                "VARCHAR",
                "What paused it: pause (`descant pause`), budget, interrupt (Ctrl-C), error, retry-failed; else null.",
                later=True,
            ),
        ),
    ),
    Table(
        "seeds",
        "Where dialogues start: a first turn, or a conversation's prefix.",
        (
            Column("seed_id", "VARCHAR", "Hash of the messages and of how often they came before in the file."),
            Column("source", "VARCHAR", "The file's name, the Hugging Face dataset, or rehearsal."),
            Column("messages", MESSAGES, "What the dialogue starts from."),
            Column("metadata", "JSON", "Ids, tasks and categories of the source's row."),
            Column("split", "VARCHAR", "train, validation or test, fixed by the text."),
        ),
    ),
    Table(
        "turns",
        "One message in the tree of turns: branches share the turns of their trunk.",
        (
            Column(
                "turn_id",
                "VARCHAR",
                "Hash of the parent, the dialogue that first wrote it, and the depth.",
                packed=False,
            ),
            Column("parent_id", "VARCHAR", "The turn before; null for the first.", packed=False),
            Column("campaign_id", "VARCHAR", "The campaign."),
            Column("seed_id", "VARCHAR", "The seed."),
            Column("depth", "INTEGER", "Place in the conversation, from 0."),
            Column("role", "VARCHAR", "system, user or assistant."),
            Column("content", "VARCHAR", "The text."),
            Column("agent", "VARCHAR", "Who wrote it: seed, user, assistant."),
            Column(
                "call_id", "VARCHAR", "The call that wrote it; null for a turn that came with the seed.", packed=False
            ),
            Column("perturbation_id", "VARCHAR", "The error injected here; null for a plain turn."),
        ),
    ),
    Table(
        "dialogues",
        "A path through the tree of turns, from root to leaf.",
        (
            Column("dialogue_id", "VARCHAR", "Hash of campaign, seed, branch and trial."),
            Column("campaign_id", "VARCHAR", "The campaign."),
            Column("seed_id", "VARCHAR", "The seed."),
            Column("branch", "VARCHAR", "main, chosen, rejected or candidate."),
            Column("trial", "INTEGER", "Which play of the seed, from 0."),
            Column("persona", "JSON", "Who the user simulator played; null when it was given nobody."),
            Column("prompt_hashes", "JSON", "Hashes of the prompts it was made with, by name."),
            Column(
                "forked_from", "VARCHAR", "The dialogue whose trunk it shares; null for one that starts at its seed."
            ),
            Column("turn_ids", "VARCHAR[]", "The path, from the first turn to the last."),
            Column("n_turns", "INTEGER", "Assistant answers, those of the seed included."),
            Column("status", "VARCHAR", "done or failed; open: it had ended and is to be played again."),
            Column(
                "termination_reason",
                "VARCHAR",
                "max_turns, user_ended, as_given (a seed's own conversation), not_picked (a candidate), what the gate caught, or the error's kind; never null.",
            ),
            Column("error", "VARCHAR", "What was said; null unless it failed."),
        ),
    ),
    Table(
        "perturbations",
        "One injected error.",
        (
            Column("perturbation_id", "VARCHAR", "Hash of dialogue, depth and kind."),
            Column("dialogue_id", "VARCHAR", "The dialogue."),
            Column("turn_id", "VARCHAR", "The answer that carries it."),
            Column(
                "kind",
                "VARCHAR",
                "music_contrast, context_neglect, context_hallucination, context_misunderstanding, ...",
            ),
            Column("instruction", "VARCHAR", "The visible user turn that the answer should have followed."),
            Column(
                "altered_instruction",
                "VARCHAR",
                "What was answered instead; null where the history alone was taken away.",
            ),
            Column("direction", "VARCHAR", "Which way an edit went, where the kind has one."),
            Column("aspects", "VARCHAR[]", "What it was to differ in, where the kind says so."),
            Column("plan", "VARCHAR", "The edit plan, where the kind has one."),
            Column("strength", "DOUBLE", "1 is full."),
            Column("verdict", "VARCHAR", "landed, missed or unchecked."),
            Column("verdict_source", "VARCHAR", "The model that gave the verdict; null when unchecked."),
            Column(
                "attempts",
                "INTEGER",
                "Tries that were altered and answered, the one that stands included; null in rows from before it was counted.",
                later=True,
            ),
        ),
    ),
    Table(
        "labels",
        "Which way a second answer is to differ from the first, drawn and noted before it is asked for (RMBoost).",
        (
            Column("label_id", "VARCHAR", "Hash of dialogue, depth, and which of several pairs at this place."),
            Column("campaign_id", "VARCHAR", "The campaign."),
            Column("dialogue_id", "VARCHAR", "The conversation that the pair belongs to."),
            Column("depth", "INTEGER", "The place of the two answers in the conversation, from 0."),
            Column("direction", "VARCHAR", "better or worse: what the second answer is to be."),
            Column(
                "aspects", "VARCHAR[]", "Drawn with it; null where the model that writes the second answer chooses."
            ),
            Column("created_at", "TIMESTAMP", "When it was drawn, UTC: before the call that writes the answer."),
        ),
        later=True,
    ),
    Table(
        "caught",
        "A query that the gate did not let pass, or an answer that could not stand in a pair: it is no turn.",
        (
            Column("catch_id", "VARCHAR", "Hash of dialogue, depth and attempt."),
            Column("campaign_id", "VARCHAR", "The campaign."),
            Column("dialogue_id", "VARCHAR", "The dialogue."),
            Column("depth", "INTEGER", "The place in the conversation that it was to take, from 0."),
            Column("attempt", "INTEGER", "Which query at this place, from 0."),
            Column(
                "reason",
                "VARCHAR",
                "Of a query role_inversion, leak, early_end, restart, repetition (breaks of the user's role), repetitive, short, sensitive, garbled, unfinished; of an answer unparsable, empty, cut_off, near_identical, speaks_of_editing, speaks_of_aspects, too_long, too_short; of two answers tie, invalid, missed, unscorable.",
            ),
            Column("source", "VARCHAR", "rule, or the judge that found it."),
            Column("content", "VARCHAR", "What was written; [END] where the user simulator ended the dialogue."),
            Column("call_id", "VARCHAR", "The call that wrote it."),
            Column(
                "outcome",
                "VARCHAR",
                "asked_again, or the dialogue was ended before the query (ended) or given up (failed); of an answer asked_again, no_pair, or left_out (of several that made one).",
            ),
            Column(
                "agent",
                "VARCHAR",
                "Who wrote it: user, assistant or perturbation; null in older rows: user.",
                later=True,
            ),
        ),
        later=True,
    ),
    Table(
        "calls",
        "One call of a model. A call noted again under the same id and request replaces itself.",
        (
            Column("call_id", "VARCHAR", "Hash of dialogue, depth, agent, purpose and ordinal.", packed=False),
            Column(
                "request_hash",
                "VARCHAR",
                "Hash of what was sent: a resume reuses an answer only when both agree.",
                packed=False,
            ),
            Column("campaign_id", "VARCHAR", "The campaign."),
            Column("dialogue_id", "VARCHAR", "The dialogue."),
            Column("agent", "VARCHAR", "Who called: user, assistant, perturbation, judge."),
            Column("purpose", "VARCHAR", "The task that the prompt names."),
            Column("ordinal", "INTEGER", "Which such call at this place, from 0."),
            Column("model", "VARCHAR", "The LiteLLM model string."),
            Column("messages", MESSAGES, "What was sent, or null: the view `requests` has it whole."),
            Column("parameters", "JSON", "Sampling parameters that were sent."),
            Column("response", "VARCHAR", "The answer's text."),
            Column("finish_reason", "VARCHAR", "Why the model stopped, in OpenAI's word where there is one."),
            Column("status", "VARCHAR", "started, done, failed or superseded."),
            Column("prompt_tokens", "BIGINT", "As the provider counted them; null when it did not."),
            Column("completion_tokens", "BIGINT", "As the provider counted them; null when it did not."),
            Column("cost_usd", "DOUBLE", "Null: the price is unknown. 0: known to be free."),
            Column("latency_ms", "DOUBLE", "From sending to the whole answer, retries included."),
            Column("attempts", "INTEGER", "Tries in all."),
            Column("error", "VARCHAR", "What was said when it failed."),
            Column("created_at", "TIMESTAMP", "When it was noted, UTC."),
            Column(
                "lost_tokens",
                "BIGINT",
                "At most so many tokens more may have been paid for, by requests that were sent and never answered; 0 or null: none.",
                later=True,
            ),
            Column("lost_usd", "DOUBLE", "The same in dollars.", later=True),
            Column(
                "based_on",
                "VARCHAR",
                "Of a long dialogue: the request_hash of an earlier request that this one repeats but for some text.",
                later=True,
            ),
            Column("kept_head", "INTEGER", "Characters of that one's beginning that it repeats.", later=True),
            Column("kept_tail", "INTEGER", "Characters of its end that it repeats.", later=True),
            Column("inserted", "VARCHAR", "What stands between the two.", later=True),
        ),
    ),
    Table(
        "pairs",
        "A preference pair: two dialogues of one seed. See the view preference_pairs for the conversations.",
        (
            Column("pair_id", "VARCHAR", "Hash of both dialogues and the method."),
            Column("campaign_id", "VARCHAR", "The campaign."),
            Column("method", "VARCHAR", "How it was made: music, capo, ..."),
            Column("chosen_id", "VARCHAR", "The dialogue of the better side."),
            Column("rejected_id", "VARCHAR", "The dialogue of the worse side."),
            Column("first_divergent_turn", "INTEGER", "Which assistant answer differs first, from 1."),
            Column(
                "n_contrast_turns",
                "INTEGER",
                "Answers of the rejected side that were perturbed and not found to have missed.",
            ),
            Column("aspects", "VARCHAR[]", "What the sides were made to differ in, where the method says so."),
            Column("label_source", "VARCHAR", "construction, or the judges or the reward model that gave the label."),
            Column("intended_label", "VARCHAR", "Which side was meant to be better: chosen; null where none was."),
            Column("judged_label", "VARCHAR", JUDGED_LABEL),
            Column("split", "VARCHAR", "train, validation or test: the seed's."),
            Column("margin", "DOUBLE", "How far apart the sides are; null when nothing says so."),
            Column("similarity", "DOUBLE", SIMILARITY, later=True),
            Column("length_ratio", "DOUBLE", LENGTH_RATIO, later=True),
        ),
    ),
    Table(
        "pair_stats",
        "What SQL cannot count about a pair, of the answers that its sides wrote for themselves; `descant report` fills it.",
        (
            Column("pair_id", "VARCHAR", "The pair."),
            Column("chosen_words", "INTEGER", "Words of the chosen side's own answers."),
            Column("rejected_words", "INTEGER", "Words of the rejected side's own answers."),
            Column("distinct_1", "DOUBLE", "Different words by all words of both sides; null where there are none."),
            Column("distinct_2", "DOUBLE", "The same of runs of two words."),
        ),
        later=True,
    ),
    Table(
        "method_stats",
        "How varied the answers of a campaign's pairs of one method are (docs/pair-quality.md); `descant report` fills it.",
        (
            Column("campaign_id", "VARCHAR", "The campaign."),
            Column("method", "VARCHAR", "How the pairs were made."),
            Column("pairs", "BIGINT", "Pairs that the figures are of."),
            Column("pairs_hash", "VARCHAR", "Hash of their ids: another one means that the figures are of old."),
            Column("seeds", "BIGINT", "Seeds of these pairs."),
            Column(
                "self_rouge",
                "DOUBLE",
                "100 times the mean ROUGE-L F1 of answers to different seeds; null where no two seeds have any.",
            ),
            Column("self_rouge_low", "DOUBLE", "Lower end of its 95 % interval."),
            Column("self_rouge_high", "DOUBLE", "Upper end of its 95 % interval."),
            Column(
                "distinct_1",
                "DOUBLE",
                "Different words by all words, the mean of samples of equal size; null where the answers fill none.",
            ),
            Column("distinct_1_low", "DOUBLE", "Lower end of its 95 % interval; null where samples are too few."),
            Column("distinct_1_high", "DOUBLE", "Upper end of its 95 % interval."),
            Column("distinct_2", "DOUBLE", "The same of runs of two words."),
            Column("distinct_2_low", "DOUBLE", "Lower end of its 95 % interval."),
            Column("distinct_2_high", "DOUBLE", "Upper end of its 95 % interval."),
            Column("samples", "BIGINT", "Samples that distinct-n is the mean of."),
        ),
        later=True,
    ),
    Table(
        "judgements",
        "One judge's verdict on a pair or a dialogue.",
        (
            Column("judgement_id", "VARCHAR", "Hash of label set, subject, turn, judge and presentation."),
            Column("label_set", "VARCHAR", "Which round of judging; later rounds stand beside earlier ones."),
            Column("pair_id", "VARCHAR", "The pair that was judged; null for a dialogue."),
            Column("dialogue_id", "VARCHAR", "The dialogue that was judged; null for a pair."),
            Column("turn_id", "VARCHAR", "The turn that was judged; null for the whole."),
            Column("judge_model", "VARCHAR", "The LiteLLM model string."),
            Column(
                "rubric",
                "VARCHAR",
                "What was asked: verify, verify_context, depends, compare, prefer, score, reference, reference_compare; oracle: nobody was, the rehearsal's world is known.",
            ),
            Column(
                "presentation",
                "VARCHAR",
                "chosen_first, rejected_first or single; dialogue_first or opponent_first against an opponent.",
            ),
            Column(
                "verdict",
                "VARCHAR",
                "chosen, rejected, tie, landed, missed, depends, stands_alone, dialogue or opponent, scored, or invalid when the answer could not be read.",
            ),
            Column("score", "DOUBLE", "Where the rubric gives one."),
            Column("rationale", "VARCHAR", "The judge's reason."),
            Column("raw", "VARCHAR", "The judge's whole answer."),
            Column("call_id", "VARCHAR", "The call."),
            Column(
                "opponent_id", "VARCHAR", "The dialogue that it was compared with; null where it met none.", later=True
            ),
            Column(
                "judge",
                "VARCHAR",
                "Which judge: its model string, with #2, #3, ... for further judges of the same model.",
                later=True,
            ),
            Column("error", "VARCHAR", "Why the verdict is invalid, when it is (null in older rows, too).", later=True),
        ),
    ),
    Table(
        "dialogue_stats",
        "What SQL cannot count about a dialogue.",
        (
            Column("dialogue_id", "VARCHAR", "The dialogue."),
            Column("n_words", "INTEGER", "Words of all turns."),
            Column(
                "n_tokens",
                "BIGINT",
                "Completion tokens of its own turns, null where a provider did not report usage; of an imported dialogue those of all turns, null without a tokenizer.",
            ),
            Column(
                "context_dependent_turns",
                "INTEGER",
                "User turns that cannot be understood alone, by the rules of store/context.py, those of the seed included; null when not counted.",
            ),
            Column(
                "self_rouge",
                "DOUBLE",
                "How far its user turns repeat each other: 100 times the mean ROUGE-L F1 of all pairs of them; null below two.",
            ),
        ),
    ),
    Table(
        "fits",
        "A training run.",
        (
            Column("fit_id", "VARCHAR", "Hash of name, objective and config."),
            Column("name", "VARCHAR", "What people call it."),
            Column("objective", "VARCHAR", "reward, ask, sft, dpo."),
            Column("arm", "VARCHAR", "Which of the trainings that a lab compares; null outside labs."),
            Column("config", "JSON", "The resolved settings."),
            Column("data_card", "JSON", "What it was trained on, with counts."),
            Column("checkpoint", "VARCHAR", "The folder of the trained model; null before there is one."),
            Column("status", "VARCHAR", "running, done or failed."),
            Column("created_at", "TIMESTAMP", "First start, UTC."),
        ),
    ),
    Table(
        "metrics",
        "A point of a curve, or one figure of an evaluation with its interval.",
        (
            Column("fit_id", "VARCHAR", "The fit."),
            Column("name", "VARCHAR", "What is measured."),
            Column("slice", "VARCHAR", "all, or what the figure is restricted to, such as n_turns=3."),
            Column("value", "DOUBLE", "The figure."),
            Column("low", "DOUBLE", "Lower end of its interval; null when there is none."),
            Column("high", "DOUBLE", "Upper end of its interval; null when there is none."),
            Column("n", "BIGINT", "Over how many items; null for a curve."),
            Column("step", "BIGINT", "The training step; 0 for an evaluation."),
        ),
    ),
    Table(
        "scores",
        "A reward of a dialogue, or of its prefix up to a turn.",
        (
            Column("fit_id", "VARCHAR", "The fit whose model scored."),
            Column("dialogue_id", "VARCHAR", "The dialogue; FILE:ID for a conversation that came from a file."),
            Column(
                "turn_id",
                "VARCHAR",
                "The prefix's last turn; empty for the whole dialogue; of a file's conversation the answer's number.",
            ),
            Column("reward", "DOUBLE", "Higher is better; only differences mean something."),
        ),
    ),
    Table(
        "ingested",
        "How far each segment of the journal has been moved into this database.",
        (
            Column("segment", "VARCHAR", "The segment's file name."),
            Column("byte_offset", "BIGINT", "Bytes that are in; whole lines."),
        ),
    ),
)
"""What the first migration makes. After a release, names and types stay; comments may be bettered."""
