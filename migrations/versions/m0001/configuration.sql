-- What admins configure: regions, routes, plans, limits with their quotas, clients; and what is blocked or switched.

-- Ids of rules name stored counts: none is ever given twice.
CREATE SEQUENCE limit_rule_ids;

CREATE TABLE regions (
    region TEXT COLLATE "C" NOT NULL,
    peer_url TEXT COLLATE "C",
    public_key TEXT COLLATE "C",
    credential_sha256 TEXT COLLATE "C",
    previous_public_key TEXT COLLATE "C",
    previous_credential_sha256 TEXT COLLATE "C",
    previous_expires_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_regions PRIMARY KEY (region),
    CONSTRAINT uq_regions_credential_sha256 UNIQUE (credential_sha256),
    CONSTRAINT uq_regions_previous_credential_sha256 UNIQUE (previous_credential_sha256)
);

CREATE TABLE adaptive_policies (
    policy TEXT COLLATE "C" NOT NULL,
    settings JSONB NOT NULL,
    CONSTRAINT pk_adaptive_policies PRIMARY KEY (policy)
);

CREATE TABLE backends (
    backend TEXT COLLATE "C" NOT NULL,
    capacity_limit BIGINT,
    capacity_window_us BIGINT,
    capacity_burst BIGINT,
    capacity_rule_id BIGINT,
    capacity_open_rule_id BIGINT,
    adaptive TEXT COLLATE "C",
    pulls JSONB DEFAULT '[]'::jsonb NOT NULL,
    manual_factor DOUBLE PRECISION,
    manual_expires_at TIMESTAMP WITH TIME ZONE,
    manual_reason TEXT COLLATE "C",
    CONSTRAINT pk_backends PRIMARY KEY (backend),
    CONSTRAINT fk_backends_adaptive_adaptive_policies FOREIGN KEY(adaptive) REFERENCES adaptive_policies (policy) ON DELETE RESTRICT
);

CREATE INDEX ix_backends_adaptive ON backends (adaptive);

CREATE TABLE endpoints (
    endpoint TEXT COLLATE "C" NOT NULL,
    method TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    shape TEXT COLLATE "C" NOT NULL,
    backend TEXT COLLATE "C",
    cost BIGINT NOT NULL,
    exempt BOOLEAN NOT NULL,
    CONSTRAINT pk_endpoints PRIMARY KEY (endpoint),
    CONSTRAINT uq_endpoints_shape UNIQUE (shape),
    CONSTRAINT fk_endpoints_backend_backends FOREIGN KEY(backend) REFERENCES backends (backend) ON DELETE RESTRICT
);

CREATE INDEX ix_endpoints_backend ON endpoints (backend);

CREATE TABLE backend_loads (
    region TEXT COLLATE "C" NOT NULL,
    backend TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    state JSONB NOT NULL,
    reported_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_backend_loads PRIMARY KEY (region, backend),
    CONSTRAINT fk_backend_loads_region_regions FOREIGN KEY(region) REFERENCES regions (region) ON DELETE CASCADE,
    CONSTRAINT fk_backend_loads_backend_backends FOREIGN KEY(backend) REFERENCES backends (backend) ON DELETE CASCADE
);

CREATE INDEX ix_backend_loads_backend ON backend_loads (backend);

CREATE TABLE plans (
    plan TEXT COLLATE "C" NOT NULL,
    priority BIGINT NOT NULL,
    CONSTRAINT pk_plans PRIMARY KEY (plan)
);

CREATE TABLE limits (
    id BIGSERIAL NOT NULL,
    rule_id BIGINT NOT NULL,
    plan TEXT COLLATE "C",
    name TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    algorithm TEXT COLLATE "C" NOT NULL,
    "limit" BIGINT NOT NULL,
    window_us BIGINT,
    calendar TEXT COLLATE "C",
    anchor_us BIGINT NOT NULL,
    burst BIGINT,
    match_methods JSONB NOT NULL,
    match_attributes JSONB NOT NULL,
    mode TEXT COLLATE "C" NOT NULL,
    on_store_failure TEXT COLLATE "C" NOT NULL,
    shadow BOOLEAN NOT NULL,
    priority BIGINT NOT NULL,
    adaptive TEXT COLLATE "C",
    headline BOOLEAN NOT NULL,
    visible BOOLEAN,
    auto_shares BOOLEAN NOT NULL,
    auto_fractions JSONB NOT NULL,
    CONSTRAINT pk_limits PRIMARY KEY (id),
    CONSTRAINT uq_limits_rule_id UNIQUE (rule_id),
    CONSTRAINT fk_limits_plan_plans FOREIGN KEY(plan) REFERENCES plans (plan) ON DELETE CASCADE,
    CONSTRAINT fk_limits_adaptive_adaptive_policies FOREIGN KEY(adaptive) REFERENCES adaptive_policies (policy) ON DELETE RESTRICT
);

