"""A chat completions server on this machine that a test scripts: real HTTP, real sockets, no model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server does with a request.

    `delay_s` passes before the first byte, `drip_s` before each further byte of the body; with `drip_headers`
    the status line drips too. `close_early` ends the connection in the middle of the body.
    """

    body: bytes | str | Mapping[str, Any] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0
    drip_headers: bool = False
    close_early: bool = False

    @property
    def raw(self) -> bytes:
        """The body as bytes."""
        if isinstance(self.body, Mapping):
            return json.dumps(self.body).encode()
        return self.body.encode() if isinstance(self.body, str) else self.body


@dataclass(frozen=True)
class Request:
    """One request as it came; names of headers in lower case."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


Script = Callable[[dict[str, Any]], Reply]


class ReviewerServer:
    """Answers every request with `script(request body)`; remembers the requests. Use it in a `with`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False

    @property
    def url(self) -> str:
        """What goes into `base_url`."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ReviewerServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = json.loads(sent)
                owner.requests.append(
                    Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                )
                try:
                    self._answer(owner.script(body))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _answer(self, reply: Reply) -> None:
                owner.stopping.wait(reply.delay_s)
                head = {"Content-Type": "application/json", "Content-Length": str(len(reply.raw))}
                lines = [
                    f"HTTP/1.1 {reply.status} X",
                    *(f"{k}: {v}" for k, v in (head | dict(reply.headers)).items()),
                ]
                self._send("\r\n".join([*lines, "", ""]).encode(), reply.drip_s if reply.drip_headers else 0)
                body = reply.raw[: len(reply.raw) // 2] if reply.close_early else reply.raw
                self._send(body, reply.drip_s)
                self.close_connection = True

            def _send(self, data: bytes, drip_s: float) -> None:
                pieces = [data[i : i + 1] for i in range(len(data))] if drip_s else [data]
                for piece in pieces:
                    if owner.stopping.is_set():
                        return
                    self.wfile.write(piece)
                    self.wfile.flush()
                    time.sleep(drip_s)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler


def verdict_values(decision: str = "go", **changes: Any) -> dict[str, Any]:
    """A verdict as a model has to give it; `changes` are proposals."""
    from core.tuning import TUNABLES

    return {
        "decision": decision,
        "reasoning": "The bounds are within their limits.",
        "concerns": [],
        "changes": dict.fromkeys(TUNABLES) | changes,
        "confidence": 0.8,
        "priority": "low",
    }


def completion(
    content: object = None,
    *,
    finish_reason: str = "stop",
    refusal: str | None = None,
    usage: object = "default",
) -> dict[str, Any]:
    """A chat completion around a content; a mapping becomes JSON text."""
    if isinstance(content, Mapping):
        content = json.dumps(content)
    message = {"role": "assistant", "content": content, "refusal": refusal}
    tokens = {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1200,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 150},
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "judge-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": tokens if usage == "default" else usage,
    }


def a_question(**changes: Any) -> Any:
    """A pilot gate's question with everything in it; `changes` replace fields."""
    from core.config import RunConfig
    from core.iterations import IterationRecord, MetricPoint
    from core.tuning import tuning_of
    from reviews.question import Check, GateQuestion, JudgedArtifact, Outlook

    metric = {
        "name": "runaway",
        "verdict": "insufficient",
        "why": "3 of 120 is too few to tell",
        "unit": "ratio",
        "basis": "bound",
        "scope": "response candidates",
        "numerator": 3,
        "denominator": 120,
        "value": 0.025,
        "interval": [0.008, 0.071],
        "bound": 0.0634,
        "limit": 0.05,
        "limit_text": "< 5 %",
        "needed_n": 300,
        "kept_numerator": None,
        "kept_denominator": None,
    }
    parameters = tuning_of(RunConfig())
    before = IterationRecord(
        1,
        42,
        parameters | {"response_temperature": 0.3},
        {"runaway": MetricPoint(0.2, 0.27, 0.05, "fail")},
        "fail",
    )
    now = IterationRecord(
        2,
        43,
        parameters,
        {"runaway": MetricPoint(0.025, 0.0634, 0.05, "insufficient")},
        "insufficient",
        changes={"response_temperature": 0.4},
        advised={"response_temperature": 0.4},
        kept=80,
        cost_usd_micros=2_000_000,
    )
    sample = {
        "row_id": "r1",
        "instruction": "Name three colours.",
        "response": "Red, blue, green.",
        "kept": True,
    }
    values = {
        "gate": "pilot",
        "number": 2,
        "run_name": "demo",
        "project": "default",
        "model_source": "bundled",
        "artifact": JudgedArtifact("dataset", "runs/demo/dataset", "ab" * 32, "cd" * 32),
        "config_hash": "ef" * 32,
        "checks": (
            Check("artifact intact", True, "every hash fits"),
            Check("quality", False, "runaway 2.5 %"),
        ),
        "metrics": {"runaway": metric},
        "samples": (sample,),
        "flagged": {"runaway": ({**sample, "response": "Q: and on and on", "why": "starts a new turn"},)},
        "parameters": parameters,
        "history": (before, now),
        "outlook": Outlook(
            300_000_000, 12_000_000, "scale", 20_000_000, 30_000_000, "rate of the pilot", 2_000_000
        ),
        "iterations_left": 1,
        "limits_changed": {"max_runaway_ratio": (0.05, 0.07)},
    }
    return GateQuestion(**(values | changes))
