"""Thin Prefect tasks over `core`, one file per stage."""
