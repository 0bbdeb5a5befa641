-- What devices say of themselves when they ask for an update; the API key does not prove it.
CREATE TABLE devices (
    mac macaddr PRIMARY KEY,
    product text NOT NULL,
    running_version text,
    last_seen_at timestamptz NOT NULL DEFAULT now()
);

-- The latest release for a whole fleet, however many others there are.
CREATE INDEX releases_for_fleet ON releases (product, sequence) WHERE state = 'published' AND target_count IS NULL;
