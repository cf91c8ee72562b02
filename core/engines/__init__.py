"""Completion engines: batches of token ids in, completions and scores out."""
