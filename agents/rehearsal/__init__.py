"""The rehearsal backend: a rule-based, deterministic stand-in for an LLM in a closed world with known truth.

It reads the prompts as text, as a model would, and nothing else. It says nothing about real models.
"""
