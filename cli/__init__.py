"""The `stagegate` command: a thin face over the same functions."""
