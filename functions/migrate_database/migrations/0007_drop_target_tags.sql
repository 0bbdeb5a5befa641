-- Nothing ever wrote it: a release's tags stand in its signed manifest, and its devices in release_targets.
ALTER TABLE releases DROP COLUMN target_tags;
