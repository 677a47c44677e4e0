"""Logging in by a pasted admin token or by a link, and logging out."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from control_plane.console import cookies
from control_plane.console.api import Answer, call
from control_plane.console.render import HEADERS, html
from control_plane.console.sessions import Sessions
from control_plane.console.visit import Visit, form_of
from control_plane.errors import UnavailableError
from control_plane.oidc.sign_in import OpenIdConnect

HOME = "/console/"
_WORDS = {
    401: "This token is not known, has expired or was revoked.",
    403: "This token is not an admin's. Gateways and regions cannot log in here.",
    503: "Postgres is away, so the token cannot be looked up. Nodes go on deciding. Try again in a moment.",
}


async def show(request: Request) -> Response:
    """The form."""
    return form(request, after=request.query_params.get("next", ""))


async def by_token(request: Request) -> Response:
    """Check the token as the API would, through the same throttle, and open a session."""
    if not cookies.is_same_origin(request):
        return form(request, 403, error="The form was sent from another site.")
    fields = await form_of(request)
    token, after = fields.get("token", ""), fields.get("next", "")
    if not token.isascii() or not token.isprintable() or not token:
        return form(request, 422, error="Paste the token: tga_ and what follows.", after=after)
    authorization = {"authorization": f"Bearer {token}"}
    asked = await call(request.state.console.rest, request, "POST", "/v1/console/links", authorization)
    if not asked.ok:
        return _refused(request, asked, after)
    return await _let_in(request, asked.body["path"].rpartition("/")[2], after)


async def by_link(request: Request) -> Response:
    """Open a session by a link, which works once. A ``HEAD``, such as a preview sends, does not use it up."""
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
        return form(request, 503, error=_WORDS[503], after=after)
    if secret is None:
        return form(request, 401, error="This link was used already, or is older than 15 minutes.", after=after)
    return entered(request, secret, after)


def entered(request: Request, secret: str, after: str) -> Response:
    """Give the browser its session, and lead it on."""
    # not a redirect: who comes from another program or site would be sent there without the strict cookie
    response = html("entered.html", target=inside(after))
    cookies.give(request, response, secret)
    return response


def _refused(request: Request, asked: Answer, after: str) -> Response:
    retry_s = asked.headers.get("retry-after", "60")
    words = _WORDS.get(asked.status, asked.detail or "The token was refused.")
    if asked.status == 429:
        words = f"Too many wrong tokens came from here. Wait {retry_s} s."
    response = form(request, asked.status, error=words, after=after)
    if asked.status == 429:
        response.headers["Retry-After"] = retry_s
    return response


def form(request: Request, status: int = 200, *, error: str = "", after: str = "") -> Response:
    """The page to log in at, by the identity provider where there is one, and by a token."""
    oidc: OpenIdConnect | None = request.state.oidc
    provider = oidc.name if oidc is not None and oidc.for_people else None
    return html("login.html", status, error=error, after=inside(after), provider=provider)


def inside(target: str) -> str:
    """Where to go after the login: a page of the console, never another site."""
    return target if target.startswith(HOME) and "\\" not in target else HOME
