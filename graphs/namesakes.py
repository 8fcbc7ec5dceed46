"""A campaign that begins beside another one of its name, since a setting was changed: which setting that is.

Ids are hashes of the settings, so a changed one makes a new campaign. That may be what was wanted, or a slip.
"""

import os
from collections.abc import Sequence

from pydantic import ValidationError

from configs.settings import CampaignSettings
from graphs.cast import shape_of
from graphs.differing import changed_settings
from store import played
from store.database import database_path
from store.queries import campaigns_called

NO_PART = ("judge_repairs",)
"""Settings that change calls and are no part of what a campaign is."""
SHOWN = 3


def namesake_line(settings: CampaignSettings, campaign_id: str, database: str | os.PathLike[str]) -> str | None:
    """What to say before a campaign begins anew beside the one of its name that is most like it; null where there is none."""
    if not database_path(database).exists():
        return None
    others = campaigns_called(database, settings.name)
    if campaign_id in others or not others:
        return None
    other, changes = min(((one, _changes(settings, database, one)) for one in others), key=lambda found: len(found[1]))
    return (
        f"a new campaign begins, {campaign_id}: {_told(changes)} in {other}, which has the name {settings.name!r} too"
    )


def _changes(settings: CampaignSettings, database: str | os.PathLike[str], other: str) -> Sequence[str]:
    """What differs, setting by setting; empty where it is none of them."""
    stored = played.campaign(database, other)
    try:
        before = CampaignSettings.model_validate(stored.config)
    except ValidationError:  # of another version of Descant, or a judging
        return [f"recipe is {settings.recipe!r}, and {stored.recipe!r}"] if stored.recipe != settings.recipe else []
    return changed_settings(shape_of(before, without=NO_PART), shape_of(settings, without=NO_PART))


def _told(changes: Sequence[str]) -> str:
    if not changes:
        return "its prompts, its reward model or its version of Descant are not those"
    more = f", and {len(changes) - SHOWN} more differ" if len(changes) > SHOWN else ""
    return f"{'; '.join(changes[:SHOWN])}{more}"
