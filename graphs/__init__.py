"""How the agents speak: LangGraph graphs, and campaigns that run many of them. Knows nothing of training."""
