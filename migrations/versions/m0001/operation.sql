-- How the service is run: the audit log, answers kept for repeated requests, jobs, and whom the schema serves.

CREATE TABLE audit_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C",
    action TEXT COLLATE "C" NOT NULL,
    resource TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    reason TEXT COLLATE "C",
    request_id TEXT COLLATE "C",
    address TEXT COLLATE "C",
    before JSONB,
    after JSONB,
    CONSTRAINT pk_audit_log PRIMARY KEY (id)
);

CREATE INDEX ix_audit_log_at ON audit_log (at);

CREATE INDEX ix_audit_log_author ON audit_log (author, id);

CREATE INDEX ix_audit_log_resource ON audit_log (resource, name, id);

CREATE INDEX ix_audit_log_revision ON audit_log (revision);

-- PG_CONTEXT is the stack of calls, which no session setting can forge: deleting is left to audit_log_retain.
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    callers text;
BEGIN
    GET DIAGNOSTICS callers = PG_CONTEXT;
    IF TG_OP = 'DELETE' AND callers ~ 'function audit_log_retain\(' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE FUNCTION audit_log_retain(older_than timestamptz, most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    removed bigint;
BEGIN
    IF older_than > now() - interval '30 days' THEN
        RAISE EXCEPTION 'the audit log keeps at least 30 days' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE at < older_than ORDER BY at LIMIT most);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE ON audit_log
FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();

CREATE TRIGGER table_stays BEFORE TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();

CREATE TABLE replays (
    author TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    request_sha256 TEXT COLLATE "C" NOT NULL,
    status SMALLINT,
    headers JSONB NOT NULL,
    body TEXT COLLATE "C",
    made JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_replays PRIMARY KEY (author, idempotency_key)
);

CREATE INDEX ix_replays_created_at ON replays (created_at);

CREATE TABLE jobs (
    job TEXT COLLATE "C" NOT NULL,
    replica TEXT COLLATE "C",
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    duration_ms BIGINT,
    outcome TEXT COLLATE "C",
    detail TEXT COLLATE "C",
    next_run_at TIMESTAMP WITH TIME ZONE,
    runs BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    requested_at TIMESTAMP WITH TIME ZONE,
    requested_by TEXT COLLATE "C",
    CONSTRAINT pk_jobs PRIMARY KEY (job),
    CONSTRAINT ck_jobs_outcome CHECK (outcome IN ('done', 'failed'))
);

CREATE TABLE leader (
    id SMALLSERIAL NOT NULL,
    replica TEXT COLLATE "C" NOT NULL,
    since TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_leader PRIMARY KEY (id),
    CONSTRAINT ck_leader_one_row CHECK (id = 1)
);

CREATE TABLE schema_support (
    id SMALLSERIAL NOT NULL,
    works_from TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_schema_support PRIMARY KEY (id),
    CONSTRAINT ck_schema_support_one_row CHECK (id = 1)
);

INSERT INTO schema_support (id, works_from) VALUES (1, '0001');
