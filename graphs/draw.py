"""Writes the diagrams of `docs/graphs.md` from the compiled graphs: `python -m graphs.draw > docs/graphs.md`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agents.gate import Gate
from agents.ledger import Ledger, forget
from agents.prompts import GATE_VARIABLES, VARIABLES, Prompts
from configs.pairing_settings import BoostSettings, PairingSettings
from configs.settings import CampaignSettings, CapoSettings, GateSettings, PerturbSettings
from graphs.best_of_n import RewardModel, build_best_of_n_graph
from graphs.capo import build_capo_graph
from graphs.cast import Cast, build_cast
from graphs.dialogue import build_dialogue_graph
from graphs.music import build_music_graph
from graphs.pairing import build_pairing_graph
from graphs.rivals import build_rlaif_graph, build_rlcd_graph, build_west_of_n_graph
from graphs.rmboost import build_rmboost_graph
from store.records import Fit


def page() -> str:
    """The whole Markdown page."""
    sections = "\n".join(f"## {title}\n\n```mermaid\n{_mermaid(graph)}\n```\n" for title, graph in _graphs().items())
    return f"# The graphs\n\nDrawn from the compiled graphs by `python -m graphs.draw`; a test keeps this page true.\n\n{sections}"


def _graphs() -> Mapping[str, Any]:
    settings = CampaignSettings()
    prompts = Prompts(variables=VARIABLES | GATE_VARIABLES)
    cast: Cast = build_cast(settings, prompts, Ledger(forget))
    perturb = PerturbSettings(verify=True)
    pairing = PairingSettings(boost=BoostSettings(verify=True))
    return {
        "`dialogue`, plain: the user simulator and the assistant in turn": build_dialogue_graph(cast),
        "`dialogue` with a gate: a query that is caught is asked for again": build_dialogue_graph(
            replace(cast, gate=Gate(GateSettings(), prompts))
        ),
        "`dialogue`, perturbed and verified: what the rejected branch of `music` runs": build_dialogue_graph(
            cast, perturb
        ),
        "`music`: two branches that live on, then the judges": build_music_graph(cast, perturb, judge_pairs=True),
        "`music` with `perturb.share`: the rejected branch takes over the chosen one's turns": build_music_graph(
            cast, perturb.model_copy(update={"share": "trunk"}), judge_pairs=True
        ),
        "`capo`: a dialogue, its context-dependent queries, and the negatives of each side by side": build_capo_graph(
            cast, CapoSettings(), perturb
        ),
        "`best_of_n`: the assistant gives N candidates, a reward model picks": build_best_of_n_graph(
            cast, settings.candidates, _nobody()
        ),
        "`rmboost`, `rlaif`, `rlcd`, `west_of_n`: a dialogue, some of whose answers are made into pairs": build_pairing_graph(
            cast, pairing, None
        ),
        "`rmboost` at such an answer: the label is drawn before the second answer is written": build_rmboost_graph(
            cast, pairing
        ),
        "`rlaif` at such an answer: two samples, and judges say which is better": build_rlaif_graph(cast, pairing),
        "`rlcd` at such an answer: a good and a poor one, asked for apart": build_rlcd_graph(cast, pairing),
        "`west_of_n` at such an answer: the best and the worst of N by a reward model": build_west_of_n_graph(
            cast, pairing, settings.candidates, _nobody()
        ),
    }


def _nobody() -> RewardModel:
    """A scorer that is drawn and never asked."""
    fit = Fit.model_construct(fit_id="fit_nobody")
    return RewardModel(fit, lambda _: [])


def _mermaid(graph: Any) -> str:
    return str(graph.get_graph().draw_mermaid()).strip()


if __name__ == "__main__":
    print(page(), end="")
