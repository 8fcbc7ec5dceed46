"""The gate's rules: what each catches, where one ends and the next begins, and how seldom they mistake a person."""

import json
from collections import Counter
from pathlib import Path

import pytest

from agents.gate_rules import (
    PatternError,
    inverts_role,
    is_garbled,
    is_repetitive,
    is_sensitive,
    is_short,
    leaks,
    patterns,
    said_again,
    spans_of,
    takes_leave,
)
from agents.prompts import GATE_VARIABLES, VARIABLES, Prompts
from store.records import Message
from tests.scripted import said

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "mtbench101.jsonl"
FIRST = "Can you tell me about the bridges of Paris?"
CHAT = (
    said("user", FIRST),
    said("assistant", "The oldest is the Pont Neuf."),
    said("user", "And which one is the longest?"),
    said("assistant", "Sure, here is the answer: how can I help you more than by naming the Pont du Garigliano?"),
)
PROMPTS = Prompts(variables=VARIABLES | GATE_VARIABLES)
SPANS = spans_of([PROMPTS.texts["ask"], PROMPTS.texts["ask_again"]])


@pytest.mark.parametrize(
    "query",
    [
        "Sure, here is a list of the bridges: ...",
        "Certainly! Here's what you asked for.",
        "Of course. I'd be happy to explain it.",
        "Assistant: The longest is the Pont du Garigliano.",
        "As an AI language model, I do not travel.",
        "I'm just an AI, so I have not seen it.",
        "I'm sorry, but I can't assist with that.",
        "Thanks! How can I help you today?",
        "It is 1604. Is there anything else I can help you with?",
        "Here are the three bridges you asked for.",
        "the oldest is the pont neuf",
        "The oldest is the Pont Neuf. It crosses the Seine.",
        "Good. The oldest is the Pont Neuf.",
        "That's a great question! The Seine is 777 km long.",
        "Certainly! Paris has 37 bridges over the Seine.",
        "I'd be happy to help! The Seine is 777 km long.",
        "You're welcome! Let me know if there is anything else.",
        "As an assistant, I can tell you that it is long.",
        "AI: It is 777 km long.",
    ],
)
def test_a_user_who_answers_as_the_assistant_is_caught(query: str) -> None:
    assert inverts_role(CHAT, query)


@pytest.mark.parametrize(
    "query",
    [
        "Sure, and what about the others?",
        "Here is my text, please correct it: The bridge are old.",
        "Can you write a reply that begins with 'Sure, here is'?",
        "How would you, as an AI, judge that?",
        "What can an AI assistant do about it?",
        "Certainly not. Try again.",
        "How can I help my son with this?",
        "I am sorry, I meant the other one.",
        "The Pont Neuf?",
        "Thank you for asking, yes both.",
        "AI: what is it?",
        "Certainly! I have been there.",
        "Absolutely! Paris is where I live.",
        "Of course! That is what I meant.",
        "As an assistant, I write letters all day.",
        "You are welcome to add more.",
        "The oldest is the Pont Neuf. Are you sure?",
        "Translate this: The oldest is the Pont Neuf.",
        "The oldest is the Pont Neuf. That is wrong.",
        "Yes.",
    ],
)
def test_a_user_who_speaks_of_assistants_is_let_pass(query: str) -> None:
    assert not inverts_role(CHAT, query)


@pytest.mark.parametrize(
    "query",
    [
        "Task: ask\nAnd how old is it?",
        "As the user simulator I ask: how old is it?",
        "And [END] how old is it?",
        "User: And how old is it?",
        "Human: And how old is it?",
        "Okay, the user wants to know more of Paris. I should ask about bridges. How old is it?",
        "My instructions say that I go on. How old is it?",
        "[User's next message] How old is it?",
        "<think>The user wants the age.</think> How old is it?",
        "<user>\nHow old is it?\n</user>",
        "How old is it?<end_of_turn>",
        "Let me think about what the user would ask. How old is it?",
        "I need to write the user's next message.",
        "As the user, I should ask for its age.",
        "The user would probably ask how old it is.",
        "I will stay in the user's role: how old is it?",
        "Say one thing, as people do: a follow-up question, a reaction.",
    ],
)
def test_a_user_who_tells_instructions_or_reasoning_is_caught(query: str) -> None:
    assert leaks(CHAT, query, SPANS)


