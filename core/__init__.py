"""Everything the pipeline knows how to do, as plain Python. Never imports Prefect."""
