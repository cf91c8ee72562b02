"""The run config: defaults, refusals, hashes, round trips."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import RunConfig, differences, dump_yaml, flatten, load_config
from core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_config_is_valid(path: Path) -> None:
    """Each file in configs/ loads, and its hash does not depend on its name and place."""
    config = load_config(path)
    moved = load_config(path, ["run.output_dir=/elsewhere", "run.name=other"])
    assert config.config_hash() == moved.config_hash()
    assert config.config_hash() != load_config(path, ["run.seed=99999"]).config_hash()


def test_all_problems_come_in_one_message_with_the_nearest_key(tmp_path: Path) -> None:
    """Unknown keys, wrong types and impossible values are all named at once, with what was meant."""
    path = write(tmp_path, "run: {sed: 4}\nmodel: {dtype: fp8}\ntarget: {count: -3}\nqc: {max_runaway: 1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["engine.batchsize=3", "nonsense"])
    text = str(caught.value)
    for part in ("run.seed?", "model.dtype", "target.count", "qc.max_runaway_ratio?", "engine.batch_size?"):
        assert part in text
    assert "nonsense" in text and text.startswith(f"{path} has 6 problems")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n- b\n", "sections"),
        ("run: [", "not valid YAML"),
        ("target: {count: 50, max_candidates: 20}", "could never be reached"),
        ("instructions: {seeds_per_prompt: 3, accepted_per_prompt: 3}", "must be below"),
        ("critics: {pair: {kinds: [ab, ab]}}", "names a kind twice"),
        ("critics: {instruction: {kinds: [pmi]}}", "likelihood"),
        ("cost: {device_usd_per_hour: .inf}", "finite"),
        ("critics: {pair: {margin_nats: .nan}}", "finite"),
    ],
)
def test_impossible_configs_are_refused_in_words(tmp_path: Path, text: str, part: str) -> None:
    """A config that cannot work is refused before anything is loaded."""
    with pytest.raises(ConfigError, match=part):
        load_config(write(tmp_path, text))


def test_missing_file_is_a_sentence(tmp_path: Path) -> None:
    """A config that is not there exits with code 2, not a traceback."""
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_config(tmp_path / "nowhere.yaml")
    assert caught.value.exit_code == 2


@given(
    st.integers(0, 2**62),
    st.floats(0.0, 5.0),
    st.sampled_from(["auto", "always", "never"]),
    st.one_of(st.just("fit"), st.floats(-5, 5)),
)
def test_yaml_round_trip_is_identity(seed: int, temperature: float, bos: str, margin: object) -> None:
    """Config to YAML and back gives an equal config with an equal hash."""
    import tempfile

    config = RunConfig.model_validate(
        {
            "run": {"seed": seed},
            "model": {"bos": bos},
            "instructions": {"temperature": temperature},
            "critics": {"pair": {"margin_nats": margin}},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        again = load_config(write(Path(folder), dump_yaml(config)))
    assert again == config and again.config_hash() == config.config_hash()


def test_differences_name_values_not_places() -> None:
    """What differs is listed old to new; name and folder do not count."""
    a = RunConfig().model_dump(mode="json")
    b = RunConfig.model_validate({"run": {"name": "x", "seed": 7}}).model_dump(mode="json")
    assert differences(a, b) == ["run.seed: 42 -> 7"]


def test_every_key_is_read_somewhere() -> None:
    """No config key is decoration: each one's name is read as an attribute by code outside config.py."""
    read = set()
    for folder in ("core", "reviews", "tasks", "flows", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name not in ("config.py", "thresholds.py"):
                tree = ast.parse(path.read_text())
                read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # Read by name: getattr(thresholds, f"{kind}_{metric}_acceptance_ratio") in QC.
    by_name = {f"{w}_{k}_acceptance_ratio" for w in ("min", "warn") for k in ("instruction", "pair")}
    keys = {key.rpartition(".")[2] for key in flatten(RunConfig().model_dump(mode="json"))}
    assert keys - read - by_name == set()
