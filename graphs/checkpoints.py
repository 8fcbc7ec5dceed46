"""Checkpoints that play roles: served for as long as a campaign, an evaluation or a judging runs.

What serves them comes as an argument, since this floor must not see the one that trains. Where they answer changes from
run to run and is never stored; the name that they are served by tells their weights, and is part of a campaign's identity.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

from agents.preflight import check
from configs.errors import DescantError
from configs.judge_settings import JudgeSettings
from configs.model_settings import Endpoint, ModelsSettings, Role
from configs.settings import CampaignSettings
from graphs.cast import prompts_of, require_named_models, roles_in_use

Say = Callable[[str], None]


class CheckpointError(DescantError):
    """Raised here: a checkpoint that cannot play the role it is named for."""


class Serve(Protocol):
    def __call__(self, folders: Sequence[str], *, say: Say) -> AbstractContextManager[Mapping[str, Endpoint]]:
        """Where each of the folders' models answers, for as long as the block runs."""
        ...


class Serving(NamedTuple):
    """What knows checkpoints and serves them."""

    objective_of: Callable[[str], str | None]
    """What a language model was trained for (`ask`, `sft`, ...), null where its folder does not say; raises where it is none."""
    serve: Serve


@contextmanager
def with_checkpoints(
    settings: CampaignSettings, serving: Callable[[], Serving], *, say: Say, judged: bool = False
) -> Iterator[CampaignSettings]:
    """The settings with every checkpoint in use served once; as they are where there is none.

    What is wrong with the prompts and the other models is told before anything starts.

    Args:
        judged: the judges play too, whatever the recipe says.
    """
    roles = roles_in_use(settings)
    if judged:
        roles = [*(one for one in roles if one[0] != "judge"), *judges_of(settings.models)]
    if checkpoints_of(settings.models, roles):
        require_named_models(settings)
        prompts_of(settings)
    with served_models(settings.models, roles, serving, say=say, simulator=settings.simulator) as models:
        yield settings if models is settings.models else settings.model_copy(update={"models": models})


@contextmanager
def with_judges(settings: JudgeSettings, serving: Callable[[], Serving], *, say: Say) -> Iterator[JudgeSettings]:
    """The same for a later judging."""
    models = settings.models.as_roles()
    with served_models(models, judges_of(models), serving, say=say) as found:
        yield settings.model_copy(update={"models": settings.models.served(found.endpoints)})


@contextmanager
def served_models(
    models: ModelsSettings,
    roles: Sequence[tuple[Role, int]],
    serving: Callable[[], Serving],
    *,
    say: Say,
    simulator: str = "prompted",
) -> Iterator[ModelsSettings]:
    """The models with the checkpoints of these roles served; the very same where there is none.

    Raises:
        CheckpointError: a checkpoint was not trained for what it would be asked.
        PreflightError, KeyMissingError: what is wrong with another role's model, before anything starts.
    """
    used = checkpoints_of(models, roles)
    if not used:
        yield models
        return
    check(models.of(role, index) for role, index in roles if (role, index) not in used)
    ready = serving()
    for (role, index), folder in used.items():
        where = f"models.judges.{index}" if role == "judge" else f"models.{role}"
        _check_part(where, role, folder, ready.objective_of(folder), simulator)
    with ready.serve(list(dict.fromkeys(used.values())), say=say) as endpoints:
        yield models.served(endpoints)


def judges_of(models: ModelsSettings) -> list[tuple[Role, int]]:
    """Every judge, with its place."""
    return [("judge", index) for index in range(len(models.judges))]


def checkpoints_of(models: ModelsSettings, roles: Sequence[tuple[Role, int]]) -> dict[tuple[Role, int], str]:
    """The folder by role and place, of the roles that a checkpoint plays."""
    found = {(role, index): models.checkpoint_of(role, index) for role, index in roles}
    return {key: folder for key, folder in found.items() if folder is not None}


def _check_part(where: str, role: Role, folder: str, objective: str | None, simulator: str) -> None:
    """Raise a CheckpointError where a model would be asked for what it never learned."""
    if objective == "ask" and role != "user":
        raise CheckpointError(
            f"{where}: the checkpoint {folder!r} is an ask model, which writes a user's queries: name it under models.user"
        )
    if objective == "ask" and simulator == "prompted":
        raise CheckpointError(
            f"{where}: the checkpoint {folder!r} is an ask model, which goes on with the bare conversation and reads no "
            "instructions: set simulator: trained"
        )
    if role == "user" and simulator == "trained" and objective not in ("ask", None):
        raise CheckpointError(
            f"{where}: simulator is trained, and the checkpoint {folder!r} was trained as {objective}, to answer: name one "
            "of descant fit ask, or set simulator: prompted"
        )
