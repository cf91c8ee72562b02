"""Manifests, the chain of hashes, and a run's folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import BadInputError, DataFileError, IntegrityError, RunMismatchError, StorageError
from core.files import write_json, write_text
from core.provenance.home import RunHome
from core.provenance.manifest import Artifact, read_manifest, seal_artifact, verify


def chain(root: Path) -> tuple[Artifact, Artifact, Artifact]:
    """Three artifacts: data made of nothing, train made of data, report made of both."""
    for name, text in (("data", "rows"), ("train", "weights"), ("report", "numbers")):
        write_text(root / name / "file.txt", text)
    data = seal_artifact(root / "data", "data", ["file.txt"], [], {})
    train = seal_artifact(root / "train", "train", ["file.txt"], [data], {})
    return data, train, seal_artifact(root / "report", "report", ["file.txt"], [data, train], {})


def test_a_whole_chain_verifies_oldest_first(tmp_path: Path) -> None:
    """Every ancestor is checked once, also when the run's folder was moved."""
    chain(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert [link.kind for link in verify(tmp_path / "b" / "report")] == ["data", "train", "report"]


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        ("data/file.txt", "data"),
        ("train/file.txt", "train"),
        ("report/file.txt", "report"),
    ],
)
def test_one_changed_byte_anywhere_is_named(tmp_path: Path, damage: str, names: str) -> None:
    """Changing a file of any artifact breaks the chain at exactly that file."""
    chain(tmp_path)
    path = tmp_path / damage
    path.write_text(path.read_text() + "x")
    with pytest.raises(IntegrityError, match=rf"{names}/file\.txt was changed"):
        verify(tmp_path / "report")


def test_missing_extra_and_forged_parts_are_found(tmp_path: Path) -> None:
    """A lost file, an added file, an edited manifest, a remade parent: each is refused by name."""
    chain(tmp_path)
    (tmp_path / "train" / "extra.bin").write_text("x")
    with pytest.raises(IntegrityError, match=r"extra\.bin"):
        verify(tmp_path / "report")
    (tmp_path / "train" / "extra.bin").unlink()
    manifest = tmp_path / "data" / "manifest.json"
    original = manifest.read_text()
    manifest.write_text(original.replace('"kind": "data"', '"kind": "dato"'))
    with pytest.raises(IntegrityError, match="changed after it was written"):
        verify(tmp_path / "report")
    # Remade from scratch with other content, all its own hashes right: still not the one that was used.
    write_text(tmp_path / "data" / "file.txt", "other rows")
    seal_artifact(tmp_path / "data", "data", ["file.txt"], [], {})
    with pytest.raises(IntegrityError, match="another data artifact"):
        verify(tmp_path / "report")
    manifest.unlink()
    with pytest.raises(IntegrityError, match="not there any more"):
        verify(tmp_path / "report")


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    """A stage that died before its end left nothing that verifies; garbage is no manifest either."""
    with pytest.raises(BadInputError, match="not a finished artifact"):
        verify(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(IntegrityError):
        verify(tmp_path)


def test_manifest_says_what_made_it(tmp_path: Path) -> None:
    """Commit, state of the checkout, package versions and time are in every manifest."""
    chain(tmp_path)
    made = read_manifest(tmp_path / "report")
    assert made["environment"]["git_state"] in ("clean", "dirty", "unknown")
    assert made["environment"]["packages"]["torch"]
    assert made["created_at"].endswith("+00:00")


KEYS = ["weights_sha256"]


def home(folder: Path, values: dict[str, object], digest: str = "a" * 64) -> RunHome:
    return RunHome(folder, values, digest)


def test_folder_goes_on_with_the_same_config_only(tmp_path: Path) -> None:
    """The same config resumes with the same run id; another one is refused with what differs."""
    with home(tmp_path, {"seed": 1}).open("seed: 1\n") as first:
        run_id = first.run_id
    with home(tmp_path, {"seed": 1}).open("seed: 1\n") as again:
        assert again.run_id == run_id
    with pytest.raises(RunMismatchError, match="seed: 1 -> 2") as caught:
        home(tmp_path, {"seed": 2}, "b" * 64).open("seed: 2\n", ["seed: 1 -> 2"])
    assert caught.value.exit_code == 2


def test_another_model_under_the_same_config_is_refused(tmp_path: Path) -> None:
    """Weights that changed under the same name do not slip into a run."""
    with home(tmp_path, {}).open("") as run:
        run.bind("model", {"weights_sha256": "1", "time": 5}, KEYS)
    with home(tmp_path, {}).open("") as run:
        run.bind("model", {"weights_sha256": "1", "time": 5}, KEYS)
        with pytest.raises(RunMismatchError, match="weights_sha256: '1' -> '2'"):
            run.bind("model", {"weights_sha256": "2"}, KEYS)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    """While a run is open, a second process is told so and changes nothing."""
    code = (
        "import sys; from pathlib import Path\n"
        "from core.errors import RunMismatchError\n"
        "from core.provenance.home import RunHome\n"
        "try: RunHome(Path(sys.argv[1]), {}, 'a' * 64).open('')\n"
        "except RunMismatchError as error: print(error); sys.exit(7)\n"
    )
    with home(tmp_path, {}).open(""):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 7 and "another process" in done.stdout, done.stderr


def test_unreadable_run_record_is_not_overwritten(tmp_path: Path) -> None:
    """A damaged run.json stops the run instead of being replaced by a new one."""
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataFileError, match=r"run\.json cannot be read"):
        RunHome.known_record(tmp_path)
    assert (tmp_path / "run.json").read_text() == "{"


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    """A write that cannot finish leaves the old file and no rubbish beside it."""
    write_json(tmp_path / "a.json", {"x": 1})
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_text(blocker / "below" / "a.json", "x")
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "file"]
