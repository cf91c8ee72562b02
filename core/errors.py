"""The exceptions that stagegate raises on purpose.

    StagegateError                 exit 1
    ├── BadInputError              exit 2   a file, an argument or a config key that cannot be used
    │   ├── ConfigError                     every problem of a run config, in one message
    │   ├── ModelLoadError                  missing, half-downloaded, wrong kind, tokenizer mismatch
    │   ├── DataFileError                   a JSONL (or manifest) that cannot be read, with line numbers
    │   ├── RunMismatchError                an output directory that belongs to another run
    │   └── StorageError                    full disk, read-only or missing output directory
    ├── GateRefusedError           exit 3   a machine check said no
    │   ├── ContaminationError              the model or a prompt is not clean
    │   ├── ModelHealthError                tokenizer or weights do not behave like a language model
    │   └── IntegrityError                  a hash chain is broken
    ├── BudgetError                exit 5   the money does not suffice
    └── TransientError             exit 1   worth a retry: the only class that Prefect retries

Each message says what happened, with the numbers, and what to do next. `exit_code` is what the CLI
returns; 4 (waiting for approval) is a result, not an error. Values named in a message are attributes.
"""

from __future__ import annotations

from typing import Any


class StagegateError(Exception):
    """Base of everything raised on purpose. Keyword arguments become attributes."""

    exit_code = 1

    def __init__(self, message: str, **values: Any) -> None:
        super().__init__(message)
        self.values = values
        for name, value in values.items():
            setattr(self, name, value)


class BadInputError(StagegateError):
    """Something that was handed in cannot be used as it is."""

    exit_code = 2


class ConfigError(BadInputError):
    """A run config has problems; `problems` lists all of them."""


class ModelLoadError(BadInputError):
    """A model or its tokenizer cannot be loaded, or is not what was asked for."""


class DataFileError(BadInputError):
    """A data file cannot be read; `lines` holds the offending line numbers where there are any."""


class RunMismatchError(BadInputError):
    """The output directory holds a run with another config or model; `differences` says which."""


class StorageError(BadInputError):
    """The output place cannot be written: full, read-only or missing."""


class GateRefusedError(StagegateError):
    """A machine check refused; nothing behind it may run."""

    exit_code = 3


class ContaminationError(GateRefusedError):
    """A prompt carries tokens that nobody wrote, or the model is not a base model."""


class ModelHealthError(GateRefusedError):
    """The loaded model does not behave as a working language model."""


class IntegrityError(GateRefusedError):
    """A manifest, a hash or a chain of hashes does not verify."""


class BudgetError(StagegateError):
    """Not enough money is left for what was asked."""

    exit_code = 5


class TransientError(StagegateError):
    """A passing fault; the same call may succeed later."""
