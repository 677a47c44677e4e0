-- What nodes get: documents, buckets of their digest, the head and its revisions; nodes, and roll-outs by steps.

CREATE TABLE config_buckets (
    bucket SMALLINT NOT NULL,
    digest BYTEA NOT NULL,
    CONSTRAINT pk_config_buckets PRIMARY KEY (bucket)
);

CREATE TABLE config_documents (
    kind TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    body TEXT COLLATE "C",
    hash BYTEA,
    bucket SMALLINT NOT NULL,
    revision BIGINT NOT NULL,
    CONSTRAINT pk_config_documents PRIMARY KEY (kind, id)
);

CREATE INDEX ix_config_documents_bucket ON config_documents (bucket);

CREATE INDEX ix_config_documents_revision ON config_documents (revision);

CREATE TABLE config_head (
    id SMALLSERIAL NOT NULL,
    revision BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    rollout BIGINT,
    stable_revision BIGINT,
    stable_digest TEXT COLLATE "C",
    stage_region TEXT COLLATE "C",
    stage_node TEXT COLLATE "C",
    deltas_from BIGINT NOT NULL,
    CONSTRAINT pk_config_head PRIMARY KEY (id),
    CONSTRAINT ck_config_head_one_row CHECK (id = 1)
);

-- Revision 0 has no documents: its digest is that of nothing.
INSERT INTO config_head (id, revision, digest, deltas_from)
VALUES (1, 0, 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', 0);

CREATE TABLE node_effects (
    region TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    rule_id BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    from_us BIGINT NOT NULL,
    CONSTRAINT pk_node_effects PRIMARY KEY (region, node, rule_id)
);

CREATE INDEX ix_node_effects_rule_id ON node_effects (rule_id);

CREATE TABLE node_reports (
    region TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    decisions BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    degraded BIGINT NOT NULL,
    CONSTRAINT pk_node_reports PRIMARY KEY (region, node, at)
);

CREATE INDEX ix_node_reports_at ON node_reports (at);

CREATE TABLE nodes (
    region TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" DEFAULT 'node' NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    applied_revision BIGINT NOT NULL,
    applied_at TIMESTAMP WITH TIME ZONE,
    refused_revision BIGINT,
    refused_reason TEXT COLLATE "C",
    stream TEXT COLLATE "C",
    opened_at TIMESTAMP WITH TIME ZONE,
    staged_revision BIGINT,
    staged_at TIMESTAMP WITH TIME ZONE,
    last_seen TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_nodes PRIMARY KEY (region, node),
    CONSTRAINT ck_nodes_role CHECK (role IN ('node', 'agent'))
);

CREATE INDEX ix_nodes_stream ON nodes (stream);

CREATE TABLE revisions (
    number BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C",
    digest TEXT COLLATE "C" NOT NULL,
    stable_digest TEXT COLLATE "C",
    signature TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    changes JSONB NOT NULL,
    CONSTRAINT pk_revisions PRIMARY KEY (number)
);

CREATE TABLE rollout_policy (
    id SMALLSERIAL NOT NULL,
    mode TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C",
    region TEXT COLLATE "C",
    node_pause_s DOUBLE PRECISION NOT NULL,
    region_pause_s DOUBLE PRECISION NOT NULL,
    max_denial_rise DOUBLE PRECISION NOT NULL,
    max_degraded_rise DOUBLE PRECISION NOT NULL,
    min_decisions BIGINT NOT NULL,
    CONSTRAINT pk_rollout_policy PRIMARY KEY (id),
    CONSTRAINT ck_rollout_policy_one_row CHECK (id = 1),
    CONSTRAINT ck_rollout_policy_mode CHECK (mode IN ('immediate', 'canary'))
);

CREATE TABLE rollouts (
    number BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    region TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    base_revision BIGINT NOT NULL,
    stage_revision BIGINT NOT NULL,
    released_revision BIGINT,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    stage_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    acked_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT COLLATE "C",
    node_pause_s DOUBLE PRECISION NOT NULL,
    region_pause_s DOUBLE PRECISION NOT NULL,
    max_denial_rise DOUBLE PRECISION NOT NULL,
    max_degraded_rise DOUBLE PRECISION NOT NULL,
    min_decisions BIGINT NOT NULL,
    held JSONB NOT NULL,
    CONSTRAINT pk_rollouts PRIMARY KEY (number),
    CONSTRAINT ck_rollouts_state CHECK (state IN ('node', 'region', 'done', 'rolled_back'))
);
