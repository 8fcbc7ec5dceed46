"""Pairs of the rehearsal hide their label from every rule that does not read."""

import math
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from agents.rehearsal.world import EASY, HARD, World, generate_seeds
from store.records import Message

sklearn_linear = pytest.importorskip("sklearn.linear_model")

Play = Callable[..., list[Message]]
N_TRAIN, N_TEST = 400, 300


@pytest.mark.parametrize("world", [EASY, HARD], ids=["easy", "hard"])
def test_neither_length_nor_words_tell_chosen_from_rejected(world: World, play_dialogue: Play) -> None:
    texts = [
        tuple("\n".join(m.content for m in play_dialogue(seed, turns=3, contrasted=bad)) for bad in (False, True))
        for seed in generate_seeds(N_TRAIN + N_TEST, 11, world)
    ]
    noise = 3.0 * math.sqrt(0.25 / N_TEST)
    longer = [float(np.sign(len(a) - len(b)) + 1) / 2 for a, b in texts]
    assert abs(np.mean(longer) - 0.5) < 3.0 * math.sqrt(0.25 / len(texts))
    counts = [tuple(Counter(re.findall(r"\w+", text.lower())) for text in pair) for pair in texts]
    words = sorted({word for pair in counts for side in pair for word in side})
    difference = np.array([[chosen[w] - rejected[w] for w in words] for chosen, rejected in counts], dtype=float)
    x = np.concatenate([difference[:N_TRAIN], -difference[:N_TRAIN]])
    y = np.concatenate([np.ones(N_TRAIN), np.zeros(N_TRAIN)])
    model = sklearn_linear.LogisticRegression(C=0.1, fit_intercept=False, max_iter=500).fit(x, y)
    accuracy = np.mean(model.decision_function(difference[N_TRAIN:]) > 0)
    assert abs(accuracy - 0.5) < noise
