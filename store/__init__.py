"""What is kept: records, the journal, DuckDB, views, reading seeds, export. Knows nothing of models, agents or graphs."""
