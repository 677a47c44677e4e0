"""The control plane as the commands use it: the configuration as one file, and any other call of the admin API."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import httpx

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 300.0
CHUNK_BYTES = 256 * 1024
NDJSON = "application/x-ndjson"


class RefusedError(Exception):
    """The control plane refused, with ``status``, or did not answer. ``errors`` are (field, message) that it named."""

    def __init__(self, message: str, errors: list[tuple[str, str]] | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []
        self.status = status


class Answer(NamedTuple):
    """What the control plane answered: status, JSON object (empty where there is no body), headers."""

    status: int
    content: dict[str, Any]
    headers: Mapping[str, str]


class ControlPlane:
    """Calls the admin API with a token: reads and writes ``/v1/config``, and calls any other path."""

    def __init__(self, url: str, token: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def read(self) -> tuple[dict[str, Any], str]:
        """The configuration, and its tag."""
        answer = self.call("GET", "/v1/config")
        if "version" not in answer.content:
            raise self._stranger()
        return answer.content, answer.headers.get("etag", "")

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and return the answer; a refusal, or an answer of another kind, is a ``RefusedError``."""
        encoded = httpx.Headers(dict(headers or {}), encoding="utf-8")
        try:
            answer = self._client.request(method, path, params=params, json=body, headers=encoded)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise _refused(answer.status_code, _json(answer.content))
        if not answer.is_success:
            raise self._stranger()
        if not answer.content:
            return Answer(answer.status_code, {}, answer.headers)
        if not answer.headers.get("content-type", "").startswith("application/json"):
            raise self._stranger()
        return Answer(answer.status_code, _json(answer.content), answer.headers)

    def page(
        self, path: str, params: Mapping[str, str], member: str = "items"
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The rows of a list, and what stands beside them."""
        content = self.call("GET", path, params=params).content
        rows = content.pop(member, None)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._stranger()
        return rows, content

    def write(
        self,
        body: bytes,
        *,
        dry_run: bool,
        params: dict[str, str],
        headers: dict[str, str],
        sent: Callable[[int], None],
        written: Callable[[int, int], None],
    ) -> dict[str, Any]:
        """Make the configuration what ``body`` says, or with ``dry_run`` (for which a viewer may ask) say what would.

        ``sent`` hears how many bytes are on their way; ``written`` how many clients of how many are done.
        """
        shared = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Accept": NDJSON}
        method, path = ("POST", "/v1/config/diff") if dry_run else ("PUT", "/v1/config")
        try:
            with self._client.stream(
                method,
                path,
                content=_parts(body, sent),
                params=params,
                headers=httpx.Headers(shared | headers, encoding="utf-8"),
            ) as answer:
                if answer.is_error or not answer.headers.get("content-type", "").startswith(NDJSON):
                    content = _json(answer.read())
                    if answer.is_error:
                        raise _refused(answer.status_code, content)
                    if "changes" not in content:
                        raise self._stranger()
                    return content
                return _outcome(answer.iter_lines(), written)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _stranger(self) -> RefusedError:
        return RefusedError(f"{self._url} does not answer as a control plane does")

    def _unreachable(self, error: httpx.HTTPError) -> RefusedError:
        return RefusedError(f"no answer from {self._url}: {error or type(error).__name__}")


def _parts(body: bytes, sent: Callable[[int], None]) -> Iterator[bytes]:
    for start in range(0, len(body), CHUNK_BYTES):
        yield body[start : start + CHUNK_BYTES]
        sent(min(start + CHUNK_BYTES, len(body)))


def _outcome(lines: Iterator[str], written: Callable[[int, int], None]) -> dict[str, Any]:
    for line in lines:
        message = json.loads(line)
        if "status" not in message:
            written(message["done"], message["of"])
            continue
        if message["status"] >= 400:
            raise _refused(message["status"], message["body"])
        return dict(message["body"])
    raise RefusedError("the control plane hung up before it answered: the write may or may not be done, look again")


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {"detail": content[:500].decode(errors="replace")}
    return found if isinstance(found, dict) else {"detail": str(found)[:500]}


def _refused(status: int, problem: dict[str, Any]) -> RefusedError:
    named = problem.get("errors")
    errors = [
        (str(item.get("field", "")), str(item.get("message", "")))
        for item in (named if isinstance(named, list) else [])
        if isinstance(item, dict)
    ]
    return RefusedError(f"refused ({status}): {problem.get('detail') or problem.get('title') or ''}", errors, status)
