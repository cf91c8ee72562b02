"""The boundary lint catches every known way around it and leaves ordinary code alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("boundaries", ROOT / "tools" / "boundaries.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["boundaries"] = module
    spec.loader.exec_module(module)
    return module


boundaries = _load()


def _rules(source: str, path: str = "tasks/stage.py") -> set[str]:
    return {problem.rule for problem in boundaries.check_source(source, path)}


MAKES_A_MODEL = {
    "from-import": "from transformers import AutoTokenizer",
    "from-import with alias": "from transformers import AutoModelForCausalLM as Innocent",
    "concrete class": "from transformers import Qwen2ForCausalLM",
    "fast tokenizer": "from transformers import PreTrainedTokenizerFast",
    "deep module": "from transformers.models.auto.modeling_auto import AutoModelForCausalLM",
    "star": "from transformers import *",
    "module alias": "import transformers as t\nt.AutoTokenizer",
    "submodule": "import transformers.models.llama\ntransformers.models.llama.LlamaForCausalLM(c)",
    "assigned alias": "import transformers as t\nu = t\nu.AutoModelForCausalLM.from_config(c)",
    "alias in a function": "def f():\n    import transformers as t\n    m = t\n    m.AutoModel",
    "walrus": "import transformers\n(u := transformers).AutoModel\nu.AutoModel",
    "pipeline": "from transformers import pipeline",
    "tokenizers": "from tokenizers import Tokenizer",
    "tokenizers from_file": "import tokenizers as k\nk.Tokenizer.from_file('x')",
    "peft": "from peft import AutoPeftModelForCausalLM",
    "peft wrapper": "import peft\npeft.get_peft_model(m, c)",
    "vllm": "from vllm import LLM",
    "llama.cpp": "import llama_cpp\nllama_cpp.Llama(model_path='x')",
    "from_pretrained of anything": "loader.from_pretrained('x')",
    "from_pretrained not called": "f = loader.from_pretrained",
    "torch.load": "import torch\ntorch.load('x')",
    "torch.load by alias": "import torch as th\nth.load('x')",
    "load from torch": "from torch import load",
    "import_module": "import importlib\nimportlib.import_module('transformers').AutoTokenizer",
    "import_module by name": "from importlib import import_module as im\nim('tokenizers')",
    "__import__": "__import__('transformers')",
    "keyword": "import importlib\nimportlib.import_module(name='peft')",
    "getattr": "import transformers\ngetattr(transformers, 'AutoTokenizer')",
    "getattr of a method": "getattr(x, 'from_pretrained')('y')",
    "methodcaller": "from operator import methodcaller\nmethodcaller('from_pretrained', 'x')",
    "exec": "exec('from transformers import AutoTokenizer')",
    "eval": "eval('loader.from_pretrained(1)')",
    "else of TYPE_CHECKING": "if TYPE_CHECKING:\n    pass\nelse:\n    from vllm import LLM",
}


@pytest.mark.parametrize("source", MAKES_A_MODEL.values(), ids=MAKES_A_MODEL.keys())
def test_making_a_model_outside_core_models_is_refused(source: str) -> None:
    """Every way to a tokenizer or a model outside core/models is reported, and inside it is not."""
    assert "model-construction" in _rules(source)
    assert "model-construction" in _rules(source, "core/engines/transformers.py")
    assert "model-construction" in _rules(source, "benchmarks/bench_x.py")
    assert _rules(source, "core/models/load.py") == set()


SCORES = {
    "call": "engine.score_next(p, t)",
    "reference": "f = self.engine.score_continuations",
    "getattr": "getattr(engine, 'score_next')(p, t)",
    "attrgetter": "import operator\noperator.attrgetter('score_continuations')(engine)",
    "definition": "class E:\n    def score_next(self): ...",
}


@pytest.mark.parametrize("source", SCORES.values(), ids=SCORES.keys())
def test_scoring_outside_the_critics_is_refused(source: str) -> None:
    """Label scoring is reported in any stage; critics, engines and the model's probes may."""
    assert _rules(source) == {"label-scoring"}
    assert _rules(source, "core/generation/pairs.py") == {"label-scoring"}
    for path in ("core/critics/ab.py", "core/engines/x.py", "core/models/sentinels.py"):
        assert _rules(source, path) == set()
    assert _rules(source, "core/models/load.py") == {"label-scoring"}


