"""Ids are hashes of plain JSON, whatever carries it."""

from store.identity import content_hash, seed_id
from store.records import Message

SAID = [Message(role="user", content="What is it?"), Message(role="assistant", content='A "tower", é.\n')]


def test_messages_hash_as_the_json_that_they_are() -> None:
    plain = [message.model_dump(mode="json") for message in SAID]
    assert content_hash("model", SAID, {"seed": 1}) == content_hash("model", plain, {"seed": 1})
    assert content_hash("model", tuple(SAID)) == content_hash("model", plain)
    assert content_hash("model", SAID[:1]) != content_hash("model", SAID)


def test_the_hash_of_a_conversation_stays_what_it_was() -> None:
    """Corpora hold it: another one would make every seed a new one, and every paid call an unknown one."""
    assert seed_id(SAID, 0) == "seed_94e2860fbd7fdc8df36a"
