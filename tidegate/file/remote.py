"""The control plane as the file's commands use it."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Self

import httpx

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 300.0
CHUNK_BYTES = 256 * 1024
NDJSON = "application/x-ndjson"


class RefusedError(Exception):
    """The control plane refused, or did not answer. ``errors`` are (field, message) where it named them."""

    def __init__(self, message: str, errors: list[tuple[str, str]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []


class ControlPlane:
    """Reads and writes ``/v1/config``, the latter with the token of an operator."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def read(self) -> tuple[dict[str, Any], str]:
        """The configuration, and its tag."""
        try:
            answer = self._client.get("/v1/config")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise _refused(answer.status_code, _json(answer.content))
        content = _json(answer.content)
        if "version" not in content:
            raise self._stranger()
        return content, answer.headers.get("etag", "")

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
    raise RefusedError("the control plane hung up before it said what became of it: nothing is certain, look again")


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
    return RefusedError(f"refused ({status}): {problem.get('detail') or problem.get('title') or ''}", errors)
