"""One request of somebody who is logged in, and what every page shares."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from control_plane.access.principals import strongest
from control_plane.console.api import Api
from control_plane.console.feed import Feed
from control_plane.console.render import html
from control_plane.console.sessions import May, Visitor

MAX_FIELDS = 100


class Visit(NamedTuple):
    """A visitor's request; ``form`` holds the fields of a POST whose origin and token were checked."""

    request: Request
    visitor: Visitor
    api: Api
    feed: Feed
    form: dict[str, str]

    @property
    def may(self) -> May:
        """What the visitor's role may do."""
        return May(self.visitor.principal.role)

    def may_about(self, client: str, plan: str) -> May:
        """What the visitor may do about a client, also by grants for some clients only."""
        principal = self.visitor.principal
        covering = [grant.role for grant in principal.grants if grant.covers_client(client, {plan})]
        return May(strongest((principal.role, *covering)))

    def asked(self, name: str) -> str:
        """A member of the query, or an empty text."""
        return self.request.query_params.get(name, "").strip()

    def page(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page with its frame. ``of`` names the parts of it that the event stream renews."""
        head = self.feed.head
        shared = {
            "visitor": self.visitor.principal,
            "role": self.visitor.principal.described,
            "csrf": self.visitor.csrf,
            "stale": self.visitor.stale,
            "may": self.may,
            "path": self.request.url.path,
            "head": head,
            "of": "",
        }
        return html(template, status, **(shared | context))


Handler = Callable[[Visit], Awaitable[Response]]


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form, the first of each name. The body is bounded by the middleware in front."""
    text = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return {}  # more fields than any form here has
    return {name: values[0].strip() for name, values in fields.items()}