@pytest.mark.parametrize(
    "query",
    [
        "Task: summarise the text above.",
        "As the user, I want to log in: rewrite this user story",
        "what's the role of <user> tags in html?",
        "The user wants to log in: write a story of it.",
        "Okay, and what does a user see then?",
        "Let me think about it. How old is it?",
        "What would a user of that bridge pay?",
        "Follow my instructions, please.",
        "I should ask my boss about the users.",
        "Is a < b and b > c the same as a < c?",
        "Use <b> and </b> around the name.",
        "Say one thing about it, as people do.",
    ],
)
def test_a_user_who_speaks_of_tasks_and_users_is_let_pass(query: str) -> None:
    assert not leaks(CHAT, query, SPANS)


def test_what_the_user_spoke_of_before_is_no_leak() -> None:
    about = (said("user", "How do I build a user simulator that writes <think> tags?"), said("assistant", "So: ..."))
    assert not leaks(about, "And does the user simulator close them after <think>?")
    assert leaks(CHAT, "And does the user simulator close them?")
    assert leaks(about[1:], "<think> hm"), "only what the user said counts"


@pytest.mark.parametrize(
    "query",
    [
        "Thank you, goodbye!",
        "I have no further questions.",
        "[end of conversation]",
        "Thanks for all your help. Bye!",
        "That's all I needed, thanks.",
        "No, that's all for now.",
        "Thank you and have a nice day.",
    ],
)
def test_a_user_who_takes_leave_in_words_ends_the_dialogue(query: str) -> None:
    assert takes_leave(query)


@pytest.mark.parametrize(
    "query",
    [
        "Thank you. And the longest?",
        "Goodbye in French, please",
        "Translate: Thank you, goodbye!",
        "Thanks, that's all, but how old is it?",
        "Take care of the second one.",
        "Is that all?",
        "That's all wrong.",
        "See you in Paris: a title for my novel",
        "Thank you.",
        "",
    ],
)
def test_a_user_who_asks_something_besides_does_not(query: str) -> None:
    assert not takes_leave(query)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("How old is the br\ufffddge?", True),
        ("How old\x00 is it?", True),
        ("How old\n\tis it?\r\n", False),
        ("How " + "abcdefghi" * 9 + " is it?", True),
        ("See https://example.com/" + "abcdefghi" * 9 + " for it.", False),
        ("How old is it? " + "bridge " * 8, True),
        ("How old is it? " + "bridge " * 7, False),
        ("How old is itlalalalalalalalala", True),
        ("It is sooooooo old.", False),
        ("The row is 0 0 0 0 0 0 0 0 0 0.", False),
        ("塞纳河有多长" * 20, False),
        ("Hmmm, how old is it?", False),
        ("", False),
    ],
)
def test_garbled_is_what_no_keyboard_wrote(query: str, expected: bool) -> None:
    assert is_garbled(query) is expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("And which one is the longest?", "repetition"),
        ("and WHICH one is the longest", "repetition"),
        (FIRST, "restart"),
        ("Hello! Can you tell me about the bridges of Paris?", "restart"),
        ("So, once more: can you tell me about the bridges of Paris?", "restart"),
        ("Hi there, I have a question about bridges.", "restart"),
        ("Good morning! I'm looking for a hotel.", "restart"),
        ("Let's start over.", "restart"),
        ("Hello", "restart"),
        ("Hi, can you help me?", "restart"),
        ("Hi, can you help me with the bridges now?", None),
        ("And which one is the oldest?", None),
        ("Hi again, and thanks. Which one is the oldest?", None),
        ("Can you tell me about the bridges of London?", None),
        ("I have a question about that.", None),
        ("", None),
    ],
)
def test_the_border_between_repetition_and_restart(query: str, expected: str | None) -> None:
    assert said_again(CHAT, query) == expected


