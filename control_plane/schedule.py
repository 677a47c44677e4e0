"""Every job of the control plane, gathered: each domain makes its own, here it gets what it needs."""

import time
from collections.abc import Callable

from control_plane.canary.service import RolloutEngine
from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.nodes.jobs import liveness_job
from control_plane.publishing.writer import ConfigWriter
from control_plane.quotas.jobs import AdvanceJob, RebalanceJob
from control_plane.quotas.rebalancing import Balancing
from control_plane.settings import Settings
from control_plane.upkeep.drift import drift_job
from control_plane.upkeep.expiry import ended_blocks_job, expiry_job
from control_plane.upkeep.retention import Kept, retention_job
from control_plane.usage.jobs import usage_jobs
from control_plane.usage.partitions import Partitions
from control_plane.usage.repository import demand
from control_plane.usage.webhooks.jobs import Deliverer
from control_plane.usage.webhooks.service import WebhookKeys


def jobs_of(
    settings: Settings,
    database: Database,
    writer: ConfigWriter,
    partitions: Partitions,
    webhook_keys: WebhookKeys,
    rollouts: RolloutEngine,
    revision: Callable[[], int],
) -> list[Job]:
    """The job of the leader. To add a job, make it in its domain and name it here.

    ``revision``: the newest one that this process knows.
    """
    balancing = Balancing(settings.quota_floor, settings.quota_damping, settings.quota_min_change)
    return [
        rollouts.job(revision),
        drift_job(database),
        expiry_job(database, writer),
        liveness_job(database, settings.heartbeat_s, settings.forget_nodes_after_days),
        retention_job(database, Kept(settings.tombstone_days, settings.revision_days, settings.audit_days)),
        AdvanceJob(database, writer, settings.heartbeat_s, now_us).job(revision),
        RebalanceJob(database, writer, demand, balancing, settings.quota_rebalancing_s).job(),
        ended_blocks_job(database, writer),
        *usage_jobs(
            database,
            partitions,
            hourly_days=settings.usage_hourly_days,
            daily_months=settings.usage_daily_months,
        ),
        *Deliverer(database, webhook_keys, may_reach_private=settings.webhooks_may_reach_private).jobs(),
    ]


def now_us() -> int:
    """The time, in microseconds since the epoch."""
    return time.time_ns() // 1_000
