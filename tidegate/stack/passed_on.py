"""Which settings `tidegate up` passes on to the processes it starts: of its environment, and of ``--set``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.stack.progress import StackError

PREFIX = "TIDEGATE_"
OWN = frozenset(
    PREFIX + name
    for name in (
        "ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "CONTROL_PLANE_PUBLIC_KEY", "CONTROL_PLANE_URL", "DATABASE_URL", "HOST",
        "NODE", "PORT", "REDIS_URL", "REGION", "REGION_CREDENTIAL", "RLS_PORT", "SIGNING_KEY_FILE", "SNAPSHOT_FILE",
    )
)  # fmt: skip
"""What the stack decides itself."""
OF_COMMANDS = frozenset(
    PREFIX + name for name in ("API_KEY", "CONTROL_PLANE_URL", "GATEWAY_TOKEN", "NODE_URL", "URL", "FUZZ_S")
)
"""What other commands and the tests read: none of the stack's business."""
NOT_OF_AGENTS = frozenset({PREFIX + "DRAIN_S", PREFIX + "HEALTH_PORT"})
"""What agents know too, and nodes alone get: nobody balances load over agents, and a port is one process's."""


@dataclass(frozen=True)
class PassedOn:
    """Settings by their variable, for the control plane, every node and every agent.

    ``ignored``: what is no setting, and why.
    """

    control_plane: Mapping[str, str] = field(default_factory=dict)
    node: Mapping[str, str] = field(default_factory=dict)
    agent: Mapping[str, str] = field(default_factory=dict)
    ignored: Sequence[str] = ()


def settings_to_pass_on(environment: Mapping[str, str], given: Iterable[str]) -> PassedOn:
    """Sort ``TIDEGATE_*`` of ``environment`` and each ``NAME=VALUE`` that was ``given``, which count more.

    Raises ``StackError`` for one given that is no setting, or that the stack decides itself.
    """
    from control_plane.settings import Settings as ControlPlaneSettings  # only `up` needs both planes
    from data_plane.settings import AgentSettings
    from data_plane.settings import Settings as NodeSettings

    of_control_plane, of_node = _variables(ControlPlaneSettings.model_fields), _variables(NodeSettings.model_fields)
    of_agent = _variables(AgentSettings.model_fields) - NOT_OF_AGENTS
    known = of_control_plane | of_node | of_agent
    wanted, ignored = {}, []
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in OF_COMMANDS or name == PREFIX + "ADMIN_TOKEN":
            continue
        if name in known - OWN:
            wanted[name] = value
        else:
            why = "`tidegate up` sets it itself" if name in OWN else "there is no such setting"
            ignored.append(f"{name} in the environment is ignored: {why}")
    for item in given:
        name, separator, value = item.partition("=")
        name = PREFIX + name.upper().removeprefix(PREFIX)
        if not separator:
            raise StackError("--set: must be NAME=VALUE")
        if name in OWN:
            raise StackError(f"--set: `tidegate up` sets {name} itself")
        if name not in known:
            raise StackError(f"--set: there is no setting {name}")
        wanted[name] = value
    return PassedOn(
        {name: value for name, value in wanted.items() if name in of_control_plane},
        {name: value for name, value in wanted.items() if name in of_node},
        {name: value for name, value in wanted.items() if name in of_agent},
        ignored,
    )


def _variables(fields: Iterable[str]) -> set[str]:
    return {PREFIX + name.upper() for name in fields}
