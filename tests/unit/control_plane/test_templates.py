"""Path templates: which are refused, and which two are one route."""

import pytest

from control_plane.routes.schemas import template_fault
from tidegate.contract.config import route_shape


@pytest.mark.parametrize("template", ["/", "/api/users/{id}", "/a.b/~c/{x_1}/d:e", "/v1/{a}/{b}"])
def test_sound_templates(template: str) -> None:
    assert template_fault(template) is None


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("api", "begin with /"),
        ("/api//x", "empty segment"),
        ("/api/", "empty segment"),
        ("/a/../b", "dot segment"),
        ("/a/./b", "dot segment"),
        ("/a/{id}x", "whole segment"),
        ("/a/{1d}", "whole segment"),
        ("/a/{id}/{id}", "twice"),
        ("/a%2Fb", "percent-encoding"),
        ("/a b", "cannot"),
        ("/ä", "cannot"),
        ("/a?b", "cannot"),
        ("/" + "a" * 600, "at most"),
    ],
)
def test_faults_are_named(template: str, word: str) -> None:
    assert word in (template_fault(template) or "")


def test_parameter_names_do_not_make_another_route() -> None:
    assert route_shape("GET", "/a/{x}/b") == route_shape("GET", "/a/{y}/b")
    assert route_shape("GET", "/a/{x}") != route_shape("POST", "/a/{x}")
    assert route_shape("GET", "/a/{x}") != route_shape("GET", "/a/x")
