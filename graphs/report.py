"""A finished run as a few lines for people."""

from typing import Any

from graphs.campaign import CampaignReport
from graphs.judging import JudgingReport
from graphs.progress import clock


def report_lines(report: CampaignReport, *, database: str, skipped: int) -> list[str]:
    lines = [
        f"campaign   {report.name} ({report.campaign_id})",
        f"models     {_models(report.models)}",
        f"seeds      {report.seeds}" + (f" (and {skipped} skipped)" if skipped else ""),
        f"dialogues  {report.done} done, {report.failed} failed, {report.dialogues - report.done - report.failed} open",
        f"pairs      {report.pairs} in the campaign{_balance(report)}",
        *_gate(report),
        *_refused(report),
        f"calls      {report.calls_sent} sent, {report.calls_reused} taken from the journal, in {clock(report.seconds)}"
        + (f"; {report.calls_failed} failed for good" if report.calls_failed else ""),
        *_tokens(report),
    ]
    lines += [f"budget     {_used(use)}" for use in report.budget or ()]
    if report.stop_reason is not None:
        lines.append(f"stopped    {report.stop_reason}")
    elif report.failed or report.calls_failed:
        lines.append(f'see why    descant sql --db {database} "FROM errors"')
        if report.failed:
            lines.append(f"try again  descant retry-failed --db {database}, then the same command again")
    elif report.refused and not report.pairs:
        lines.append(f'see why    descant sql --db {database} "SELECT reason, source, content FROM caught"')
    if any(model.startswith("rehearsal/") for model in report.models.values()):
        lines.append("note       a rehearsal model played: this says nothing about real models")
    lines.append(f"look       descant show --db {database} {report.campaign_id}")
    return lines


def _tokens(report: CampaignReport | JudgingReport) -> list[str]:
    """What answers used, and what may be billed for nothing."""
    lines = [f"tokens     {report.prompt_tokens} in, {report.completion_tokens} out, {_price(report.cost_usd)}"]
    if report.lost_tokens:
        lines[0] += " for answers"
        lines.append(
            f"lost       up to {report.lost_tokens} tokens more ({_price(report.lost_usd)}): requests without an answer may be "
            "billed too"
        )
    return lines


def _price(usd: float | None) -> str:
    return "price unknown" if usd is None else f"${usd:.4f}"


def _used(use: dict[str, Any]) -> str:
    """`budget.usd: $1.2034 of $5`."""
    if use["cap"].endswith("usd"):
        return f"{use['cap']}: ${use['spent']:.4f} of ${use['limit']:g}"
    return f"{use['cap']}: {use['spent']:,} of {use['limit']:,}"


def _gate(report: CampaignReport) -> list[str]:
    """What the gate caught, and what became of it; nothing where there is no gate."""
    if report.caught is None:
        return []
    if not report.caught:
        return ["gate       no query caught"]
    reasons = ", ".join(f"{n} {reason}" for reason, n in report.caught.items())
    outcomes = report.caught_outcomes or {}
    told = [f"{outcomes.get('asked_again', 0)} asked again"] + [
        f"{outcomes[outcome]} {'dialogue' if outcomes[outcome] == 1 else 'dialogues'} {outcome}"
        for outcome in ("ended", "failed")
        if outcomes.get(outcome)
    ]
    caught = sum(report.caught.values())
    return [f"gate       {caught} {'query' if caught == 1 else 'queries'} caught: {reasons}; {', '.join(told)}"]


def _refused(report: CampaignReport) -> list[str]:
    """The answers that could not stand in a pair, and at how many places none came about; nothing where none are paired."""
    if report.refused is None:
        return []
    if not report.refused:
        return ["answers    none refused"]
    reasons = ", ".join(f"{n} {reason}" for reason, n in report.refused.items())
    places = f"{report.without_pair} place{'' if report.without_pair == 1 else 's'} without a pair"
    return [f"answers    {sum(report.refused.values())} refused: {reasons}; {places}"]


def _balance(report: CampaignReport) -> str:
    if report.chosen_longer is None:
        return ""
    return f", {report.near_identical} near-identical, chosen longer in {100 * report.chosen_longer:.0f} %"


def judging_lines(report: JudgingReport, *, database: str) -> list[str]:
    """A judging as a few lines."""
    done = report.verdicts - report.failed - report.open
    subjects = "pairs" if "compare" in report.rubric else "conversations"
    lines = [
        f"label set  {report.label_set} ({report.rubric}), calls under {report.campaign_id}",
        f"judges     {', '.join(report.judges)}",
        f"judged     {report.subjects - report.without_reference} {subjects}"
        + (f" (and {report.without_reference} left out: no right answer is known)" if report.without_reference else ""),
        f"verdicts   {done} there, {report.failed} failed, {report.open} open; {report.invalid} of the set invalid",
        f"calls      {report.calls_sent} sent, {report.calls_reused} taken from the journal, in {clock(report.seconds)}",
        *_tokens(report),
    ]
    if report.relabelled:
        lines.append(f"relabelled {report.relabelled} pairs: judged_label is these judges' majority")
    if report.stop_reason is not None:
        lines.append(f"stopped    {report.stop_reason}")
    elif report.failed:
        lines.append(f'see why    descant sql --db {database} "FROM errors"; the same command asks again')
    if any(model.startswith("rehearsal/") for model in report.judges.values()):
        lines.append("note       a rehearsal model judged: this says nothing about real models")
    return lines


def _models(models: dict[str, str]) -> str:
    """`openai/x for all`, or each model with its roles."""
    by_model: dict[str, list[str]] = {}
    for role, model in models.items():
        by_model.setdefault(model, []).append(role)
    if len(by_model) == 1:
        return f"{next(iter(by_model))} for every role"
    return ", ".join(f"{model} ({', '.join(roles)})" for model, roles in by_model.items())