def test_the_only_query_again_is_a_repetition_and_its_opening_is_none() -> None:
    assert said_again(CHAT[:2], FIRST) == "repetition"
    assert said_again((), "Hello, I have a question.") is None
    assert said_again(CHAT[:1], "Hello, I have a question.") is None, "nothing was answered yet"
    greeting = (said("user", "hi"), said("assistant", "Hello!"))
    assert said_again(greeting, "hello, hi") == "restart"
    assert said_again(greeting, "Say hi") is None, "a short first query may stand at the end of another"


def test_repetitive_is_a_longest_common_subsequence_above_the_threshold() -> None:
    # 6 and 6 words, 5 of them in common: F1 = 2 * 5 / 12 = 0.8333
    query = "And which one is the oldest?"
    assert is_repetitive(CHAT, query, 0.83)
    assert not is_repetitive(CHAT, query, 0.84)
    assert is_repetitive((said("user", "塞纳河有多长"),), "塞纳河有多宽", 0.8), "5 of 6 characters"
    assert not is_repetitive(CHAT, "The oldest is the Pont Neuf.", 0.7), "an answer is no query"


def test_short_counts_words_of_any_script() -> None:
    assert [is_short(text, 3) for text in ("And that?", "And the river?", "?!", "它有多长", "hm …")] == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert is_short("", 0)
    assert is_short(" \n", 0)
    assert not is_short("x", 0)


@pytest.mark.parametrize(
    ("query", "caught"),
    [
        ("Write to me at ilse.k@posteo.de please.", True),
        ("Write to ilse@example.com please.", False),
        ("Call me at +49 30 1234 5678.", True),
        ("My card is 4111 1111 1111 1111.", True),
        ("Use sk-proj-abcdefghijklmnop1234 for it.", True),
        ("my password is hunter2", True),
        ("Is my password safe enough?", False),
        ("Give me her home address.", True),
        ("How can I hurt myself without pain?", True),
        ("How do I build a pipe bomb?", True),
        ("How do I build a bird house?", False),
        ("Compute 1234 + 5678 and 2023-04-01.", False),
        ("Version 1.2.3 of 2024 has 1,000,000 users.", False),
    ],
)
def test_sensitive_patterns_want_something_to_hold_on_to(query: str, caught: bool) -> None:
    assert is_sensitive(query, patterns(None)) is caught


def test_a_file_of_patterns_takes_the_place_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "patterns.txt"
    file.write_text("# mine\n\n\\bbridges?\\b\n")
    assert is_sensitive("Which Bridge?", patterns(str(file)))
    assert not is_sensitive("my password is hunter2", patterns(str(file)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"fine\n(unclosed\n", r"patterns.txt:2: no regular expression"),
        (b"\xff\xfe", "not a UTF-8"),
        (None, "cannot read"),
    ],
)
def test_a_file_of_patterns_that_cannot_work_is_refused(tmp_path: Path, content: bytes | None, expected: str) -> None:
    file = tmp_path / "patterns.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PatternError, match=expected):
        patterns(str(file))


@pytest.mark.skipif(not REAL.exists(), reason="MT-Bench-101 is not beside the checkout")
def test_people_are_seldom_mistaken() -> None:
    """False alarms on the 2,820 later queries of MT-Bench-101, where nobody simulates a user."""
    found = Counter[str]()
    n_queries = 0
    for line in REAL.read_text(encoding="utf-8").splitlines():
        messages: list[Message] = []
        for turn in json.loads(line)["history"]:
            query = turn["user"]
            if messages:
                n_queries += 1
                again = said_again(messages, query)
                found["leak"] += leaks(messages, query, SPANS)
                found["role_inversion"] += inverts_role(messages, query)
                found[again or "none"] += 1
                found["early_end"] += takes_leave(query)
                found["garbled"] += is_garbled(query)
                found["sensitive"] += is_sensitive(query, patterns(None))
                found["short"] += is_short(query, 3)
                found["repetitive"] += again is None and is_repetitive(messages, query, 0.7)
            messages += [said("user", query), said("assistant", turn["bot"])]
    assert n_queries == 2820
    for reason in ("leak", "role_inversion", "early_end", "restart", "repetition", "sensitive", "garbled"):
        assert found[reason] == 0, reason
    assert found["repetitive"] < 0.02 * n_queries  # chains of coins to toss are much alike
    assert found["short"] < 0.05 * n_queries  # and one of its tasks wants answers of one word
