"""Request bodies in, answers out, where FastAPI serves."""

from fastapi import Request, Response

from data_plane.http.answers import Answer, problem


async def read_body(request: Request, most: int) -> bytes | Response:
    """The body, read no further than ``most`` bytes; beyond that the 413 to send."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            response = to_response(problem(413, f"the body is over {most} bytes"))
            response.headers["connection"] = "close"
            return response
        chunks.append(chunk)
    return b"".join(chunks)


def to_response(answer: Answer) -> Response:
    """An answer as Starlette sends it."""
    response = Response(answer.body, answer.status)
    for line in answer.headers.split(b"\r\n"):
        name, separator, value = line.partition(b": ")
        if separator:
            response.raw_headers.append((name, value))
    return response
