-- What no policy can set aside: these constraints come before those of every policy.

-- A dkernel gives no more cores and slices than it has.
CREATE CONSTRAINT core_capacity AS
SELECT * FROM load CHECK cores <= total_cores;

CREATE CONSTRAINT slice_capacity AS
SELECT * FROM load CHECK slices <= total_slices;

-- Nothing goes to a dead dkernel.
CREATE CONSTRAINT alive AS
SELECT * FROM pending JOIN health ON health.dkernel = pending.controllable__dkernel
CHECK health.alive;

-- Nothing new goes to a dkernel that is drained.
CREATE CONSTRAINT not_drained AS
SELECT * FROM pending JOIN health ON health.dkernel = pending.controllable__dkernel
CHECK NOT health.drained;

-- A request that names dkernels gets those.
CREATE CONSTRAINT pinned AS
SELECT * FROM pending WHERE pinned
CHECK controllable__dkernel IN (SELECT dkernel FROM pins WHERE pins.request = pending.request);

-- The cores of a request of shape 'apart' are on different dkernels (anti-affinity).
CREATE CONSTRAINT apart AS
SELECT request FROM pending WHERE shape = 'apart' AND resource = 'core' GROUP BY request
CHECK all_different(controllable__dkernel);
