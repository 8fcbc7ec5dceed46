"""Seeds of the closed world."""

import pytest

from agents.rehearsal.reading import Outside, read, read_answer, remember
from agents.rehearsal.world import EASY, HARD, WORLDS, Answer, World, generate_seeds, write_answer


@pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))
def test_every_seed_is_read_whole_and_can_be_answered(world: World) -> None:
    for seed in generate_seeds(300, 7, world):
        sentences = read(seed[0].content)
        assert not any(isinstance(sentence.event, Outside) for sentence in sentences), sentences
        assert " ".join(sentence.text for sentence in sentences) == seed[0].content
        memory = remember(seed)
        assert len(memory.facts) == world.entities
        assert len(memory.right_answer().said) == (world.facts if world.describes else 1)
        assert memory.right_answer().name


def test_seeds_depend_on_the_random_seed_and_a_longer_list_begins_with_the_shorter() -> None:
    assert generate_seeds(5, 1, EASY) == generate_seeds(50, 1, EASY)[:5]
    assert not set(generate_seeds(50, 1, EASY)) & set(generate_seeds(50, 2, EASY))


@pytest.mark.parametrize("world", [EASY, HARD])
def test_duplicate_seeds_are_rare(world: World) -> None:
    seeds = generate_seeds(5000, 0, world)
    assert len(set(seeds)) > 4990


@pytest.mark.parametrize(
    "answer", [Answer("red", "Ilse", "Well"), Answer(None, "Ilse", None), Answer("big", None, None)]
)
@pytest.mark.parametrize("name_first", [False, True])
def test_a_written_answer_reads_back_as_it_was_meant(answer: Answer, name_first: bool) -> None:
    assert read_answer(write_answer(answer, name_first=name_first)) == answer
