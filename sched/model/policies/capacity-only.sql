-- Anything that fits, with the fullest dkernel as empty as possible: the reference's capacity constraints
-- alone, which balance the load.

CREATE CONSTRAINT fullest_cores AS
SELECT * FROM load MINIMIZE max(load.cores) TIER 1;

CREATE CONSTRAINT fullest_slices AS
SELECT * FROM load MINIMIZE max(load.slices) TIER 2;
