-- Staged rollouts: the plan, and how far it is.
ALTER TABLE releases
    ADD COLUMN rollout jsonb,                                   -- the signed plan; NULL: all devices at once
    ADD COLUMN waves_published integer NOT NULL DEFAULT 0,
    ADD COLUMN cohort_percent double precision NOT NULL DEFAULT 0, -- the share of devices that was told so far
    ADD COLUMN wave_published_at timestamptz,
    ADD COLUMN is_paused boolean NOT NULL DEFAULT false,
    ADD COLUMN is_promoted boolean NOT NULL DEFAULT false,      -- the present soak ends early
    ADD COLUMN is_aborted boolean NOT NULL DEFAULT false,       -- an operator's wish, until it is done: 'withdrawn'
    ADD COLUMN targets_key text,                                -- the normalised list of listed devices
    ADD COLUMN targets_version_id text,
    ADD COLUMN target_tags text[],                              -- the tags that name the devices
    ADD COLUMN withdrawn_because text,
    ADD COLUMN drop_members jsonb NOT NULL DEFAULT '[]',        -- object versions, to be archived at the end
    DROP CONSTRAINT releases_state_check,
    ADD CONSTRAINT releases_state_check CHECK (state IN ('registered', 'rolling_out', 'published', 'withdrawn'));
UPDATE releases SET waves_published = 1, cohort_percent = 100, wave_published_at = published_at
WHERE state = 'published';

DROP INDEX releases_for_fleet;
CREATE INDEX releases_for_fleet ON releases (product, sequence)
    WHERE state IN ('published', 'rolling_out') AND target_count IS NULL;

-- Where a device stands in a release's order: the first 4 bytes of SHA-256(salt || MAC). The salt is the release id.
CREATE FUNCTION cohort_fraction(salt text, mac macaddr) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (get_byte(digest, 0)::bigint << 24) + (get_byte(digest, 1) << 16) + (get_byte(digest, 2) << 8)
        + get_byte(digest, 3)
    FROM (SELECT sha256(convert_to(salt || upper(mac::text), 'UTF8')) AS digest) AS hashed
$$;

-- Both sides are exact in a double, so that SQL, Python and C++ agree at every boundary.
CREATE FUNCTION in_cohort(salt text, mac macaddr, percent double precision) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT cohort_fraction(salt, mac) * 100 < percent * 4294967296
$$;

-- What was decided about a rollout, when, and from which numbers.
CREATE TABLE rollout_decisions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release bigint NOT NULL REFERENCES releases ON DELETE CASCADE,
    decided_at timestamptz NOT NULL DEFAULT now(),
    execution_arn text NOT NULL,
    decision jsonb NOT NULL
);
CREATE INDEX rollout_decisions_by_release ON rollout_decisions (release, id);

-- The highest state that a device reported in a release.
CREATE TABLE device_states (
    release bigint NOT NULL REFERENCES releases ON DELETE CASCADE,
    mac macaddr NOT NULL,
    state text NOT NULL CHECK (
        state IN ('downloading', 'verifying', 'rebooting', 'failed', 'rejected', 'rolled_back', 'installed')
    ),
    progress smallint,
    reason text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (release, mac)
);
CREATE INDEX device_states_by_device ON device_states (mac);
CREATE INDEX device_states_by_state ON device_states (release, state, mac);

-- Every change of a device's state, and every report that repeats none.
CREATE TABLE device_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mac macaddr NOT NULL,
    release bigint NOT NULL REFERENCES releases ON DELETE CASCADE,
    state text NOT NULL,
    reason text,
    running_version text,
    reported_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX device_history_by_device ON device_history (mac, id);

CREATE TABLE device_tags (
    tag text NOT NULL,
    mac macaddr NOT NULL,
    PRIMARY KEY (tag, mac)
);
CREATE INDEX device_tags_by_device ON device_tags (mac);

-- What operators did.
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    caller text NOT NULL,
    action text NOT NULL,
    release_id text,
    mac macaddr,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_by_release ON audit (release_id, id);
