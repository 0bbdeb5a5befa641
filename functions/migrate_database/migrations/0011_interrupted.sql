-- The trial of the new app reached no broker: the old app runs, and the device tries again later.
ALTER TABLE device_states
    DROP CONSTRAINT device_states_state_check,
    ADD CONSTRAINT device_states_state_check CHECK (
        state IN (
            'downloading', 'verifying', 'rebooting', 'interrupted', 'failed', 'rejected', 'rolled_back', 'installed'
        )
    );
