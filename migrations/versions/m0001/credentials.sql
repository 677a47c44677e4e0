-- Who may do what: secrets exist as hashes only. The console's sessions hang on tokens.

CREATE TABLE keys (
    key_id TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    prefix TEXT COLLATE "C",
    name TEXT COLLATE "C",
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_keys PRIMARY KEY (key_id),
    CONSTRAINT fk_keys_client_clients FOREIGN KEY(client) REFERENCES clients (client) ON DELETE CASCADE,
    CONSTRAINT uq_keys_sha256 UNIQUE (sha256)
);

CREATE INDEX ix_keys_client ON keys (client);

CREATE INDEX ix_keys_prefix ON keys (prefix);

CREATE TABLE tokens (
    token_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    previous_sha256 TEXT COLLATE "C",
    prefix TEXT COLLATE "C",
    dialect TEXT COLLATE "C",
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    previous_expires_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_tokens PRIMARY KEY (token_id),
    CONSTRAINT ck_tokens_role CHECK (role IN ('viewer', 'operator', 'admin', 'gateway')),
    CONSTRAINT uq_tokens_sha256 UNIQUE (sha256),
    CONSTRAINT uq_tokens_previous_sha256 UNIQUE (previous_sha256)
);

CREATE UNIQUE INDEX uq_tokens_live_name ON tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE reporters (
    reporter TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    prefix TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    previous_sha256 TEXT COLLATE "C",
    previous_expires_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_reporters PRIMARY KEY (reporter),
    CONSTRAINT uq_reporters_sha256 UNIQUE (sha256)
);

CREATE TABLE reporter_backends (
    reporter TEXT COLLATE "C" NOT NULL,
    backend TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_reporter_backends PRIMARY KEY (reporter, backend),
    CONSTRAINT fk_reporter_backends_reporter_reporters FOREIGN KEY(reporter) REFERENCES reporters (reporter) ON DELETE CASCADE,
    CONSTRAINT fk_reporter_backends_backend_backends FOREIGN KEY(backend) REFERENCES backends (backend) ON DELETE RESTRICT
);

CREATE INDEX ix_reporter_backends_backend ON reporter_backends (backend);

CREATE TABLE console_sessions (
    sha256 TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    token_id TEXT COLLATE "C" NOT NULL,
    token_sha256 TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    last_seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_console_sessions PRIMARY KEY (sha256),
    CONSTRAINT ck_console_sessions_kind CHECK (kind IN ('session', 'link')),
    CONSTRAINT fk_console_sessions_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (token_id) ON DELETE CASCADE
);

CREATE INDEX ix_console_sessions_token_id ON console_sessions (token_id);
