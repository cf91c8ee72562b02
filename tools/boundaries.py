"""Four boundaries that import-linter cannot see, checked on the syntax tree.

    model-construction  only core/models makes a tokenizer or a model
    label-scoring       only core/critics (and the model's own probes) scores a label
    engine-import       core/engines takes cache classes from transformers, nothing else of it
    chat-template       a chat template is never applied; core/models/guard.py may look at one

`python tools/boundaries.py [FILE_OR_FOLDER ...]` prints `file:line: [rule] what to do` and exits 1
when it found something. Names are followed through aliases, attributes, `getattr` and
`import_module` with constant strings, and constant `eval` / `exec`; names put together at run time
are out of reach.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "core",
    "reviews",
    "tasks",
    "flows",
    "dashboard",
    "cli",
    "deployments",
    "benchmarks",
    "tools",
    "tests",
)
LIBRARIES = frozenset({"transformers", "tokenizers", "peft", "vllm", "llama_cpp"})
MAKERS = re.compile(
    r"Auto[A-Z]\w*|(?!DataCollator)\w+For[A-Z]\w*|\w*Tokenizer(Fast|Base|Mixin)?|TokenizersBackend|PreTrained\w*"
    r"|\w*Model|pipeline|\w*Pipeline|get_peft_model|Llama|(Async)?LLM(Engine)?|get_tokenizer"
)
LOADING_METHODS = frozenset({"from_pretrained", "from_config", "from_file"})
SCORING = frozenset({"score_next", "score_continuations"})
TEMPLATE = "apply_chat_template"
BY_NAME = frozenset({"getattr", "attrgetter", "methodcaller"})
IMPORTERS = frozenset({"import_module", "__import__"})
EVALUATORS = frozenset({"eval", "exec", "compile"})

ADVICE = {
    "model-construction": "{what} makes a tokenizer or model outside core/models, past the "
    "contamination guard; call the loader in core.models, or put the code there",
    "label-scoring": "{what} scores text outside core/critics; use a critic, or put the code there",
    "engine-import": "{what} is not one of transformers' cache classes; an engine is handed its "
    "model, so take what is needed from that, or import it under TYPE_CHECKING",
    "chat-template": "{what} applies a chat template; base models are driven by literal prompts, "
    "so render one with core.prompts",
}
ALLOWED = {
    "model-construction": ("core/models/", "tests/"),
    "label-scoring": (
        "core/critics/",
        "core/engines/",
        "core/models/sentinels.py",
        "core/models/health.py",
        "tests/",
        "benchmarks/",
    ),
    "engine-import": (),
    "chat-template": ("core/models/guard.py", "tests/unit/test_guard", "tests/model/test_guard"),
}
ONLY_IN = {"engine-import": "core/engines/"}


@dataclass(frozen=True, order=True)
class Problem:
    """One crossing of a boundary."""

    path: str
    line: int
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule}] {ADVICE[self.rule].format(what=self.what)}"


def check_source(source: str, path: str) -> list[Problem]:
    """Problems of one file, by line. `path`, relative to the repository, decides the rules.

    Raises:
        SyntaxError: the source is not Python.
    """
    tree = ast.parse(source, filename=path)
    nodes = list(_runtime_nodes(tree))
    aliases = _aliases(nodes)
    found = {
        Problem(path, line, rule, what)
        for node in nodes
        for line, rule, what in _findings(node, aliases)
        if not path.startswith(ALLOWED[rule]) and path.startswith(ONLY_IN.get(rule, ""))
    }
    return sorted(found)


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if isinstance(child, ast.If) and _last_name(child.test) == "TYPE_CHECKING":
            for branch in child.orelse:
                yield branch
                yield from _runtime_nodes(branch)
        else:
            yield from _runtime_nodes(child)


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _aliases(nodes: list[ast.AST]) -> dict[str, str]:
    """Local name to dotted origin, through imports and plain assignments, all scopes together."""
    aliases: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for name in node.names:
                origin = name.name if name.asname else name.name.split(".")[0]
                aliases[name.asname or origin] = origin
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for name in node.names:
                aliases[name.asname or name.name] = f"{node.module}.{name.name}"
    # In source order an alias of an alias is made after it; twice covers loops and functions.
    for node in nodes * 2:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            origin = _origin(node.value, aliases)
            for target in targets:
                if origin and isinstance(target, ast.Name):
                    aliases[target.id] = origin
    return aliases


def _origin(node: ast.AST, aliases: dict[str, str]) -> str:
    """Dotted origin of an expression that leads to a watched library, else empty."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, "")
    if isinstance(node, ast.Attribute):
        before = _origin(node.value, aliases)
        return f"{before}.{node.attr}" if before else ""
    if isinstance(node, ast.Call):
        return _dynamic_origin(node, aliases)
    return ""


