"""What a reward model's data card tells of each set that went in, and the same as a short table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from configs.fit_settings import RewardFitSettings
from configs.mixture_settings import StageSettings
from train.data import Encoded, pairs_hash
from train.sources import Gathered, shown, source_of

REASONS = {
    "held_out_prompt": "with a prompt that is held out",
    "apart_from": "with a prompt to keep apart from",
    "contradiction": "that others contradict",
    "duplicate": "that are there already",
    "limit": "over the limit",
    "weights": "over the weight",
    "too_long": "too long",
}
"""Why a training pair was left out, as people read it."""


def sources_card(
    settings: RewardFitSettings, gathered: Gathered, names: Mapping[str, Sequence[str]], encoded: Mapping[str, Encoded]
) -> dict[str, Any]:
    """Of each set: where it comes from, what was read and left out, and what is trained on.

    Args:
        names: by split, the set of each pair that was to be encoded.
        encoded: by split, what became of them.
    """
    trained = encoded["train"]
    names_kept = [names["train"][place] for place in trained.places]
    of_set = {name: [place for place, own in enumerate(names_kept) if own == name] for name in gathered.read}
    weights = settings.mixture.weights if settings.mixture else {}
    cards: dict[str, Any] = {}
    for name, places in of_set.items():
        source, kept = source_of(settings, name), [trained.kept[place] for place in places]
        cards[name] = {
            "source": "given" if source.path is None else shown(source.path),
            "campaign": source.campaign,
            "method": source.method,
            "limit": source.limit,
            "weight": weights.get(name),
            "weight_share": round(weights[name] / sum(weights.values()), 4) if name in weights else None,
            "read": dict(sorted(Counter(pair.split for pair in gathered.read[name]).items())),
            "undecided": dict(gathered.undecided[name]),
            "left_out": {split: dict(n) for split, n in sorted(gathered.mixture.left_out[name].items())},
            "too_long": {
                split: names[split].count(name) - _kept_of(name, names[split], encoded[split]) for split in names
            },
            "used": {split: _kept_of(name, names[split], encoded[split]) for split in names},
            "repeated": gathered.mixture.repeated[name],
            "methods": dict(sorted(Counter(pair.method for pair in kept).items())),
            "share": round(len(places) / len(names_kept), 4) if names_kept else 0.0,
            "tokens": sum(len(trained.pairs[place].chosen) + len(trained.pairs[place].rejected) for place in places),
            "hash": pairs_hash(kept),
        }
    return cards


def mixture_card(
    settings: RewardFitSettings, gathered: Gathered, stages: Sequence[tuple[StageSettings, Sequence[int], int]]
) -> dict[str, Any] | None:
    """How the sets were put together; null for a plain union."""
    if settings.mixture is None:
        return None
    return {
        "order": "curriculum" if stages else "union",
        "stages": [
            {"sets": list(stage.sets), "share": stage.share, "pairs": len(places), "steps": steps}
            for stage, places, steps in stages
        ],
        "size": settings.mixture.size,
        "contradictions": settings.mixture.contradictions,
        "apart_from": gathered.avoided,
    }


def _kept_of(name: str, names: Sequence[str], encoded: Encoded) -> int:
    return sum(names[place] == name for place in encoded.places)


def sources_lines(card: Mapping[str, Any]) -> list[str]:
    """The sets of a data card as plain text: a table of the training pairs, what was left out, and in which order they came."""
    from train.evaluate import WIDTH, table

    sources: Mapping[str, Mapping[str, Any]] = card["sources"]
    mixture = card["mixture"]
    rows = {
        name: {
            "set": name,
            "read": str(of_set["read"].get("train", 0)),
            "used": str(of_set["used"]["train"]),
            "share": f"{100 * of_set['share']:.1f} %",
            "asked": f"{100 * of_set['weight_share']:.1f} %" if of_set.get("weight") else "",
            "repeats": str(of_set.get("repeated") or ""),
            "tokens": str(of_set["tokens"]),
            "validation": str(of_set["used"]["validation"]),
        }
        for name, of_set in sources.items()
    }
    columns = [column for column in next(iter(rows.values())) if any(row[column] for row in rows.values())]
    lines = table(columns, [[row[column] for column in columns] for row in rows.values()])
    for name, of_set in sources.items():
        counts = of_set["left_out"].get("train", {}) | {"too_long": of_set["too_long"]["train"]}
        told = ", ".join(f"{counts[reason]} {words}" for reason, words in REASONS.items() if counts.get(reason))
        lines += wrap(f"Left out of {name}: {told}.", WIDTH) if told else []
        if undecided := of_set.get("undecided"):
            reasons = ", ".join(f"{n} {reason}" for reason, n in undecided.items())
            lines += wrap(f"Comparisons of {name} that make no pair: {reasons}.", WIDTH)
    if mixture is not None and mixture["apart_from"]:
        apart = ", ".join(f"{source} ({n} prompts)" for source, n in mixture["apart_from"].items())
        lines += wrap(f"Apart from {apart}.", WIDTH)
    if mixture is not None and mixture["stages"]:
        stages = (f"{' + '.join(stage['sets'])} for {stage['steps']} steps" for stage in mixture["stages"])
        lines += wrap(f"In stages: {', then '.join(stages)}.", WIDTH)
    return lines
