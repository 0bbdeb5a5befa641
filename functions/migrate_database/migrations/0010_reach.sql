-- The share of devices that may download: cohort_percent says who was told, this also who is being told right now. A
-- device starts its download before the pipeline has recorded the wave.
ALTER TABLE releases ADD COLUMN reach_percent double precision NOT NULL DEFAULT 0;
