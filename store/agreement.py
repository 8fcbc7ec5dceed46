"""How far judges agree with each other and with labels, and which way they lean: figures over stored verdicts.

Every figure is a function of sums over seeds, and its 95 % interval is a percentile bootstrap that draws seeds with
replacement (ours: 2,000 draws from a fixed random seed), since pairs and turns of one seed are not independent.
Verdicts that could not be read count nowhere but as `invalid`.

`chosen` and `rejected` are names that the construction gave. A judge that is always right always says `chosen`, and
chance-corrected figures over these names would be 0 for it. So kappa and alpha over verdicts count each pair twice,
under both namings of its sides: chance is then an even coin, whatever the names.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.database import StoreError, query
from store.pairs import settled

Array = NDArray[np.float64]
Level = Literal["nominal", "ordinal", "interval"]
LABELS = ("chosen", "tie", "rejected")
SCORES = tuple(range(1, 11))
INTENDED = "intended"
DRAWS = 2_000
RANDOM_SEED = 0
CELLS_AT_ONCE = 4_000_000
"""Of the draws of a bootstrap: what is held in memory."""
FEWEST_OF_A_CLASS = 5
"""Verdicts on either side below which the logistic coefficient is not given (ours)."""


class Figure(NamedTuple):
    """A figure with its interval and what it is over; null where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class Agreement(NamedTuple):
    """Two who gave verdicts on the same things."""

    one: str
    other: str
    """Another judge, `intended` (the label of the pairs), or `SET/JUDGE` of another set."""
    on: str
    """`verdicts` on pairs, or `scores`."""
    agreement: Figure
    """The share on which both say the same."""
    kappa: Figure
    """Cohen's (1960): over both namings of the sides for verdicts, with quadratic weights for scores."""


class JudgeFigures(NamedTuple):
    """One judge's verdicts, and which way they lean."""

    judge: str
    verdicts: int
    """Readable ones."""
    invalid: int
    position_bias: Figure
    """P(the side shown first wins) - P(the side shown second wins), over pairs read in both orders: 0 is unbiased."""
    consistency: Figure
    """The share of these pairs on which both orders give the same verdict."""
    length_bias: Figure
    """P(longer wins | the label says shorter) - P(shorter wins | the label says longer): 0 is unbiased (`length_bias`)."""
    length_coefficient: float | None
    """Of the log length ratio in a logistic model of the verdict, beside the label; null where verdicts are too alike."""
    mean_score: float | None
    """Where the rubric gives scores."""


class AgreementReport(NamedTuple):
    """All figures of a set of verdicts."""

    label_set: str
    rubrics: tuple[str, ...]
    pairs: int
    """With a verdict of some judge."""
    judges: tuple[JudgeFigures, ...]
    agreements: tuple[Agreement, ...]
    alpha: Figure
    """Krippendorff's, over all judges of the set: nominal over verdicts, interval over scores."""
    alpha_level: Level

    def to_json(self) -> dict[str, Any]:
        """The same in JSON's own types."""
        return {
            "label_set": self.label_set,
            "rubrics": list(self.rubrics),
            "pairs": self.pairs,
            "judges": [_plain(judge) for judge in self.judges],
            "agreements": [_plain(agreement) for agreement in self.agreements],
            "alpha": self.alpha._asdict(),
            "alpha_level": self.alpha_level,
        }


def _plain(row: JudgeFigures | Agreement) -> dict[str, Any]:
    return {name: value._asdict() if isinstance(value, Figure) else value for name, value in row._asdict().items()}


class Said(NamedTuple):
    """One verdict as it is stored, with the seed that it hangs on."""

    judge: str
    rubric: str
    seed_id: str
    pair_id: str | None
    dialogue_id: str | None
    turn_id: str | None
    presentation: str
    verdict: str
    score: float | None


class PairFacts(NamedTuple):
    """What a figure needs to know of a pair."""

    seed_id: str
    chosen_id: str
    rejected_id: str
    intended_label: str | None
    chosen_length: int
    """Characters of the assistant's answers, as of the other side."""
    rejected_length: int


