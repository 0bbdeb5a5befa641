-- Room on each page for the new version of a row, beside the old one: then no index is touched when a device checks in
-- (https://www.postgresql.org/docs/current/storage-hot.html). It is for pages that are filled from now on.
ALTER TABLE devices SET (fillfactor = 85);

-- A release that has reached everybody needs no hash: no fraction is beyond 100 percent.
CREATE OR REPLACE FUNCTION in_cohort(salt text, mac macaddr, percent double precision) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT percent >= 100 OR cohort_fraction(salt, mac) * 100 < percent * 4294967296
$$;
