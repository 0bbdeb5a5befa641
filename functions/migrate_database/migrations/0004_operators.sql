-- What a device ran when it reached its state.
ALTER TABLE device_states ADD COLUMN running_version text;

-- Each thing that a device said of a release once, with the first and the last time. So repetitions cost no room, and
-- what is recorded does not depend on the order in which messages arrive.
ALTER TABLE device_history ADD COLUMN last_reported_at timestamptz NOT NULL DEFAULT now();
CREATE UNIQUE INDEX device_history_said
    ON device_history (mac, release, state, coalesce(reason, ''), coalesce(running_version, ''));
DROP INDEX device_history_by_device;

-- The execution that an operator's action ends. While it is still the release's, no other has gone on with it.
ALTER TABLE releases ADD COLUMN woken_from text;