Labels = Mapping[str, str]
"""By pair: chosen, rejected, tie or invalid."""


def agreement_of(path: str | os.PathLike[str], label_set: str) -> AgreementReport:
    """All figures of a set.

    Raises:
        StoreError: there is no such set.
    """
    said = _said(path, label_set)
    if not said:
        known = ", ".join(label_sets(path)) or "none yet: `descant judge CONFIG` makes one"
        raise StoreError(f"there is no set of verdicts {label_set!r}: there are {known}")
    facts = _facts(path)
    labels = _labels(said, facts)
    scores = _scores(said)
    others: dict[str, Labels] = {
        INTENDED: {pair: fact.intended_label for pair, fact in facts.items() if fact.intended_label is not None}
    }
    for name in label_sets(path):
        if name != label_set:
            others |= {f"{name}/{judge}": their for judge, their in _labels(_said(path, name), facts).items()}
    judges = sorted({row.judge for row in said})
    agreements = [
        _agreement_on_scores(one, other, scores)
        for number, one in enumerate(judges)
        for other in judges[number + 1 :]
        if one in scores and other in scores
    ]
    agreements += [
        _agreement_on_verdicts(one, other, labels[one], labels[other], facts)
        for number, one in enumerate(judges)
        for other in judges[number + 1 :]
        if one in labels and other in labels
    ]
    agreements += [
        found
        for one in judges
        for other, their in others.items()
        if one in labels and (found := _agreement_on_verdicts(one, other, labels[one], their, facts)).agreement.n
    ]
    alpha, level = _alpha_of(labels, scores, facts)
    return AgreementReport(
        label_set=label_set,
        rubrics=tuple(sorted({row.rubric for row in said})),
        pairs=len({pair for their in labels.values() for pair in their}),
        judges=tuple(_figures(judge, [row for row in said if row.judge == judge], labels, facts) for judge in judges),
        agreements=tuple(agreements),
        alpha=alpha,
        alpha_level=level,
    )


def label_sets(path: str | os.PathLike[str]) -> list[str]:
    """The sets of verdicts on pairs and conversations; checks of perturbations, and matches of two campaigns, are none."""
    rows = query(
        path,
        "SELECT label_set FROM judgements WHERE rubric NOT IN ('verify', 'verify_context', 'depends') AND opponent_id IS NULL GROUP BY 1 ORDER BY 1",
    )
    return [row["label_set"] for row in rows]


def labels_by_judge(path: str | os.PathLike[str], label_set: str) -> dict[str, Labels]:
    """Each judge's label of each pair: both orders settled (a flip is a tie), or the side with the higher mean score.

    Pairs of which something is missing are left out; `invalid` where something could not be read.
    """
    return _labels(_said(path, label_set), _facts(path))


# what is stored


def _said(path: str | os.PathLike[str], label_set: str) -> list[Said]:
    rows = query(
        path,
        """
        SELECT coalesce(judge, judge_model) AS judge, rubric,
            coalesce(of_pair.seed_id, of_dialogue.seed_id, '') AS seed_id,
            pair_id, judgements.dialogue_id, turn_id, presentation, verdict, score
        FROM judgements
        LEFT JOIN (SELECT pair_id, seed_id FROM pairs JOIN dialogues ON dialogue_id = chosen_id) AS of_pair USING (pair_id)
        LEFT JOIN (SELECT dialogue_id, seed_id FROM dialogues) AS of_dialogue
            ON of_dialogue.dialogue_id = judgements.dialogue_id
        WHERE label_set = ? AND rubric NOT IN ('verify', 'verify_context', 'depends') AND NOT starts_with(rubric, 'aspect: ') AND opponent_id IS NULL ORDER BY judgement_id
        """,
        [label_set],
    )
    return [Said(**row) for row in rows]


