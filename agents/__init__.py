"""Who speaks: agents over LiteLLM, their prompts, and the rehearsal backend. Knows nothing of graphs, campaigns or training."""
