"""What the schema fuzzer cannot know by itself: above all which refusals of a request that fits its schema are right.

Loaded by schemathesis (``SCHEMATHESIS_HOOKS``), never imported by tests.
"""

import os
import re

import schemathesis

# A request may fit its schema and yet name a plan that does not exist, contradict its own path, or find its name taken.
# JSON Schema cannot say that; what it can say (type, pattern, length, range, presence) must never be the reason.
MEANT = frozenset({404, 409, 412, 422, 503})
BOUND = "/v1/load"
"""Reports of load name backends; a reporter may speak for its own only."""
OF_THE_SCHEMA = re.compile(
    r"^(Input should|Field required|String should|Value should|List should|Dictionary should|unknown field|is not JSON"
    r"|Extra inputs|Unable to|is out of range|must match)"
)


@schemathesis.check
def valid_data_is_refused_for_its_meaning(ctx, response, case):  # type: ignore[no-untyped-def]
    """In the place of ``positive_data_acceptance``, which knows no meaning."""
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code < 400:
        return
    meant = MEANT | {401} | ({403} if case.operation.path == BOUND else set())
    assert response.status_code in meant, f"valid data was answered {response.status_code}"
    if response.status_code != 422:
        return
    errors = response.json().get("errors", [])
    assert errors, "a 422 names every wrong field"
    for error in errors:
        assert error["field"], f"an error without a field: {error}"
        assert not OF_THE_SCHEMA.match(error["message"]), f"the schema should say: {error}"


LONGEST_WAIT_S = 0.1
"""For what an answer is held back until something happens (``?wait=``): a whole run would wait for it."""
MOST_THAT_IS_VALID_S = 30
QUESTIONS = "/internal/v1/questions"
STREAM = "/internal/v1/stream"
OWN_TOKEN = os.environ.get("FUZZER_KEEPS_TOKEN", "")


@schemathesis.serializer("application/x-ndjson")
def as_it_is(ctx, value):  # type: ignore[no-untyped-def]
    """Lines are text; what is none is sent as text all the same."""
    return str(value).encode()


@schemathesis.hook
def filter_case(context, case):  # type: ignore[no-untyped-def]
    """Leave out what cannot be judged."""
    negative = case.meta is None or case.meta.generation.mode.is_negative
    if case.operation.path == STREAM:
        return negative  # what is right is answered for as long as the node stays, without an end
    if case.media_type == "application/x-ndjson" and negative:
        return isinstance(case.body, str)  # any text is a body: lines that are wrong are told apart in the answer
    return True


@schemathesis.hook
def filter_failure(context, failure, case, response):  # type: ignore[no-untyped-def]
    """A client may be called `import`: this URL is that client's too, and GET, PUT and DELETE are allowed there."""
    return not (case.operation.path == "/v1/clients/import" and type(failure).__name__ == "AllowHeaderMismatch")


@schemathesis.hook
def before_call(context, case, kwargs):  # type: ignore[no-untyped-def]
    """Wait less; and keep the token: a run that revokes or rotates it is answered 401 from then on."""
    if case.operation.path == QUESTIONS and LONGEST_WAIT_S < _number(case.query.get("wait")) <= MOST_THAT_IS_VALID_S:
        case.query["wait"] = LONGEST_WAIT_S
    if OWN_TOKEN and case.method != "GET" and case.path_parameters.get("token_id") == OWN_TOKEN:
        case.path_parameters["token_id"] = "tok_" + "0" * 16


def _number(value):  # type: ignore[no-untyped-def]
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