def _facts(path: str | os.PathLike[str]) -> dict[str, PairFacts]:
    rows = query(
        path,
        """
        WITH spoken AS (
            SELECT dialogue_id, sum(length(content)) FILTER (role = 'assistant') AS characters
            FROM (SELECT dialogue_id, unnest(turn_ids) AS turn_id FROM dialogues) JOIN turns USING (turn_id)
            GROUP BY dialogue_id
        )
        SELECT pair_id, good.seed_id, chosen_id, rejected_id, intended_label,
            coalesce(longs.characters, 0)::BIGINT AS chosen_length,
            coalesce(shorts.characters, 0)::BIGINT AS rejected_length
        FROM pairs JOIN dialogues AS good ON good.dialogue_id = chosen_id
        LEFT JOIN spoken AS longs ON longs.dialogue_id = chosen_id
        LEFT JOIN spoken AS shorts ON shorts.dialogue_id = rejected_id
        """,
    )
    return {row.pop("pair_id"): PairFacts(**row) for row in rows}


def _labels(said: Iterable[Said], facts: Mapping[str, PairFacts]) -> dict[str, Labels]:
    orders: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    scores: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for row in said:
        if row.pair_id is not None:
            orders[row.judge, row.pair_id][row.presentation] = row.verdict
        elif row.dialogue_id is not None:
            scores[row.judge][row.dialogue_id].append(row.score)
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for (judge, pair), verdicts in orders.items():
        if "single" in verdicts:  # the oracle's, who is shown no order
            labels[judge][pair] = verdicts["single"]
        elif len(verdicts) == 2:
            labels[judge][pair] = settled(*verdicts.values())
    for judge, given in scores.items():
        for pair, fact in facts.items():
            if fact.chosen_id in given and fact.rejected_id in given:
                labels[judge][pair] = _better(given[fact.chosen_id], given[fact.rejected_id])
    return dict(labels)


def _better(chosen: Sequence[float | None], rejected: Sequence[float | None]) -> str:
    """The side with the higher mean score."""
    one = [score for score in chosen if score is not None]
    other = [score for score in rejected if score is not None]
    if len(one) < len(chosen) or len(other) < len(rejected):
        return "invalid"
    difference = sum(one) / len(one) - sum(other) / len(other)
    return "tie" if abs(difference) < 1e-9 else "chosen" if difference > 0 else "rejected"


def _scores(said: Iterable[Said]) -> dict[str, dict[Hashable, tuple[str, int]]]:
    """By judge and what was graded: seed and score."""
    scores: dict[str, dict[Hashable, tuple[str, int]]] = defaultdict(dict)
    for row in said:
        if row.score is not None:
            scores[row.judge][row.dialogue_id, row.turn_id] = (row.seed_id, int(row.score))
    return dict(scores)


# agreement of two


def _agreement_on_verdicts(
    one: str, other: str, ours: Labels, theirs: Labels, facts: Mapping[str, PairFacts]
) -> Agreement:
    both = [pair for pair in ours if pair in theirs and ours[pair] in LABELS and theirs[pair] in LABELS]
    a, b = ([LABELS.index(labels[pair]) for pair in both] for labels in (ours, theirs))
    seeds = [facts[pair].seed_id if pair in facts else pair for pair in both]
    turned = len(LABELS) - 1
    point = _cohen([*a, *(turned - x for x in a)], [*b, *(turned - x for x in b)], weights=None)
    cells = _cells(a, b, len(LABELS))
    return Agreement(
        one,
        other,
        "verdicts",
        bootstrap(seeds, cells, _raw(len(LABELS)), n=len(both)),
        bootstrap(seeds, cells + cells[:, ::-1], _kappa(len(LABELS), None), n=len(both))._replace(value=point),
    )


def _agreement_on_scores(one: str, other: str, scores: Mapping[str, Mapping[Hashable, tuple[str, int]]]) -> Agreement:
    both = [item for item in scores[one] if item in scores[other]]
    a, b = ([SCORES.index(scores[judge][item][1]) for item in both] for judge in (one, other))
    seeds = [scores[one][item][0] for item in both]
    cells = _cells(a, b, len(SCORES))
    return Agreement(
        one,
        other,
        "scores",
        bootstrap(seeds, cells, _raw(len(SCORES)), n=len(both)),
        bootstrap(seeds, cells, _kappa(len(SCORES), "quadratic"), n=len(both))._replace(
            value=_cohen(a, b, weights="quadratic")
        ),
    )


