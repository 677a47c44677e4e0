"""Explains one denial in a sentence, and what can be done about it. Pure."""

from shlex import quote

from tidegate.contract.denials import Denial


def reason(denial: Denial) -> str:
    """The reason, for a reader who does not know Tidegate."""
    limit = f"the limit {denial.policy}" if denial.policy else "a limit"
    at = f" at {denial.endpoint}" if denial.endpoint else ""
    asked = f"{denial.cost:,} asked" if denial.cost != 1 else "1 asked"
    used = f": {denial.used:,} of {denial.limit:,} were used, {asked}" if denial.used is not None else f": {asked}"
    whole = f" of {denial.limit:,}" if denial.limit is not None else ""
    wait = "" if denial.retry_after_s is None else f". It would have passed {denial.retry_after_s:,.0f} s later"
    sentences = {
        "used_up": f"{limit}{whole}{at} was used up{used}{wait}",
        "too_few_left": f"{limit}{whole}{at} had less left than was asked for{used}{wait}",
        "cost_above_limit": f"the request{at} asked for {denial.cost:,}, more than {limit}{whole} can ever hold",
        "cannot_decide": f"nobody knew what was left of {limit}{at}: the store was away, or its shares unproven",
        "reduced_capacity": f"the backend{at} had too much to do, and {limit} was lowered by its load{wait}",
        "missing_api_key": "no API key was sent, and this installation wants one",
        "unknown_api_key": "the API key that was sent is unknown, expired or revoked",
        "client_suspended": "the client is suspended",
        "blocked": f"a block ({denial.reason_class or 'other'}) holds the client, its key, its address or the endpoint",
    }
    sentence = sentences[denial.cause]
    degraded = ", decided without the region's store" if denial.degraded and denial.cause != "cannot_decide" else ""
    return sentence[0].upper() + sentence[1:] + degraded + "."


def remedy(denial: Denial) -> str:
    """What can be done, by which command: one to be pasted, whatever a caller or a region sent as a name."""
    client, limit = denial.client and quote(denial.client), quote(denial.policy or "LIMIT")
    more = (
        f"raise it for this client (tidegate overrides set {client} {limit} --limit N)"
        if client
        else f"raise it for everybody without a key (tidegate limits set {limit} --plan anonymous --limit N)"
    )
    remedies = {
        "used_up": f"Wait, {more}, or give back what was counted (tidegate clients reset {client})."
        if client
        else f"Wait, {more}, or let the caller send its API key.",
        "too_few_left": f"Ask for less at once, wait, or {more}.",
        "cost_above_limit": f"Ask for less at once, or {more}: waiting does not help.",
        "cannot_decide": "See docs/runbooks/store-errors.md; the limit's on_store_failure says what happens meanwhile.",
        "reduced_capacity": "Look at the backend (tidegate backends list); its factor can be set by hand for a while"
        " (tidegate backends set-factor BACKEND --factor 1 --expires-at 15m).",
        "missing_api_key": "The caller has to send its key; or set TIDEGATE_MISSING_KEY=anonymous.",
        "unknown_api_key": f"Compare the key's beginning (tidegate keys find --prefix {quote(denial.key or 'tg_')});"
        " issue a new one (tidegate keys create CLIENT) if it has ended.",
        "client_suspended": f"Make it active (tidegate clients set {client or 'CLIENT'} --status active), if that is"
        " meant.",
        "blocked": f"Find the block (tidegate blocks list{f' --client {client}' if client else ''}), and lift it"
        " (tidegate blocks delete BLOCK) if it is not meant.",
    }
    return remedies[denial.cause]
