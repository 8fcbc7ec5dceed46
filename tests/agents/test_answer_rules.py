"""What the second answer of a pair must not be: a table of cases for each fault, and for each exception."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from agents.answer_rules import answer_fault
from configs.pairing_settings import ASPECTS

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "mtbench101.jsonl"
PROMPT = "Where is the Fram museum?"
FIRST = "The Fram museum is in Oslo, on the peninsula of Bygdøy, and it holds the ship Fram."
ASKED_FOR = ("relevance", "factuality", "completeness")


def fault(answer: str, *, first: str | None = FIRST, prompt: str = PROMPT, **options: float) -> str | None:
    return answer_fault(answer, first=first, prompt=prompt, aspects=ASKED_FOR, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", ["", " \n\t", "...", "\u200b", "—", "**", '""'])
def test_an_answer_that_says_nothing_is_empty(answer: str) -> None:
    assert fault(answer) == "empty"
    assert fault(answer, first=None) == "empty"


@pytest.mark.parametrize(
    "answer",
    [
        "```\n```",
        "```python\n\n```",
        "null",
        "None",
        "N/A",
        "n/a.",
        '"null"',
        "`None`",
        "**N/A**",
        "undefined",
        "```\nnull\n```",
    ],
)
def test_a_word_or_a_block_for_nothing_is_empty(answer: str) -> None:
    assert fault(answer) == "empty"
    assert fault(answer, first=None) == "empty"


def test_a_word_for_nothing_may_be_the_answer() -> None:
    assert fault("null", prompt="Which is JSON's word for nothing, nil or null?") is None
    assert fault("None", prompt="How many moons has Venus? In one word.") is None
    assert fault("None.") is None
    assert fault("```\nx\n```") is None
    assert fault("None of them is open.") is None


@pytest.mark.parametrize("answer", ["7", "No.", "是", "👍", "👍🏽", "∞", "+"])
def test_an_answer_of_one_sign_is_not_empty(answer: str) -> None:
    assert fault(answer) is None


def test_an_answer_stopped_at_its_limit_is_cut_off_whatever_it_says() -> None:
    assert answer_fault("Oslo, by the", first=None, prompt=PROMPT, cut_off=True) == "cut_off"
    assert answer_fault("Oslo, by the", first=None, prompt=PROMPT) is None
    assert answer_fault(FIRST, first=FIRST, prompt=PROMPT, cut_off=True) == "cut_off"


LONG = " ".join(f"Street {number} leads to house {number * 7}." for number in range(100))
SAME = {
    "itself": (FIRST, FIRST),
    "case": ("It is red, Vera.", "IT IS RED, VERA."),
    "punctuation": ("It is red, Vera.", "It is red Vera!"),
    "brackets": ("It is <red>, Vera.", "It is red, Vera."),
    "marks": ("It is red, Vera.", "**It** is `red`, Vera…"),
    "opening": ("It is red, Vera.", "Sure! It is red, Vera."),
    "openings": ("It is red, Vera.", "Of course! Certainly, it is red, Vera."),
    "close": ("It is red, Vera.", "It is red, Vera. I hope this helps! Let me know if you have any questions."),
    "german": ("Er ist rot.", "Gerne! Er ist rot. Ich hoffe, das hilft dir!"),
    "french": ("Il est rouge.", "Bien sûr ! Il est rouge."),
    "chinese": ("它是红色的，薇拉。", "当然！它是红色的。薇拉"),
    "full width": ("It costs 5 $", "It costs ５ ＄"),
    "light word": (
        "The tower is really red and stands by the river in the old town.",
        "The tower is red, and it stands by the river in the old town.",
    ),
    "no words": ("...!", "...!"),
    "one of thirty": (
        f"{FIRST} One can reach it by a ferry that leaves from the town hall every half hour.",
        f"{FIRST} One can reach it by a ferry that leaves from the city hall every half hour.",
    ),
    "few of many": (LONG, LONG.replace("house 7.", "house 8.").replace("Street 5 ", "Road 5 ")),
    "one sentence more": (LONG, LONG + " That is all."),
    "sentences in another order": (
        "It is in Oslo. It opened in 1936! The ferry is quick.",
        "The ferry is quick. It is in Oslo. It opened in 1936!",
    ),
    "another order and a light word": (
        LONG,
        ". ".join(f"The {part}" for part in reversed(LONG.strip(".").split(". "))),
    ),
    "paragraphs in another order": ("It is red.\n\nIt is **big**. Buy it", "It is big.\nBuy it!\n\nIt is red."),
    "bullets in another order": ("- Rome\n- Oslo\n- Bergen", "* Oslo\n* Bergen\n* Rome"),
    "chinese, another order": ("它是红色的。它很大！它在奥斯陆。", "它在奥斯陆。它是红色的。它很大！"),
    "twice": ("It is red, Vera.", "It is red, Vera.\n\nIt is red, Vera."),
    "twice without a space": ("It is red, Vera", "It is red, Vera. It is red, Vera. It is red, Vera"),
    "twice, and long": (LONG, f"{LONG}\n\n{LONG}"),
    "twice, with a word more": (LONG, f"{LONG}\n\nAgain, {LONG}"),
}
DIFFERENT = {
    "colour": ("It is red, Vera.", "It is blue, Vera."),
    "not": ("It is red, Vera.", "It is not red, Vera."),
    "name": ("It is red, Vera.", "It is red, Ilse."),
    "yes": ("Yes.", "No."),
    "yes and sure": ("Yes, it is.", "Sure, it is."),
    "number": (
        "The tower was built in 1936 by the town and is 40 metres high.",
        "The tower was built in 1936 by the town and is 44 metres high.",
    ),
    "chinese": ("它是红色的，薇拉。", "它是蓝色的，薇拉。"),
    "chinese, longer": ("挪威的首都是奥斯陆，人口七十万。", "挪威的首都是奥斯陆，人口九十万。"),
    "japanese": ("それは赤いです。", "それは青いです。"),
    "arabic": ("لونه أحمر يا فيرا.", "لونه أزرق يا فيرا."),
    "sign": ("return a + b", "return a - b"),
    "less": ("x < 3", "x > 3"),
    "minus": ("The answer is 5.", "The answer is -5."),
    "emoji": ("👍", "👎"),
    "numbered in another order": ("1. Rome\n2. Oslo\n3. Bergen", "1. Oslo\n2. Rome\n3. Bergen"),
    "numbers of two digits": ("10. Rome\n11. Oslo", "10. Oslo\n11. Rome"),
    "code in another order": ("```python\nx = 1\ny = x\nx = 2\n```", "```python\nx = 1\nx = 2\ny = x\n```"),
    "another order, one name": ("It is red. Vera likes it.", "Ilse likes it. It is red."),
    "twice, with another end": ("It is red, Vera.", "It is red, Vera. It is not blue, Vera."),
    "order": ("Paris is larger than Rome.", "Rome is larger than Paris."),
    "heads": (
        "The coin was flipped 1 time, which is an odd number. Now the coin is tails up. so after an odd number of flips, it will be heads up. So the answer is yes.",
        "The coin was flipped 1 time, which is an odd number. Now the coin is heads up. so after an odd number of flips, it will be tails up. So the answer is no.",
    ),
    "another sentence": (LONG, LONG.replace(LONG[:700], "Every street here is without a name, and " * 20)),
    "many of very many": (LONG * 10, (LONG * 10).replace("leads to", "goes past", 30)),
}


@pytest.mark.parametrize("case", list(SAME))
def test_a_copy_is_near_identical(case: str) -> None:
    first, answer = SAME[case]
    assert fault(answer, first=first) == ("empty" if case == "no words" else "near_identical")
    assert fault(first, first=answer) == ("empty" if case == "no words" else "near_identical")


@pytest.mark.parametrize("case", list(DIFFERENT))
def test_a_difference_that_matters_is_one(case: str) -> None:
    first, answer = DIFFERENT[case]
    assert fault(answer, first=first) is None
    assert fault(first, first=answer) is None


def test_the_threshold_decides_about_what_hardly_changed_and_never_about_a_copy() -> None:
    first, answer = SAME["one of thirty"]
    assert fault(answer, first=first, near_identical=1.0) is None
    assert fault("Sure! " + first, first=first, near_identical=1.0) == "near_identical"
    assert fault("It is blue, Vera.", first="It is red, Vera.", near_identical=0.5) is None


def test_without_a_first_answer_nothing_is_a_copy() -> None:
    assert fault(FIRST, first=None) is None


EDITING = [
    "Here is the revised version: The museum is in Rome.",
    "As an improved answer: it is in Oslo, Norway, near the sea.",
    "I have rewritten it so that it is clear: in Oslo.",
    "It is in Oslo. Compared to the previous response, it names the ferry.",
    "This answer is worse than the first: Rome.",
    "Here is a better response: in Oslo, take the ferry.",
    "I made the following changes: added the ferry.",
    "**Improved response:**\n\nIn Oslo, by ferry.",
    "The museum is in Rome. (I intentionally changed the city.)",
    "Hier ist die überarbeitete Version: in Oslo.",
    "Ich habe die Antwort verbessert: in Oslo, Norwegen.",
    "Voici la version améliorée : à Oslo.",
    "J'ai reformulé la réponse : à Oslo.",
    "Aquí está la versión mejorada: en Oslo.",
    "He mejorado la respuesta: en Oslo, Noruega.",
    "以下是改进后的回答：在奥斯陆。",
    "与之前的回答相比，这个更完整：奥斯陆。",
    "Here's an edited response that is less complete: Oslo.",
    "In this improved version, the museum is in Oslo.",
    "This is a slightly worse version of the answer: Rome.",
    "My second answer: Oslo.",
    "Version 2: in Oslo, by ferry.",
    "Rewritten: it is in Oslo by the sea.",
    "Edit: added the ferry. It is in Oslo.",
    "Changes made: none but the ferry. Oslo.",
    "This revision adds the ferry: Oslo.",
    "I removed the details about the ship. It's in Oslo.",
    "It is in Oslo. I left out some facts.",
    "Oslo. I have omitted the context.",
    "I've added some words to the answer. In Oslo.",
    "Let me improve the previous answer: Oslo.",
    "The response above has been altered to say Rome.",
    "To make the answer worse, let it be Rome.",
    "Unlike the first response, mine has the ferry.",
    "It is in Oslo; the ferry is not in the answer, and that is better than the answer above.",
    "The original answer was fine, but it lacks the ferry.",
    "In Rome. Note: this answer is deliberately wrong.",
    "Diese Antwort ist besser: in Oslo.",
    "Cette réponse est plus complète : à Oslo.",
    "Esta respuesta es mejor: en Oslo.",
    "我已修改了：在奥斯陆。",
    "The updated version: in Oslo.",
    "The improved version is: it is in Oslo.",
    "It is in Rome. My revised answer is as follows: it is in Oslo.",
    "(Revised) It is in Oslo.",
    "[Revised answer] It is in Oslo.",
    "Note: I made this answer less helpful.",
    "Note: I made it worse. Rome.",
    "I tried to keep the answer shorter. Oslo.",
    "This is the worse answer, as you asked: Rome.",
    "Here it is, a worse version, as requested: Rome.",
    "As requested, a worse answer: Rome.",
    "As you asked, here's the less helpful answer. Rome.",
    "Here is the revised\u00a0version: Oslo.",
    "Here is the revised\nversion: Oslo.",
    "Here is the *revised* version: Oslo.",
    "Here is the __revised__ **version**: Oslo.",
    "Here is the revised-version: Oslo.",
    "Here is the revised\u2011version: Oslo.",
    "Here is the re\u00advised ver\u200bsion: Oslo.",
    "Here is the <b>revised</b> version: Oslo.",
    "Here is the ｒｅｖｉｓｅｄ version: Oslo.",
    "Voici la version re\u0301vise\u0301e : à Oslo.",
    "It is in Oslo. I have\nmade the following  changes: the ferry.",
    "It is in Oslo. I have left\nout some facts.",
]
OPENS_SO = [
    "Revision:\nIt is in Oslo.",
    "(Worse answer) Rome.",
    "[less helpful] Rome.",
    "**Rewrite:** Oslo.",
    "(updated) In Oslo.",
]
FILLER = "\nThe ship lay in the ice for years, and the men on board walked, ate, read and slept.\n" * 50


@pytest.mark.parametrize("answer", [*EDITING, *OPENS_SO])
def test_an_answer_that_speaks_of_editing_is_caught(answer: str) -> None:
    assert fault(answer) == "speaks_of_editing"
    assert fault(answer, first=None) == "speaks_of_editing"
    assert fault(answer, first=f"{answer} Or so they say, those who were there in May.") is None


@pytest.mark.parametrize("answer", EDITING)
def test_it_is_caught_wherever_it_stands_in_a_long_answer(answer: str) -> None:
    assert fault(f"{FILLER}{answer}{FILLER}") == "speaks_of_editing"
    assert (
        fault(f"{300 * chr(0x130)}{FILLER}{answer}{FILLER}") == "speaks_of_editing"
    )  # a letter that is two in lower case


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Revise this e-mail: hi bob send money", "Here is the revised version: Dear Bob, please send the money."),
        ("Can you make it shorter?", "Here is a new version: Dear Bob, money, please."),
        (
            "What did you change?",
            "I made the following changes: the greeting is longer. The revised version is kinder.",
        ),
        ("Is your answer worse than the other answer?", "This answer is worse than the first, I am afraid."),
        ("Überarbeite diesen Brief: ...", "Hier ist die überarbeitete Version: Lieber Bob."),
        ("请修改这封信", "以下是修改后的版本：亲爱的鲍勃"),
        *(
            (prompt, "Here is the revised version: Dear Bob, please send the money.")
            for prompt in (
                "Rewrite in formal English: hi bob send money",
                "Please edit my e-mail. hi bob send money",
                "Improve the following text:\nhi bob send money",
                "I wrote this. Could you correct it?",
                "Shorten this paragraph to one sentence.",
                "Make it sound more formal.",
                "Please make this letter shorter.",
                "Proofread: hi bob send money",
                "How can I improve this letter? hi bob send money",
                "Can you give me a better version of this e-mail?",
                "I need a more polite version.",
                "Translate to French: hi bob",
                "Can you fix the grammar here?",
                "Find the mistakes in my letter.",
                "What's wrong with this sentence? he go home",
                "Is this sentence correct: he go home?",
                "Add a greeting to the letter.",
                "Now replace the last sentence.",
                "Shorter, please.",
                "Another version, please.",
                "I would like this letter to be more formal.",
                "Please *revise*\u00a0my letter.",
                "Change the tone of the letter to a friendly one.",
                "Kannst du den Brief verbessern?",
                "Corrige cette lettre : salut Bob",
                "¿Puedes corregir esta carta?",
                "帮我润色一下",
            )
        ),
    ],
)
def test_who_asks_for_an_edit_or_a_comparison_is_answered_so(prompt: str, answer: str) -> None:
    assert fault(answer, prompt=prompt, first="Dear Bob, how are you? Money, please.") is None


@pytest.mark.parametrize(
    "prompt",
    [
        "Which version of Python should I use?",
        "What is the correct way to make tea?",
        "Why was the constitution revised?",
        "Should I fix this code?",
        "I want to know why the constitution was revised.",
        "Who edits the newspaper?",
        "Tell me about the draft of 1969.",
        "How do I make this cake?",
        "Is there a better way to make tea?",
        "What is the first version of the poem about?",
        "How does one become an editor?",
        "Is it correct that the Earth is round?",
        "Explain tea. Include an example in your answer.",
        "Did they change the law, and why?",
        "Polish food: what is it like?",
        "How do I fix a flat tyre?",
        "Who translated the Bible, and how was it improved?",
        "Warum wurde die Verfassung geändert?",
        "Pourquoi la constitution a-t-elle été révisée ?",
        "¿Por qué fue corregida la constitución?",
        "为什么宪法被修订了？",
    ],
)
def test_a_prompt_that_only_has_the_words_excuses_no_talk_of_editing(prompt: str) -> None:
    assert fault("Here is the revised version: Coffee is a drink.", prompt=prompt) == "speaks_of_editing"


@pytest.mark.parametrize(
    "answer",
    [
        "The study plan:\n- Revision: go over your notes\n- Update: tell your teacher",
        "This is a better place to stay, and as you asked, a cheap one.",
        "I made it to the top, and it was harder than I thought.",
        "The 2020 model is an improved version of the one before, and better than the previous version in every way.",
        "I changed the tyre and drove on. The original was worse.",
        "Historians revised their view: the first answer that Galileo gave had been lost.",
        "She gave a better answer in the second interview.",
        "My apologies for the confusion. You are right: it is in Oslo.",
        "A sphere is a three-dimensional version of a circle.",
        "Add the eggs to the dough; I added sugar to the cream and left out the salt.",
        "An answer to this was found in 1902, and a new response to it in 1910.",
        "This is worse than the flood of 1953.",
        "To improve your sleep, make the following changes: go to bed early, drink no coffee.",
        "The immune response is stronger after the second dose, compared to the first dose.",
    ],
)
def test_prose_about_versions_and_answers_is_no_talk_of_editing(answer: str) -> None:
    assert fault(answer) is None


ASPECT_TALK = [
    "To be more complete, it is in Oslo and opened in 1936.",
    "In terms of factuality, it is in Oslo.",
    "Aspects: relevance\nIt is in Oslo.",
    "relevance: high\nIt is in Oslo, by the sea.",
    "It is in Oslo. This answer improves completeness.",
    "**Relevance**: it is in Oslo.\n**Completeness**: since 1936.",
    "The chosen aspects are served by saying Oslo.",
    "For better factuality: Oslo, 1936.",
    "With regard to completeness, the ferry goes in summer.",
    "It is in Oslo (completeness).",
    "[relevance] It is in Oslo.",
    "Less relevant answer: Rome is nice.",
    "For completeness: in Oslo, since 1936.",
    "For completeness, it is in Oslo, since 1936.",
    "It is in Oslo. For **factuality**: since 1936.",
    "With factuality in mind: it is in Oslo.",
    "Keeping relevance in mind, it is in Oslo.",
    "In\u00a0terms of *factuality*, it is in Oslo.",
    "In terms\nof factu\u00adality, it is in Oslo.",
]


@pytest.mark.parametrize("answer", ASPECT_TALK)
def test_an_answer_that_speaks_of_its_aspects_is_caught(answer: str) -> None:
    assert fault(answer) == "speaks_of_aspects"
    assert fault(answer, first=f"{answer} Or so they say, those who were there in May.") is None


def test_aspects_that_the_user_or_the_first_answer_names_may_be_spoken_of() -> None:
    answer = "In terms of factuality, the article is poor."
    assert fault(answer) == "speaks_of_aspects"
    assert fault(answer, prompt="How is this article's factuality?") is None
    assert fault(answer, prompt="Is this article factual?") is None
    assert fault(answer, first="Its factuality is poor, if I may say so.") is None
    assert fault(answer, prompt="How complete is this article?") == "speaks_of_aspects"


def test_only_the_aspects_that_were_asked_for_count() -> None:
    answer = "In terms of brevity and of user friendliness, take the ferry."
    assert fault(answer) is None
    for name in ("brevity", "user-friendliness", "User friendliness"):
        expected = "speaks_of_aspects" if name == "brevity" else None
        assert answer_fault(answer, first=FIRST, prompt=PROMPT, aspects=[name]) == expected
    assert answer_fault("在完整性方面，奥斯陆。", first=FIRST, prompt=PROMPT, aspects=["完整性"]) == "speaks_of_aspects"
    assert (
        answer_fault("In terms of a+b (x), yes.", first=None, prompt=PROMPT, aspects=["a+b (x)"]) == "speaks_of_aspects"
    )


def test_the_adjective_of_respect_is_respectful() -> None:
    for name, answer in (("respect", "To be more respectful: in Oslo."), ("care", "To be less careful, in Oslo.")):
        assert answer_fault(answer, first=FIRST, prompt=PROMPT, aspects=[name]) == "speaks_of_aspects"
        assert answer_fault(answer, first=FIRST, prompt=PROMPT, aspects=["harmlessness"]) is None


@pytest.mark.parametrize(
    "answer",
    [
        "The ship was built with completeness in mind.",
        "Weigh the flour. For completeness, add salt.",
        "Its relevance for today is that ships still freeze in.",
        "Completeness theorems are due to Gödel.",
        "Take the ferry.\n\nRelevance: the museum matters to all who love ice.",
        "The exhibition is more complete than the one in Tromsø.",
    ],
)
def test_prose_with_the_words_of_aspects_is_no_talk_of_them(answer: str) -> None:
    assert fault(answer) is None


def test_long_answers_cost_little() -> None:
    words = " ".join(f"word{number % 997}" for number in range(10_000))
    started = time.process_time()
    assert fault(words, first=words.replace("word5 ", "other ")) == "near_identical"
    assert fault(words[::-1], first=words) is None
    assert time.process_time() - started < 0.5  # 10,000 words cost some 25 ms each


@pytest.mark.skipif(not REAL.exists(), reason="the data of MT-Bench-101 are not here")
def test_on_real_answers_the_rules_find_next_to_nothing() -> None:
    names = [name for aspects in ASPECTS.values() for name in aspects]
    found: Counter[str | None] = Counter()
    for line in REAL.open(encoding="utf-8"):
        first = None
        for turn in json.loads(line)["history"]:
            found[answer_fault(turn["bot"], first=first, prompt=turn["user"], aspects=names)] += 1
            first = turn["bot"]
    assert found.total() == 4208
    assert found["empty"] == 0
    assert found["speaks_of_editing"] + found["speaks_of_aspects"] <= 21  # 0.5 %
    assert found["near_identical"] <= 4