def _cohen(a: Sequence[int], b: Sequence[int], *, weights: str | None) -> float | None:
    """Cohen's kappa by scikit-learn; null where it is not defined: nothing in common, or one category alone."""
    if not a or (len({*a, *b}) < 2):
        return None
    from sklearn.metrics import cohen_kappa_score

    return _finite(cohen_kappa_score(a, b, weights=weights, labels=range(max(*a, *b) + 1)))


def _cells(a: Sequence[int], b: Sequence[int], size: int) -> Array:
    """One row a thing: a 1 where its two labels meet in a flat `size` x `size` table."""
    cells = np.zeros((len(a), size * size))
    cells[np.arange(len(a)), [x * size + y for x, y in zip(a, b, strict=True)]] = 1.0
    return cells


def _raw(size: int) -> Callable[[Array], Array]:
    diagonal = np.eye(size).ravel()
    return lambda sums: _divided(sums @ diagonal, sums.sum(-1))


def _kappa(size: int, weights: str | None) -> Callable[[Array], Array]:
    """1 - sum(w * observed) / sum(w * expected); w is 1 off the diagonal, or the squared distance."""
    places = np.arange(size)
    distance = np.abs(places[:, None] - places[None, :])
    penalty = (distance**2 if weights == "quadratic" else distance > 0).astype(float).ravel()

    def kappa(sums: Array) -> Array:
        tables = sums.reshape(*sums.shape[:-1], size, size)
        expected = (tables.sum(-1)[..., :, None] * tables.sum(-2)[..., None, :]).reshape(sums.shape)
        return 1.0 - _divided((sums @ penalty) * sums.sum(-1), expected @ penalty)

    return kappa


# agreement of all


def krippendorff_alpha(units: Sequence[Sequence[Hashable | None]], level: Level) -> float | None:
    """Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): 1 - observed / expected disagreement.

    Args:
        units: a row for each thing that was judged, with each judge's value; null where one gave none. Values of the
            levels `ordinal` and `interval` are numbers.

    Returns:
        Null where it is not defined: no thing with two values, or one value alone.
    """
    values = _values(units)
    rows = np.array([_coincidences(unit, values) for unit in units]).reshape(len(units), len(values) ** 2)
    return _finite(_alpha(values, level)(rows.sum(0))) if values else None


def _values(units: Iterable[Sequence[Hashable | None]]) -> list[Any]:
    found = {value for unit in units for value in unit if value is not None}
    return sorted(found, key=lambda value: (str(type(value)), value))


def _coincidences(unit: Sequence[Hashable | None], values: Sequence[Any]) -> Array:
    """What one thing adds to the coincidence matrix: its pairs of values by different judges, over its judges less one."""
    counts = np.array([sum(given == value for given in unit if given is not None) for value in values], dtype=float)
    judges = counts.sum()
    if judges < 2:
        return np.zeros(len(values) ** 2)
    matrix: Array = (np.outer(counts, counts) - np.diag(counts)) / (judges - 1)
    return matrix.ravel()


def _alpha(values: Sequence[Any], level: Level) -> Callable[[Array], Array]:
    size = len(values)

    def alpha(sums: Array) -> Array:
        matrix = sums.reshape(*sums.shape[:-1], size, size)
        counts = matrix.sum(-1)
        total = counts.sum(-1)
        distance = _distances(values, counts, level)
        expected = (counts[..., :, None] * counts[..., None, :] * distance).sum((-1, -2))
        return 1.0 - _divided((total - 1.0) * (matrix * distance).sum((-1, -2)), expected)

    return alpha


