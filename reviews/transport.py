"""One chat completion over HTTP, within a deadline and a number of bytes that hold whatever the server does.

Time-outs of an HTTP client are per read: a server that sends a byte now and then keeps it for ever. Here the
exchange runs in a thread of its own, and when the time is up its connections are shut under it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

from core.errors import TransientError
from reviews.disclosure import public_url, storable, without_key

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "no-key"
"""Sent where a server needs none: the client library insists on something."""


@dataclass(frozen=True)
class RawAnswer:
    """Status and body of an answer. `whole` is False where the body was longer and was cut."""

    status: int
    body: bytes
    whole: bool
    latency_s: float


def post_completion(
    body: dict[str, Any], *, base_url: str | None, api_key: str | None, timeout_s: float, max_bytes: int
) -> RawAnswer:
    """The server's answer to a request body, whatever its status; never later than `timeout_s`.

    Args:
        base_url: OpenAI's own server where None. Settings of the `openai` package in the environment
            do not redirect it.

    Raises:
        TransientError: the server cannot be reached, broke off, or gave no whole answer in time.
    """
    line = _Line(max_bytes)
    # Here and not in the thread: the library imports itself piece by piece, for seconds that are not the
    # server's.
    client = _client(base_url, api_key, timeout_s, line)
    create = client.chat.completions.with_streaming_response.create
    address = public_url(base_url or OPENAI_URL)
    done: list[RawAnswer | Exception] = []

    def work() -> None:
        try:
            done.append(_exchange(client, create, body, line))
        except Exception as error:
            done.append(_in_words(error, address, api_key))
        finally:
            line.release()

    worker = threading.Thread(target=work, name="reviewer-request", daemon=True)
    worker.start()
    try:
        worker.join(timeout_s)
        outcome = done[0] if done else None
    finally:
        line.cut()
    if outcome is None:
        raise TransientError(
            f"the reviewer at {address} gave no whole answer within {timeout_s:g} s; "
            "try again, or raise reviewer.timeout_s",
            timeout_s=timeout_s,
        )
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _exchange(client: Any, create: Any, body: dict[str, Any], line: _Line) -> RawAnswer:
    from openai import APIStatusError

    started = time.monotonic()
    with client:
        try:
            with create(**body) as response:
                status, data = response.status_code, line.collect(response.iter_bytes())
        except APIStatusError as error:
            status, data = error.status_code, line.collect([error.response.content])
    return RawAnswer(status, data, line.whole, time.monotonic() - started)


def _in_words(error: Exception, address: str, api_key: str | None) -> Exception:
    """A lost connection as a passing fault, anything else as it is."""
    from openai import APIConnectionError

    if not isinstance(error, APIConnectionError | httpx2.HTTPError):
        return error
    # The library's own error holds the request, and so the key: only its words go on.
    reason = storable(without_key(f"{error.__cause__ or error}".encode("utf-8", "replace"), api_key))
    return TransientError(
        f"the connection to the reviewer at {address} failed ({reason}); check that the server runs and can "
        "be reached from here"
    )


def _client(base_url: str | None, api_key: str | None, timeout_s: float, line: _Line) -> Any:
    from openai import DefaultHttpxClient, OpenAI

    http_client = DefaultHttpxClient(
        event_hooks={"request": [line.watch], "response": [line.limit]},
        timeout=timeout_s + 1.0,  # The deadline above is the one that people read about.
        follow_redirects=False,
    )
    client = OpenAI(
        api_key=api_key or NO_KEY,
        base_url=base_url or OPENAI_URL,
        timeout=timeout_s + 1.0,
        # Prefect retries, on the record; a second try in here would double the deadline.
        max_retries=0,
        # What is limited is what arrives; compressed, it could unfold to a thousand times that.
        default_headers={"Accept-Encoding": "identity"},
        http_client=http_client,
    )
    if base_url is not None:
        # Taken from the environment by the library, and nobody else's business.
        client.organization = client.project = None
    return client


class _Line:
    """The connections of one exchange: can be cut from another thread, and stops after `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.whole = True
        self._lock = threading.Lock()
        self._handles: list[socket.socket] = []
        self._was_cut = False

    def watch(self, request: httpx2.Request) -> None:
        """Request hook: learn of every connection that this request opens."""
        request.extensions["trace"] = self._trace

    def limit(self, response: httpx2.Response) -> None:
        """Response hook: nobody, the library's own error handling included, reads more than the limit."""
        stream = response.stream
        assert isinstance(stream, httpx2.SyncByteStream)
        response.stream = _Limited(stream, self)

    def collect(self, chunks: Any) -> bytes:
        """The decoded body up to the limit."""
        body = bytearray()
        for chunk in chunks:
            body += chunk
            if len(body) > self.max_bytes:
                self.whole = False
                break
        return bytes(body[: self.max_bytes])

    def cut(self) -> None:
        """Shut all connections, and those that are still to come; a blocked read ends at once."""
        with self._lock:
            self._was_cut = True
            for handle in self._handles:
                _shut(handle)

    def release(self) -> None:
        """Let go of the connections."""
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event != "connection.connect_tcp.complete":
            return
        # A duplicate: wrapping the socket for TLS takes the original object away, and both mean one line.
        handle = info["return_value"].get_extra_info("socket").dup()
        with self._lock:
            self._handles.append(handle)
            if self._was_cut:
                _shut(handle)


def _shut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


class _Limited(httpx2.SyncByteStream):
    """A body that ends after the line's limit, and notes that it did."""

    def __init__(self, stream: httpx2.SyncByteStream, line: _Line) -> None:
        self._stream = stream
        self._line = line

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        for chunk in self._stream:
            total += len(chunk)
            if total > self._line.max_bytes:
                self._line.whole = False
                yield chunk[: len(chunk) - (total - self._line.max_bytes)]
                return
            yield chunk

    def close(self) -> None:
        self._stream.close()