CREATE INDEX ix_limits_adaptive ON limits (adaptive);

CREATE UNIQUE INDEX uq_limits_plan_name ON limits (plan, name) NULLS NOT DISTINCT;

CREATE TABLE limit_endpoints (
    limit_id BIGINT NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_limit_endpoints PRIMARY KEY (limit_id, endpoint),
    CONSTRAINT fk_limit_endpoints_limit_id_limits FOREIGN KEY(limit_id) REFERENCES limits (id) ON DELETE CASCADE,
    CONSTRAINT fk_limit_endpoints_endpoint_endpoints FOREIGN KEY(endpoint) REFERENCES endpoints (endpoint) ON DELETE RESTRICT
);

CREATE INDEX ix_limit_endpoints_endpoint ON limit_endpoints (endpoint);

CREATE TABLE limit_shares (
    limit_id BIGINT NOT NULL,
    region TEXT COLLATE "C" NOT NULL,
    fraction DOUBLE PRECISION NOT NULL,
    CONSTRAINT pk_limit_shares PRIMARY KEY (limit_id, region),
    CONSTRAINT fk_limit_shares_limit_id_limits FOREIGN KEY(limit_id) REFERENCES limits (id) ON DELETE CASCADE,
    CONSTRAINT fk_limit_shares_region_regions FOREIGN KEY(region) REFERENCES regions (region) ON DELETE RESTRICT
);

CREATE INDEX ix_limit_shares_region ON limit_shares (region);

CREATE TABLE quota_moves (
    rule_id BIGINT NOT NULL,
    whose TEXT COLLATE "C" DEFAULT '' NOT NULL,
    plan TEXT COLLATE "C",
    limit_name TEXT COLLATE "C" NOT NULL,
    schedule JSONB NOT NULL,
    waiting BOOLEAN NOT NULL,
    cut_revision BIGINT NOT NULL,
    cut_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    raise_at_us BIGINT,
    freed JSONB NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C",
    CONSTRAINT pk_quota_moves PRIMARY KEY (rule_id, whose)
);

CREATE INDEX ix_quota_moves_waiting ON quota_moves (waiting);

CREATE TABLE quota_balances (
    rule_id BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    moved BOOLEAN NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    demand JSONB NOT NULL,
    CONSTRAINT pk_quota_balances PRIMARY KEY (rule_id)
);

CREATE TABLE clients (
    client TEXT COLLATE "C" NOT NULL,
    plan TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    attributes JSONB NOT NULL,
    external_id TEXT COLLATE "C",
    generation BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_clients PRIMARY KEY (client),
    CONSTRAINT ck_clients_status CHECK (status IN ('active', 'suspended')),
    CONSTRAINT fk_clients_plan_plans FOREIGN KEY(plan) REFERENCES plans (plan) ON DELETE RESTRICT
);

CREATE INDEX ix_clients_external_id ON clients (external_id);

CREATE INDEX ix_clients_plan ON clients (plan);

CREATE TABLE overrides (
    client TEXT COLLATE "C" NOT NULL,
    limit_name TEXT COLLATE "C" NOT NULL,
    "limit" BIGINT NOT NULL,
    burst BIGINT,
    expires_at TIMESTAMP WITH TIME ZONE,
    then_limit BIGINT,
    then_burst BIGINT,
    CONSTRAINT pk_overrides PRIMARY KEY (client, limit_name),
    CONSTRAINT fk_overrides_client_clients FOREIGN KEY(client) REFERENCES clients (client) ON DELETE CASCADE
);

CREATE TABLE blocks (
    block TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C",
    key_id TEXT COLLATE "C",
    network TEXT COLLATE "C",
    endpoint TEXT COLLATE "C",
    reason TEXT COLLATE "C",
    reason_class TEXT COLLATE "C" NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_blocks PRIMARY KEY (block),
    CONSTRAINT ck_blocks_one_subject CHECK (num_nonnulls(client, key_id, network, endpoint) = 1)
);

CREATE INDEX ix_blocks_expires_at ON blocks (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE enforcement (
    target TEXT COLLATE "C" NOT NULL,
    mode TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C",
    expires_at TIMESTAMP WITH TIME ZONE,
    set_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_enforcement PRIMARY KEY (target),
    CONSTRAINT ck_enforcement_mode CHECK (mode IN ('enforce', 'shadow'))
);