def _distances(values: Sequence[Any], counts: Array, level: Level) -> Array:
    """The squared difference of each two values."""
    size = len(values)
    if level == "nominal":
        return 1.0 - np.eye(size)
    if level == "interval":
        numbers = np.array(values, dtype=float)
        return np.asarray((numbers[:, None] - numbers[None, :]) ** 2)
    upto = np.cumsum(counts, -1)
    middle = upto - counts / 2  # ranks between two values: half of each, and all that lie between
    return np.asarray((middle[..., :, None] - middle[..., None, :]) ** 2)


def _alpha_of(
    labels: Mapping[str, Labels],
    scores: Mapping[str, Mapping[Hashable, tuple[str, int]]],
    facts: Mapping[str, PairFacts],
) -> tuple[Figure, Level]:
    """Over the scores where the set has some, else over the verdicts, under both namings of the sides."""
    if scores:
        items = {item: seed for given in scores.values() for item, (seed, _) in given.items()}
        units: list[list[Hashable | None]] = [
            [given[item][1] if item in given else None for given in scores.values()] for item in items
        ]
        figure = _alpha_figure(list(items.values()), units, list(SCORES), "interval", turn=False)
        return figure, "interval"
    pairs = sorted({pair for their in labels.values() for pair in their})
    units = [
        [their[pair] if their.get(pair) in LABELS else None for their in labels.values()]  # `invalid` is no value
        for pair in pairs
    ]
    seeds = [facts[pair].seed_id if pair in facts else pair for pair in pairs]
    return _alpha_figure(seeds, units, list(LABELS), "nominal", turn=True), "nominal"


def _alpha_figure(
    seeds: Sequence[str], units: Sequence[Sequence[Hashable | None]], values: Sequence[Any], level: Level, *, turn: bool
) -> Figure:
    judged = [place for place, unit in enumerate(units) if sum(value is not None for value in unit) > 1]
    rows = np.array([_coincidences(units[place], values) for place in judged]).reshape(len(judged), len(values) ** 2)
    if turn:
        rows = rows + rows[:, ::-1]
    return bootstrap([seeds[place] for place in judged], rows, _alpha(values, level), n=len(judged))


# which way a judge leans


def _figures(
    judge: str, said: Sequence[Said], labels: Mapping[str, Labels], facts: Mapping[str, PairFacts]
) -> JudgeFigures:
    scores = [row.score for row in said if row.score is not None]
    bias, coefficient = length_bias(said, labels.get(judge, {}), facts)
    position, consistency = _position(said)
    return JudgeFigures(
        judge=judge,
        verdicts=sum(row.verdict != "invalid" for row in said),
        invalid=sum(row.verdict == "invalid" for row in said),
        position_bias=position,
        consistency=consistency,
        length_bias=bias,
        length_coefficient=coefficient,
        mean_score=sum(scores) / len(scores) if scores else None,
    )


def _position(said: Iterable[Said]) -> tuple[Figure, Figure]:
    """How much more often the side shown first wins than the one shown second, and how often the order changes nothing."""
    orders: dict[str, dict[str, Said]] = defaultdict(dict)
    for row in said:
        if row.pair_id is not None and row.verdict in LABELS:
            orders[row.pair_id][row.presentation] = row
    both = [verdicts for verdicts in orders.values() if len(verdicts) == 2]
    seeds, leans, same = [], [], []
    for verdicts in both:
        chosen_first, rejected_first = verdicts["chosen_first"].verdict, verdicts["rejected_first"].verdict
        side = {"chosen": 1.0, "tie": 0.0, "rejected": -1.0}
        leans.append((side[chosen_first] - side[rejected_first]) / 2)
        same.append(float(chosen_first == rejected_first))
        seeds.append(verdicts["chosen_first"].seed_id)
    return _mean(seeds, leans), _mean(seeds, same)


