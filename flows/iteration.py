"""One iteration of the pilot: a base model writes, criticises and filters its own data, and QC judges it.

    load -> examine -> certify critics -> (instructions, responses)* -> dataset -> QC -> seal

Every step leaves a sealed artifact in the folder; an iteration that died anywhere goes on from there,
and a finished one is verified and shown again. It runs alone (`stagegate pilot`), or as the child of a gated
run (`flows.pilot`) in a process of its own, which has ended before anybody is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_progress_artifact
from prefect.runtime import flow_run

from core.config import RunConfig, differences, dump_yaml
from core.errors import ContaminationError, RunMismatchError
from core.files import sha256_file, write_json
from core.progress import ProgressEvent, emit
from core.provenance.home import RunHome
from core.provenance.manifest import Artifact, verify
from tasks.bookkeeping import RunBook
from tasks.generation import JOURNAL, generate_unit, generation_status
from tasks.model import certify_critic, examine_model, load_identity
from tasks.policies import source_digest
from tasks.quality import ACCEPTED_FILE, judge_quality, write_dataset
from tasks.resources import forget_generation

SUBJECTS = ("instruction", "pair")
SAME_MODEL = ("weights_sha256", "tokenizer_sha256", "quantization", "dtype", "bos")
GUARD_FILE = "guard_report.json"
CERTIFICATE_FILE = "certificates.json"
SUMMARY_FILE = "qc_summary.json"
REPORT_FILE = "qc_report.html"

Made = tuple[list[str], dict[str, Any]]
"""Files of an artifact, and what its manifest should say besides."""


@flow(name="pilot-iteration", flow_run_name="{config.run.name}")
def pilot_iteration(config: RunConfig, run_id: str | None = None, number: int = 1) -> dict[str, Any]:
    """Run one iteration to its QC verdict; returns where it is and what came out.

    Args:
        config: everything that the iteration does.
        run_id: the gated run that it belongs to; none for an iteration that stands alone.
        number: which iteration of that run it is.

    Raises:
        ContaminationError, ModelHealthError: the model is not a clean, working base model.
        RunMismatchError: the output directory holds another run.
        StorageError: the output directory cannot be written; nothing committed is lost.
    """
    with _run_home(config, run_id) as home:
        if (home.folder / "manifest.json").is_file():
            emit(ProgressEvent("done", f"{home.folder} is finished already; verifying it"))
            verify(home.folder)
            return outcome(home.folder)
        identity = load_identity(config.model, config.engine)
        home.bind("model", identity, SAME_MODEL)
        inputs = input_digests(config)
        home.bind("inputs", inputs, list(inputs))
        sha256 = identity["weights_sha256"]
        if run_id is None:
            book = RunBook.begin(config, home.run_id, home.folder, sha256, flow_run.id)
        else:
            book = RunBook.join(config, run_id, number)
        try:
            summary = _stages(config, home, book, identity)
        except BaseException as error:
            book.fail(interrupted=not isinstance(error, Exception))
            raise
        finally:
            forget_generation(home.folder / "generation")
        book.end(summary["verdict"])
    return outcome(home.folder)


def _stages(config: RunConfig, home: RunHome, book: RunBook, identity: dict[str, Any]) -> dict[str, Any]:
    """All stages in order, each one only if its artifact is not there yet; the QC summary."""
    folder = home.folder

    def examine(place: Path, _: dict[str, Any]) -> Made:
        report = examine_model(config.model, config.engine, identity)
        if not report["clean"]:
            refuse_model(report, config.model.source)
        write_json(place / GUARD_FILE, report)
        return [GUARD_FILE], {"model": identity}

    def certify(place: Path, _: dict[str, Any]) -> Made:
        certificates = {subject: _certify(subject, config, identity) for subject in SUBJECTS}
        write_json(place / CERTIFICATE_FILE, certificates)
        chosen = {subject: entry["chosen"]["verdict"] for subject, entry in certificates.items()}
        return [CERTIFICATE_FILE], {"chosen": chosen}

    def generate(place: Path, counts: dict[str, Any]) -> Made:
        status = _generate(config, place, certificates, home.provenance_hash)
        counts |= {
            "records_in": status["instruction_candidates"],
            "records_out": status["accepted"],
            "completion_tokens": status["completion_tokens"],
        }
        return [JOURNAL], {key: status[key] for key in ("ended", "accepted", "units_done")}

    def collect(place: Path, counts: dict[str, Any]) -> Made:
        counts["records_out"] = write_dataset(folder / "generation", place)
        return [ACCEPTED_FILE], {"pairs": counts["records_out"]}

    def assess(place: Path, _: dict[str, Any]) -> Made:
        clean = _read(folder / "model" / GUARD_FILE)["clean"]
        summary = judge_quality(config, folder / "generation", place, certificates, clean)
        book.metrics(summary)
        return [SUMMARY_FILE, REPORT_FILE], {"verdict": summary["verdict"]}

    model = _artifact(home, book, "model", [], examine)
    certification = _artifact(home, book, "certification", [model], certify)
    certificates = _read(folder / "certification" / CERTIFICATE_FILE)
    generation = _artifact(home, book, "generation", [model, certification], generate)
    dataset = _artifact(home, book, "dataset", [generation], collect)
    quality = _artifact(home, book, "qc", [generation, dataset], assess)
    book.artifact(home.seal_run([dataset, quality], {}))
    return _read(folder / "qc" / SUMMARY_FILE)


def _artifact(
    home: RunHome,
    book: RunBook,
    name: str,
    parents: list[Artifact],
    make: Callable[[Path, dict[str, Any]], Made],
) -> Artifact:
    """The sealed artifact of a stage: as it is, or made now and recorded."""
    artifact = home.finished(name)
    if artifact is None:
        with book.stage(name) as counts:
            files, meta = make(home.folder / name, counts)
            artifact = home.seal(name, files, parents, meta)
    book.artifact(artifact)
    return artifact


def _certify(subject: str, config: RunConfig, identity: dict[str, Any]) -> dict[str, Any]:
    section = getattr(config.critics, subject)
    result: dict[str, Any] = certify_critic(
        subject,
        section,
        config.model,
        config.engine,
        identity,
        config.run.seed,
        config.responses.few_shot_pairs,
        _digest(section.labelled_file),
    )
    return result


def _generate(
    config: RunConfig, place: Path, certificates: dict[str, Any], provenance: str
) -> dict[str, Any]:
    """Units until the target, the cap, or nothing new comes; the final status."""
    progress = create_progress_artifact(
        progress=0.0, key="accepted-pairs", description=f"of {config.target.count} accepted pairs"
    )
    arguments = (config, place, certificates, provenance)
    while not (status := generation_status(*arguments))["ended"]:
        generate_unit(status["next"], *arguments, progress)
    final: dict[str, Any] = status
    return final


def input_digests(config: RunConfig) -> dict[str, str | None]:
    """sha256 of what a run reads besides its config: prompts, seeds, held-out and labelled files."""
    files = {
        "heldout_file": config.dedup.heldout_file,
        "instruction_labels": config.critics.instruction.labelled_file,
        "pair_labels": config.critics.pair.labelled_file,
    }
    digests = {name: _digest(path) for name, path in files.items()}
    return {"prompts_and_seeds": source_digest(("prompts",)), **digests}


def _digest(path: Path | None) -> str | None:
    return sha256_file(path) if path is not None and path.is_file() else None


def refuse_model(report: dict[str, Any], source: str) -> None:
    """Raise for a model that the guard did not find clean, with every failed check."""
    failed = [f"{c['name']}: {c['detail']}" for c in report["checks"] if not c["ok"]]
    listed = "\n".join(f"  - {line}" for line in failed)
    raise ContaminationError(
        f"{source} cannot be used as a base model:\n{listed}\n"
        f"See `stagegate guard {source}` for all checks; choose a base model in model.source.",
        failed=failed,
    )


@contextmanager
def _run_home(config: RunConfig, run_id: str | None) -> Iterator[RunHome]:
    """The run's folder, locked, checked against the config that started it."""
    folder = config.run.output_dir.absolute()
    if run_id is None and (folder / "iterations").is_dir():
        raise RunMismatchError(
            f"{folder} holds a gated run; choose another run.output_dir, or go on with it by `stagegate run`",
            differences=[],
        )
    values = config.model_dump(mode="json")
    known = RunHome.known_record(folder)
    changed = differences(known["config"], values) if known else []
    with RunHome(folder, values, config.config_hash(), run_id).open(dump_yaml(config), changed) as home:
        yield home


def outcome(folder: Path) -> dict[str, Any]:
    """Where a finished run is and what came out: QC summary, certificates, paths."""
    return {
        "folder": str(folder),
        "summary": _read(folder / "qc" / SUMMARY_FILE),
        "certificates": _read(folder / "certification" / CERTIFICATE_FILE),
        "dataset": str(folder / "dataset" / ACCEPTED_FILE),
        "report": str(folder / "qc" / REPORT_FILE),
    }


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
