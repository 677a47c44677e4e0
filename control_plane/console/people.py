"""Signing in by an OpenID Connect provider."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from control_plane.console import cookies, login
from control_plane.console.render import HEADERS
from control_plane.errors import ControlPlaneError, ForbiddenError, UnauthenticatedError, UnavailableError
from control_plane.oidc.sign_in import OpenIdConnect

MAX_LENGTH = 4096
_STATUS: dict[type[ControlPlaneError], int] = {UnauthenticatedError: 401, ForbiddenError: 403, UnavailableError: 503}


async def begin(request: Request) -> Response:
    """Send the browser to the provider."""
    oidc = _provider_of(request)
    if oidc is None:
        return login.form(request, 404, error="Nobody signs in here but by a token.")
    after = login.inside(request.query_params.get("next", ""))
    if request.method == "HEAD":
        return Response(status_code=204, headers=HEADERS)
    try:
        begun = await oidc.begin(after if len(after) < MAX_LENGTH // 2 else login.HOME)
    except UnavailableError as error:
        return login.form(request, 503, error=str(error), after=after)
    response = RedirectResponse(begun.url, 303, {**HEADERS, "Cache-Control": "no-store"})
    cookies.give_sign_in(request, response, begun.cookie)
    return response


async def finish(request: Request) -> Response:
    """Open a session for whom the provider sends back; whatever comes of it, the sign-in is over."""
    oidc = _provider_of(request)
    if oidc is None:
        return login.form(request, 404, error="Nobody signs in here but by a token.")
    if request.method == "HEAD":
        return Response(status_code=204, headers=HEADERS)
    try:
        response = await _let_in(request, oidc)
    except (UnauthenticatedError, ForbiddenError, UnavailableError) as error:
        response = login.form(request, _STATUS[type(error)], error=str(error))
    cookies.take_sign_in(request, response)
    return response


async def _let_in(request: Request, oidc: OpenIdConnect) -> Response:
    query = request.query_params
    cookie = cookies.sign_in_of(request)
    given = [query.get(name, "") for name in ("state", "code", "error")]
    if cookie is None or not given[0] or max(map(len, [cookie, *given])) > MAX_LENGTH:
        raise UnauthenticatedError("This sign-in did not begin in this browser, or is over. Begin again.")
    state, code, refused = given
    if refused or not code:
        raise UnauthenticatedError("The identity provider let nobody in. Begin again.")
    person, after = await oidc.finish(cookie, state, code, query.get("iss"))
    secret = await request.state.console.sessions.open_for(person, oidc.session_s)
    return login.entered(request, secret, after)


def _provider_of(request: Request) -> OpenIdConnect | None:
    oidc: OpenIdConnect | None = request.state.oidc
    return oidc if oidc is not None and oidc.for_people else None