@pytest.mark.parametrize(
    "source",
    [
        "tokenizer.apply_chat_template(m)",
        "f = tokenizer.apply_chat_template",
        "getattr(tokenizer, 'apply_chat_template')",
    ],
)
def test_chat_templates_are_refused_everywhere_but_in_the_guard(source: str) -> None:
    """A chat template is reported wherever it is applied, inside core/models too."""
    assert _rules(source) == {"chat-template"}
    assert _rules(source, "core/models/load.py") == {"chat-template"}
    assert _rules(source, "tests/unit/test_engine.py") == {"chat-template"}
    assert _rules(source, "core/models/guard.py") == set()


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("from transformers.cache_utils import Cache, DynamicLayer", False),
        ("from transformers import DynamicCache", False),
        ("if TYPE_CHECKING:\n    from transformers import PreTrainedModel", False),
        ("from transformers import GenerationConfig", True),
        ("import transformers", True),
    ],
)
def test_engines_take_only_cache_classes_from_transformers(source: str, refused: bool) -> None:
    """At run time an engine may import transformers' cache classes and nothing else of it."""
    assert (_rules(source, "core/engines/transformers.py") == {"engine-import"}) is refused


INNOCENT = {
    "own loader": "from core.models.loader import load_model\nload_model('bundled')",
    "types only": "if TYPE_CHECKING:\n    from transformers import AutoTokenizer",
    "other from_file": "config = Settings.from_file('x')\ncls.from_config(c)",
    "other load": "import json, torch\njson.load(f)\ntorch.tensor([1])\nyaml.load(s)",
    "name in a text": "print('AutoTokenizer.from_pretrained and score_next')",
    "name in a docstring": "def f():\n    '''Calls engine.score_next and apply_chat_template.'''",
    "own class of that name": "class AutoTokenizer: ...\nAutoTokenizer()",
    "version": "from importlib.metadata import version\nversion('transformers')",
    "data collator": "from transformers import DataCollatorForSeq2Seq, TrainerCallback",
    "import_module of ours": "import importlib\nimportlib.import_module('flows.pilot')",
    "getattr of ours": "getattr(config, 'model')",
    "local variable": "score_next = 3\nprint(score_next)",
    "broken code in exec": "exec('not python at all')",
}


@pytest.mark.parametrize("source", INNOCENT.values(), ids=INNOCENT.keys())
def test_ordinary_code_passes(source: str) -> None:
    """Names in texts, type-only imports and unrelated namesakes are left alone."""
    assert _rules(source) == set()


def test_a_problem_says_where_which_rule_and_what_to_do() -> None:
    """A message has file, line, rule and the next step."""
    (problem,) = boundaries.check_source("x = 1\nengine.score_next(p, t)\n", "tasks/a.py")
    assert str(problem).startswith("tasks/a.py:2: [label-scoring] score_next scores text outside")
    assert "use a critic" in str(problem)


def test_the_tree_keeps_its_own_boundaries() -> None:
    """The whole checkout passes, through the command that `make lint` runs."""
    run = subprocess.run(
        [sys.executable, "tools/boundaries.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_command_fails_on_a_file_that_crosses(tmp_path: Path) -> None:
    """The command exits 1 for a file that crosses, wherever it is called from."""
    probe = tmp_path / "probe.py"
    probe.write_text("from transformers import AutoTokenizer\n", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "boundaries.py"), str(probe)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"{probe.as_posix()}:1: [model-construction]" in run.stdout
