"""Prompts as data: templates with hashes, seed items, parsing and cleaning of what models write."""
