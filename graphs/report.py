"""A finished run as a few lines for people."""

from graphs.campaign import CampaignReport
from graphs.progress import clock


def report_lines(report: CampaignReport, *, database: str, skipped: int) -> list[str]:
    cost = "price unknown" if report.cost_usd is None else f"${report.cost_usd:.4f}"
    lines = [
        f"campaign   {report.name} ({report.campaign_id})",
        f"seeds      {report.seeds}" + (f" (and {skipped} skipped)" if skipped else ""),
        f"dialogues  {report.done} done, {report.failed} failed, {report.dialogues - report.done - report.failed} open",
        f"pairs      {report.pairs}",
        f"calls      {report.calls_sent} sent, {report.calls_reused} taken from the journal, in {clock(report.seconds)}",
        f"tokens     {report.prompt_tokens} in, {report.completion_tokens} out, {cost}",
    ]
    if report.stop_reason is not None:
        lines.append(f"stopped    {report.stop_reason}")
    elif report.failed:
        lines.append(f'see why    descant sql --db {database} "FROM errors"')
    lines.append(f"look       descant show --db {database} {report.campaign_id}")
    return lines
