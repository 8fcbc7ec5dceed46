"""What learns and scores: torch and transformers. Knows nothing of agents and graphs, so that it installs alone on a GPU machine."""
