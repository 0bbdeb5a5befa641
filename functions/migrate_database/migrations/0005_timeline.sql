-- What the devices of a release reported, in time.
CREATE INDEX device_history_by_release ON device_history (release);
