-- The reference's default policy: locality by weights, then balance.
-- 4096 for a unit at a dkernel where its process holds something, 1024 for each ordered pair of units of one
-- process at the same dkernel; then the fullest dkernel as empty as possible, as the reference's
-- capacity constraints ask, cores before slices.

CREATE CONSTRAINT near_placed AS
SELECT * FROM pending
MAXIMIZE 4096 * (controllable__dkernel IN
    (SELECT dkernel FROM placements WHERE placements.process = pending.process)) TIER 1;

CREATE CONSTRAINT near_pending AS
SELECT * FROM pending AS a JOIN pending AS b ON a.process = b.process
WHERE a.id <> b.id
MAXIMIZE 1024 * (a.controllable__dkernel = b.controllable__dkernel) TIER 1;

CREATE CONSTRAINT fullest_cores AS
SELECT * FROM load MINIMIZE max(load.cores) TIER 2;

CREATE CONSTRAINT fullest_slices AS
SELECT * FROM load MINIMIZE max(load.slices) TIER 3;

-- Equal rows may be exchanged.
CREATE CONSTRAINT symmetry AS
SELECT request FROM pending GROUP BY request, resource
CHECK increasing(controllable__dkernel);
