-- Which line of releases (product, chip) a device is of. `product` and `chip` are what it named last, be it in a check-in,
-- which anyone with the API key can send. `proven_*` is what its certificate showed: the line that it spoke for last in
-- statuses, and since when it has spoken for no other, '-infinity' if it never did. NULL is unknown.
ALTER TABLE devices
    ALTER COLUMN product DROP NOT NULL,           -- a device that only ever said "not for me"
    ADD COLUMN chip text,
    ADD COLUMN proven_product text,
    ADD COLUMN proven_chip text,
    ADD COLUMN proven_since timestamptz NOT NULL DEFAULT '-infinity';

-- The proven lines of these devices, from all that they ever said, in whatever order it arrived. A device speaks for a
-- release's line by every status that is no refusal. Refusals speak for a line only while there is nothing else, and those
-- that say "I am another's" never do. Of what it said about a release, only the first and the last time are known: if it
-- spoke for another line between them, it is the last that counts.
CREATE FUNCTION proven_lines(macs macaddr[])
RETURNS TABLE (mac macaddr, product text, chip text, since timestamptz)
LANGUAGE sql STABLE AS $$
    WITH spoken AS (
        SELECT said.mac, releases.id AS release, releases.product, releases.chip, said.state = 'rejected' AS is_refusal,
            min(reported_at) AS first, max(last_reported_at) AS last
        FROM device_history AS said JOIN releases ON releases.id = said.release
        WHERE said.mac = ANY(macs)
            AND NOT (said.state = 'rejected' AND coalesce(said.reason, '') IN ('wrong_product', 'wrong_chip'))
        GROUP BY said.mac, releases.id, is_refusal
    ), begun AS (
        SELECT spoken.*, min(first) FILTER (WHERE NOT is_refusal) OVER (PARTITION BY spoken.mac) AS beginning FROM spoken
    ), counted AS (
        SELECT begun.mac, release, begun.product, begun.chip, is_refusal, first,
            CASE WHEN is_refusal THEN least(last, beginning) ELSE last END AS last
        FROM begun WHERE NOT is_refusal OR beginning IS NULL OR first < beginning
    ), placed AS (
        SELECT counted.*, first_value(counted.product) OVER latest AS its_product,
            first_value(counted.chip) OVER latest AS its_chip
        FROM counted WINDOW latest AS (PARTITION BY counted.mac ORDER BY last DESC, is_refusal, release DESC)
    ), compared AS (
        SELECT placed.*, (placed.product, placed.chip) = (its_product, its_chip) AS is_its_own,
            max(last) FILTER (WHERE (placed.product, placed.chip) <> (its_product, its_chip))
                OVER (PARTITION BY placed.mac) AS left_other
        FROM placed
    )
    SELECT compared.mac, its_product, its_chip,
        coalesce(min(CASE WHEN first > left_other THEN first WHEN last >= left_other THEN last END), '-infinity')
    FROM compared WHERE is_its_own GROUP BY compared.mac, its_product, its_chip
$$;

UPDATE devices SET product = line.product, chip = line.chip, proven_product = line.product, proven_chip = line.chip,
    proven_since = line.since
FROM proven_lines((SELECT array_agg(DISTINCT mac) FROM device_history)) AS line WHERE line.mac = devices.mac;