def length_bias(said: Iterable[Said], labels: Labels, facts: Mapping[str, PairFacts]) -> tuple[Figure, float | None]:
    """How much more often a judge errs towards the longer side than towards the shorter one.

    P(the longer side wins | the label says the shorter) - P(the shorter side wins | the label says the longer), over
    single verdicts, both orders where there are two, so that a position bias falls out. Errors without regard to
    length are equally likely either way, and give 0; a judge that goes by length in a share q of its verdicts gives q.
    Length is in characters of the assistant's answers; pairs of equal length, and ties of the label, are left out;
    a tied verdict is nobody's win. The label is the intended one: where that is wrong, so is the figure.

    Beside it the coefficient of log(length of chosen / length of rejected) in a logistic model of `the judge says
    chosen`, whose intercept is the label's own weight. For judges that score, the verdict is the side with the higher
    score.
    """
    verdicts = [(row.pair_id, row.verdict) for row in said if row.pair_id is not None] or list(labels.items())
    seeds: list[str] = []
    rows: list[tuple[float, float, float, float]] = []
    ratios: list[float] = []
    chosen: list[bool] = []
    for pair, verdict in verdicts:
        fact = facts.get(pair or "")
        if fact is None or verdict not in LABELS or fact.intended_label not in ("chosen", "rejected"):
            continue
        if fact.chosen_length == fact.rejected_length:
            continue
        longer = "chosen" if fact.chosen_length > fact.rejected_length else "rejected"
        wrong = float(verdict not in ("tie", fact.intended_label))
        rows.append((0.0, 0.0, wrong, 1.0) if fact.intended_label == longer else (wrong, 1.0, 0.0, 0.0))
        seeds.append(fact.seed_id)
        if verdict != "tie" and fact.chosen_length and fact.rejected_length:
            ratios.append(float(np.log(fact.chosen_length / fact.rejected_length)))
            chosen.append(verdict == "chosen")
    figure = bootstrap(
        seeds,
        np.array(rows).reshape(-1, 4),
        lambda sums: _divided(sums[..., 0], sums[..., 1]) - _divided(sums[..., 2], sums[..., 3]),
        n=len(rows),
    )
    return figure, _coefficient(ratios, chosen)


def _coefficient(ratios: Sequence[float], chosen: Sequence[bool]) -> float | None:
    if min(sum(chosen), len(chosen) - sum(chosen)) < FEWEST_OF_A_CLASS:
        return None
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf).fit(np.array(ratios)[:, None], chosen)
    return float(model.coef_[0, 0])


# intervals


def _mean(seeds: Sequence[str], values: Sequence[float]) -> Figure:
    rows = np.array([(value, 1.0) for value in values]).reshape(-1, 2)
    return bootstrap(seeds, rows, lambda sums: _divided(sums[..., 0], sums[..., 1]), n=len(values))


def bootstrap(
    clusters: Sequence[str], rows: Array, statistic: Callable[[Array], Array], *, n: int, draws: int = DRAWS
) -> Figure:
    """A function of the rows' sum, with a 95 % percentile interval over whole clusters drawn with replacement.

    Args:
        clusters: which seed each row hangs on.
        rows: (things, parts).
        statistic: from sums of shape (..., parts) to figures of shape (...); NaN where it is not defined.
        n: what the figure is said to be over.
    """
    if not len(rows):
        return Figure(None, None, None, n)
    value = _finite(statistic(rows.sum(0)))
    names = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, [names[cluster] for cluster in clusters], rows)
    kinds, counts = np.unique(sums, axis=0, return_counts=True)  # clusters that are alike are drawn as one kind
    generator = np.random.default_rng(RANDOM_SEED)
    at_once = max(1, CELLS_AT_ONCE // len(kinds))
    figures = np.concatenate(
        [
            statistic(generator.multinomial(len(names), counts / len(names), size=min(at_once, draws - begun)) @ kinds)
            for begun in range(0, draws, at_once)
        ]
    )
    defined = figures[np.isfinite(figures)]
    if value is None or not len(defined):
        return Figure(value, None, None, n)
    low, high = np.percentile(defined, (2.5, 97.5))
    return Figure(value, float(low), float(high), n)


def _divided(one: Array, other: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(other == 0, np.nan, one / other)


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
