-- What was used, by hour and by day: partitions of the three large tables are in a schema of their own.

CREATE SCHEMA usage_parts;

CREATE TABLE usage_alerts (
    alert TEXT COLLATE "C" NOT NULL,
    webhook TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    plan TEXT COLLATE "C" NOT NULL,
    limit_name TEXT COLLATE "C" NOT NULL,
    window_start TIMESTAMP WITH TIME ZONE NOT NULL,
    percent BIGINT NOT NULL,
    used BIGINT NOT NULL,
    "limit" BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    attempts BIGINT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    delivered_at TIMESTAMP WITH TIME ZONE,
    error TEXT COLLATE "C",
    CONSTRAINT pk_usage_alerts PRIMARY KEY (alert)
);

CREATE INDEX ix_usage_alerts_created_at ON usage_alerts (created_at);

CREATE INDEX ix_usage_alerts_due ON usage_alerts (due_at) WHERE due_at IS NOT NULL;

CREATE UNIQUE INDEX uq_usage_alerts_once ON usage_alerts (webhook, client, plan, limit_name, window_start, percent);

CREATE TABLE usage_daily (
    client TEXT COLLATE "C" NOT NULL,
    day DATE NOT NULL,
    plan TEXT COLLATE "C" NOT NULL,
    limit_name TEXT COLLATE "C" NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    region TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    allowed BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    shadow_denied BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    denied_cost BIGINT NOT NULL,
    CONSTRAINT pk_usage_daily PRIMARY KEY (client, day, plan, limit_name, endpoint, region, key_id)
)
 PARTITION BY RANGE (day);

CREATE INDEX ix_usage_daily_limit ON usage_daily (plan, limit_name, day);

CREATE TABLE usage_days (
    day DATE NOT NULL,
    stale BOOLEAN NOT NULL,
    rolled_up_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_usage_days PRIMARY KEY (day)
);

CREATE TABLE usage_hourly (
    client TEXT COLLATE "C" NOT NULL,
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    plan TEXT COLLATE "C" NOT NULL,
    limit_name TEXT COLLATE "C" NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    region TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    allowed BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    shadow_denied BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    denied_cost BIGINT NOT NULL,
    CONSTRAINT pk_usage_hourly PRIMARY KEY (client, hour, plan, limit_name, endpoint, region, key_id)
)
 PARTITION BY RANGE (hour);

CREATE INDEX ix_usage_hourly_limit ON usage_hourly (plan, limit_name, hour);

CREATE TABLE usage_regions (
    region TEXT COLLATE "C" NOT NULL,
    complete_until TIMESTAMP WITH TIME ZONE,
    shipped_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_usage_regions PRIMARY KEY (region)
);

CREATE TABLE usage_sources (
    region TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    incarnation TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    lost_batches BIGINT NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_usage_sources PRIMARY KEY (region, node, incarnation)
);

CREATE INDEX ix_usage_sources_seen_at ON usage_sources (seen_at);

CREATE TABLE usage_totals (
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    plan TEXT COLLATE "C" NOT NULL,
    limit_name TEXT COLLATE "C" NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    region TEXT COLLATE "C" NOT NULL,
    allowed BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    shadow_denied BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    denied_cost BIGINT NOT NULL,
    CONSTRAINT pk_usage_totals PRIMARY KEY (hour, plan, limit_name, endpoint, region)
)
 PARTITION BY RANGE (hour);

CREATE TABLE usage_webhooks (
    webhook TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    plan TEXT COLLATE "C",
    client TEXT COLLATE "C",
    thresholds JSONB NOT NULL,
    enabled BOOLEAN NOT NULL,
    salt TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_usage_webhooks PRIMARY KEY (webhook)
);
