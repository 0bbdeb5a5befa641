CREATE TABLE products (
    product text PRIMARY KEY,
    latest_version text,                          -- highest by SemVer precedence
    last_sequence bigint NOT NULL DEFAULT 0
);

CREATE TABLE releases (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id text NOT NULL UNIQUE,
    manifest_sha256 text NOT NULL UNIQUE,         -- one signed manifest is one release
    product text NOT NULL REFERENCES products,
    version text NOT NULL,
    sequence bigint NOT NULL,
    chip text NOT NULL,
    changelog text NOT NULL,
    envelope text NOT NULL,                       -- as it was dropped
    keyid text NOT NULL,
    image_key text NOT NULL,
    image_version_id text NOT NULL,
    image_size integer NOT NULL,
    image_sha256 text NOT NULL,
    image_signature text NOT NULL,                -- base64
    target_count integer,                         -- NULL: the whole fleet
    allow_downgrade boolean NOT NULL,
    warnings jsonb NOT NULL,
    state text NOT NULL DEFAULT 'registered' CHECK (state IN ('registered', 'published', 'withdrawn')),
    execution_arn text NOT NULL,                  -- the execution that owns it
    registered_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    expires_at timestamptz NOT NULL,
    UNIQUE (product, sequence)
);

-- A version may be released again, with the same bytes, to other devices.
CREATE INDEX releases_by_version ON releases (product, version);

CREATE TABLE release_targets (
    mac macaddr NOT NULL,
    release bigint NOT NULL REFERENCES releases ON DELETE CASCADE,
    PRIMARY KEY (mac, release)
);
CREATE INDEX release_targets_by_release ON release_targets (release);
