"""Logging in by a pasted admin token or by a link, and logging out."""

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from control_plane.console import cookies
from control_plane.console.api import Answer, call
from control_plane.console.render import HEADERS, html
from control_plane.console.sessions import Sessions
from control_plane.console.visit import Visit, form_of
from control_plane.errors import UnavailableError

HOME = "/console/"
_WORDS = {
    401: "This token is not known, has expired or was revoked.",
    403: "This token is not an admin's. Gateways and regions cannot log in here.",
    503: "Postgres is away, so the token cannot be looked up. Nodes go on deciding. Try again in a moment.",
}


async def show(request: Request) -> Response:
    """The form."""
    return _form(after=request.query_params.get("next", ""))


async def by_token(request: Request) -> Response:
    """Check the token as the API would, through the same throttle, and open a session."""
    if not cookies.is_same_origin(request):
        return _form(403, error="The form was sent from another site.")
    form = await form_of(request)
    token = form.get("token", "")
    if not token.isascii() or not token.isprintable() or not token:
        return _form(422, error="Paste the token: tga_ and what follows.", after=form.get("next", ""))
    authorization = {"authorization": f"Bearer {token}"}
    asked = await call(request.state.console.rest, request, "POST", "/v1/console/links", authorization)
    if not asked.ok:
        return _refused(asked, form.get("next", ""))
    return await _let_in(request, asked.body["path"].rpartition("/")[2], form.get("next", ""))


async def by_link(request: Request) -> Response:
    """Open a session by a link, which works once: not for whoever only looks whether there is something."""
    if request.method == "HEAD":
        return Response(status_code=204, headers=HEADERS)
    return await _let_in(request, request.path_params["code"], "")


async def out(visit: Visit) -> Response:
    """End the session."""
    await visit.request.state.console.sessions.end(visit.visitor.secret)
    response = RedirectResponse("/console/login", 303, HEADERS)
    cookies.take(visit.request, response)
    return response


async def _let_in(request: Request, code: str, after: str) -> Response:
    sessions: Sessions = request.state.console.sessions
    try:
        secret = await sessions.redeem(code)
    except UnavailableError:
        return _form(503, error=_WORDS[503], after=after)
    if secret is None:
        return _form(401, error="This link was used already, or is older than 15 minutes.", after=after)
    # not a redirect: who comes from another program or site would be sent there without the strict cookie
    response = html("entered.html", target=_inside(after))
    cookies.give(request, response, secret)
    return response


def _refused(asked: Answer, after: str) -> Response:
    retry_s = asked.headers.get("retry-after", "60")
    words = _WORDS.get(asked.status, asked.detail or "The token was refused.")
    if asked.status == 429:
        words = f"Too many wrong tokens came from here. Wait {retry_s} s."
    response = _form(asked.status, error=words, after=after)
    if asked.status == 429:
        response.headers["Retry-After"] = retry_s
    return response


def _form(status: int = 200, *, error: str = "", after: str = "") -> Response:
    return html("login.html", status, error=error, after=_inside(after))


def _inside(target: str) -> str:
    """Where to go after the login: a page of the console, never another site."""
    parts = urlsplit(target)
    sound = target.startswith(HOME) and not parts.scheme and not parts.netloc and "\\" not in target
    return target if sound else HOME
