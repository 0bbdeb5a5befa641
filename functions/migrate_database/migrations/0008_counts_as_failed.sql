-- Whether a device with this state and reason is a failure of its release. Python has a function of the same name
-- (ota_core.formats.device_status); tests/vectors/counts_as_failed.json holds both.
CREATE FUNCTION counts_as_failed(state text, reason text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT state IN ('failed', 'rejected', 'rolled_back')
        AND NOT (state = 'rejected' AND coalesce(reason, '') IN ('version_not_newer', 'sequence_not_newer'))
$$;