def _dynamic_origin(call: ast.Call, aliases: dict[str, str]) -> str:
    """Origin of `import_module("x")` and `getattr(x, "y")`, else empty."""
    name, texts = _called(call, aliases), _constant_texts(call)
    if name in IMPORTERS and texts:
        return texts[0]
    if name == "getattr" and call.args and texts:
        before = _origin(call.args[0], aliases)
        return f"{before}.{texts[0]}" if before else ""
    return ""


def _called(call: ast.Call, aliases: dict[str, str]) -> str:
    """Last part of the real name of what is called."""
    return (_origin(call.func, aliases) or _last_name(call.func)).rpartition(".")[2]


def _constant_texts(call: ast.Call) -> list[str]:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]


def _findings(node: ast.AST, aliases: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    """(line, rule, what) of one node."""
    if isinstance(node, ast.Import):
        for name in node.names:
            yield from _judge_engine_import(node.lineno, name.name)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        for name in node.names:
            yield from _judge(node.lineno, f"{node.module}.{name.name}")
            yield from _judge_engine_import(node.lineno, f"{node.module}.{name.name}")
    elif isinstance(node, ast.Attribute):
        yield from _judge(node.lineno, _origin(node, aliases) or f"?.{node.attr}")
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.name in SCORING:
            yield node.lineno, "label-scoring", f"a definition of {node.name}"
    elif isinstance(node, ast.Call):
        yield from _judge_call(node, aliases)


def _judge_call(call: ast.Call, aliases: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    name, texts = _called(call, aliases), _constant_texts(call)
    if name in IMPORTERS:
        for text in texts:
            if text.split(".")[0] in LIBRARIES:
                yield call.lineno, "model-construction", f'{name}("{text}")'
    elif name in BY_NAME:
        base = _origin(call.args[0], aliases) if call.args else ""
        for text in texts:
            yield from _judge(call.lineno, f"{base or '?'}.{text}")
    elif name in EVALUATORS:
        for text in texts:
            yield from _judge_code(call.lineno, text)


def _judge_code(line: int, code: str) -> Iterator[tuple[int, str, str]]:
    """Findings inside a constant string that is run as code; broken code cannot run."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except SyntaxError:
        return
    aliases = _aliases(nodes)
    for node in nodes:
        yield from ((line, rule, what) for _, rule, what in _findings(node, aliases))


def _judge(line: int, dotted: str) -> Iterator[tuple[int, str, str]]:
    """Findings for one dotted name; it starts with `?` where the origin is unknown."""
    library, _, rest = dotted.partition(".")
    last = dotted.rpartition(".")[2]
    if last in SCORING:
        yield line, "label-scoring", last
    elif last == TEMPLATE:
        yield line, "chat-template", last
    elif last == "from_pretrained" or dotted == "torch.load":
        yield line, "model-construction", dotted.removeprefix("?.")
    elif library in LIBRARIES and rest and _makes(rest):
        yield line, "model-construction", dotted


def _judge_engine_import(line: int, dotted: str) -> Iterator[tuple[int, str, str]]:
    library, _, rest = dotted.partition(".")
    cache = rest.startswith("cache_utils") or rest.endswith("Cache")
    if library == "transformers" and not cache:
        yield line, "engine-import", dotted


def _makes(rest: str) -> bool:
    """Whether a name inside a watched library makes a model, or a star brings in all that do."""
    parts = rest.split(".")
    return parts[-1] in LOADING_METHODS | {"*"} or any(MAKERS.fullmatch(part) for part in parts)


def _files(arguments: Iterable[str]) -> Iterator[Path]:
    for argument in arguments:
        path = (ROOT / argument).resolve()
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _shown(file: Path) -> str:
    return (file.relative_to(ROOT) if file.is_relative_to(ROOT) else file).as_posix()


def main(arguments: list[str]) -> int:
    """Checks the given files and folders, or all of the project's. 0 when clean, 1 when not."""
    chosen = arguments or [folder for folder in FOLDERS if (ROOT / folder).is_dir()]
    problems = [
        problem
        for file in _files(chosen)
        for problem in check_source(file.read_text(encoding="utf-8"), _shown(file))
    ]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
