"""MUSIC's lab in miniature: real campaigns, a real language model, real arms, and the page that they end in."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from agents.rehearsal.oracle import grade
from configs.lab_settings import Arm, MusicLabSettings
from configs.load import ConfigError, load
from lab.material import (
    SETS_OF_ARM,
    SEVERAL,
    SINGLE,
    STANDING,
    cells,
    cells_of,
    make_items,
    read_arm,
    seeds_of,
    sources,
)
from lab.music import LabResult, Trained, at_tokens, claims, first_stage, make_material, read_items, train_arm
from lab.music_page import as_json, at_least_as_good, page, plot
from lab.tables import WIDTH
from store.database import query
from store.records import Message, PreferencePair

pytestmark = pytest.mark.chain

SMALL = [
    "random_seeds=[0]", "arms=[base, music, spotlight]", "turns=2", "items=6", "points=2", "dialogues=30",
    "base_pairs=30", "extra_pairs=24", "language.steps=2", "stage.steps=2", "stage.batch_size=4", "fit.steps=4", "fit.batch_size=4",
    "language.tiny={hidden_size: 16, intermediate_size: 16, layers: 1, heads: 2, kv_heads: 1}",
]  # fmt: skip


class Made(NamedTuple):
    settings: MusicLabSettings
    place: Path
    arms: list[Trained]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("lab") / "easy" / "0"
    settings = load("music", MusicLabSettings, overrides=SMALL, folder="lab")
    make_material(settings, "easy", 0, place)
    first_stage(settings, 0, place)
    return Made(settings, place, [train_arm(settings, "easy", 0, arm, place) for arm in settings.arms])


def say(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(role=("user", "assistant")[n % 2], content=text) for n, text in enumerate(texts))


def pair(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> PreferencePair:
    return PreferencePair("pair_1", chosen, rejected, "test", "music", len(chosen) // 2, 1)


OPEN = "Call me Ilse. Belo is red and big. What is the colour of Belo?"


@pytest.mark.parametrize(
    ("rejected", "expected"),
    [
        (say(OPEN, "It is big, Ilse.", "And the size?", "It is big, Ilse."), ["turn 1"]),
        (say(OPEN, "It is red, Ilse.", "And the size?", "It is big, Omar."), ["turn 2", STANDING]),
        (say(OPEN, "It is big, Ilse.", "And the size?", "It is big, Omar."), [SEVERAL]),
        (say(OPEN, "It is red, Ilse.", "And the size?", "It is big, Ilse."), []),
        (say(OPEN, "It is big, Ilse."), []),  # a turn is missing
        (say(OPEN, "It is big, Ilse.", "Who was Caesar?", "A Roman."), []),  # nobody knows
    ],
)
def test_the_oracle_sorts_a_pair_by_what_is_wrong_in_it(rejected: tuple[Message, ...], expected: list[str]) -> None:
    right = say(OPEN, "It is red, Ilse.", "And the size?", "Ilse, it is big.")
    assert cells_of(pair(right, rejected), 2) == expected
    assert cells_of(pair(rejected, right), 2) == []  # the chosen side is not right


def test_items_are_what_their_cell_says_and_come_from_the_test_split(made: Made) -> None:
    items = read_items(made.place)
    assert list(items) == cells(2) == [SINGLE, "turn 1", "turn 2", SEVERAL, STANDING]
    assert all(len(pairs) == 6 for pairs in items.values())
    for cell in ("turn 1", "turn 2"):
        for item in items[cell]:
            assert item.split == "test"
            assert [turn.turn for turn in grade(item.rejected) if turn.verdict != "right"] == [int(cell[-1])]
            assert all(turn.verdict == "right" for turn in grade(item.chosen))
    for item in items[SEVERAL]:
        assert sum(turn.verdict == "wrong" for turn in grade(item.rejected)) == 2


def test_making_items_again_plays_nothing_and_finds_the_same(made: Made) -> None:
    def count() -> int:
        return int(query(made.place / "corpus.duckdb", "SELECT count(*) AS n FROM calls")[0]["n"])

    before = count()
    again = make_items(made.settings, "easy", 0, made.place / "corpus.duckdb")
    assert count() == before
    assert {cell: [p.pair_id for p in pairs] for cell, pairs in again.items()} == {
        cell: [p.pair_id for p in pairs] for cell, pairs in read_items(made.place).items()
    }


def test_arms_learn_from_the_train_split_and_add_equally_much(made: Made) -> None:
    corpus = made.place / "corpus.duckdb"
    for arm in made.settings.arms:
        sets = read_arm(made.settings, arm, corpus)
        assert tuple(sets) == SETS_OF_ARM[arm]
        assert {p.split for pairs in sets.values() for p in pairs} == {"train"}
    mixed = read_arm(made.settings, "mixture", corpus)
    assert len(mixed["music"]) == len(mixed["spotlight"]) == 12 == made.settings.extra_pairs // 2
    for item in mixed["spotlight"]:
        differing = [n for n, (a, b) in enumerate(zip(item.chosen, item.rejected, strict=True)) if a != b]
        assert len(differing) == 1
        assert item.chosen[differing[0]].role == "assistant"


def test_every_arm_starts_from_one_first_stage_and_takes_equal_steps(made: Made) -> None:
    assert {row.steps for row in made.arms} == {4}
    fits = query(
        made.place / "corpus.duckdb", "SELECT arm, config, status FROM fits WHERE arm IS NOT NULL ORDER BY arm"
    )
    assert [row["arm"] for row in fits] == ["base", "music", "spotlight"]
    assert {json.loads(row["config"])["model"] for row in fits} == {str(made.place / "stage" / "model")}
    assert all(
        set(row.wins) == set(cells(2)) and all(set(won) <= {0, 0.5, 1} for won in row.wins.values())
        for row in made.arms
    )


def test_the_token_table_takes_the_checkpoint_with_the_nearest_tokens(made: Made) -> None:
    base, music, _ = made.arms
    earlier = at_tokens(music, made.place, music.tokens // 2)
    assert earlier.steps == 2  # of checkpoints at 2 and 4
    assert 0 < earlier.tokens < music.tokens
    assert at_tokens(base, made.place, base.tokens) == base


def test_the_page_tells_every_arm_and_every_claim_in_80_columns(made: Made, tmp_path: Path) -> None:
    result = LabResult(made.settings, made.arms, made.arms, 1.0)
    text = page(result)
    assert all(len(line) <= WIDTH for line in text.splitlines())
    for claim in claims(made.settings.arms, 2):
        assert claim.text in text
    assert text.count("UNDECIDED") == 2 * len(claims(made.settings.arms, 2))  # six items decide nothing
    rows = as_json(result)
    assert {row["verdict"] for row in rows if "verdict" in row} == {"undecided"}
    assert {(row["arm"], row["items"]) for row in rows if "items" in row} == {
        (arm, cell) for arm in made.settings.arms for cell in cells(2)
    }
    plot(result, tmp_path / "a.svg", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_a_claim_is_told_either_way() -> None:
    def result(music: float, base: float) -> str:
        shares: dict[Arm, float] = {"base": base, "music": music}
        rows = [
            Trained("easy", seed, arm, arm, 1, 1, 1.0, {cell: [share] * 200 for cell in cells(2)})
            for arm, share in shares.items()
            for seed in range(3)
        ]
        settings = load("music", MusicLabSettings, overrides=["arms=[base, music]", "turns=2"], folder="lab")
        return page(LabResult(settings, rows, rows, 1.0))

    assert "NOT REPRODUCED: MUSIC beats the base on errors in the early turns" in result(0.0, 1.0)
    assert "\nREPRODUCED: MUSIC beats the base on errors in the early turns" in result(1.0, 0.0)
    assert "NOT REPRODUCED: MUSIC costs nothing on single turns" in result(0.0, 1.0)


@pytest.mark.parametrize(
    ("rival", "words"),
    [(0.0, "at least as good as every other arm"), (1.0, "behind by more than 2 points: base on single turn")],
)
def test_where_our_arm_is_behind_is_said(rival: float, words: str) -> None:
    wins = {(arm, 0, cell): [share] * 200 for arm, share in (("base", rival), ("spotlight", 0.0)) for cell in cells(2)}
    assert words in at_least_as_good(wins, ["base", "spotlight"], 2)


def test_seeds_of_a_split_are_the_first_of_it_and_more_begin_with_fewer() -> None:
    few, many = seeds_of("test", 5, "easy", 3), seeds_of("test", 9, "easy", 3)
    assert [seed.seed_id for seed in few] == [seed.seed_id for seed in many[:5]]
    assert {seed.split for seed in many} == {"test"}
    assert {seed.seed_id for seed in many}.isdisjoint(seed.seed_id for seed in seeds_of("train", 50, "easy", 3))


def test_the_labs_presets_are_valid_and_name_known_sets() -> None:
    for preset in ("music", "music-quick", "music-full"):
        settings = load(preset, MusicLabSettings, folder="lab")
        assert all(name in sources(settings.turns) for arm in settings.arms for name in SETS_OF_ARM[arm])
    assert load("music-full", MusicLabSettings, folder="lab").worlds == ("easy", "hard")
    with pytest.raises(ConfigError, match="every claim is measured against `base`"):
        load("music", MusicLabSettings, overrides=["arms=[music]"], folder="lab")
