-- Goals in order of importance, instead of weights that trade one for another.

-- 1. What the request asks for: cores of a 'spread' request evenly, and units near where it says.
CREATE CONSTRAINT spread AS
SELECT * FROM pending AS a JOIN pending AS b ON a.request = b.request
WHERE a.id <> b.id AND a.shape = 'spread' AND a.resource = 'core' AND b.resource = 'core'
MINIMIZE (a.controllable__dkernel = b.controllable__dkernel) TIER 1;

CREATE CONSTRAINT near AS
SELECT * FROM pending
WHERE EXISTS (SELECT * FROM near WHERE near.request = pending.request)
MINIMIZE controllable__dkernel NOT IN (SELECT dkernel FROM near WHERE near.request = pending.request) TIER 1;

-- 2. Few dkernels a process: stay where it is, open as few others as possible.
CREATE CONSTRAINT opened AS
SELECT * FROM held WHERE new MINIMIZE 1 TIER 2;

-- 3. Memory where the process has cores: slices at a dkernel without cores of the process are remote to all of them.
CREATE CONSTRAINT remote AS
SELECT * FROM held WHERE cores = 0 MINIMIZE slices TIER 3;

-- 4. Keep room: as few dkernels as possible with more than nine tenths of their cores in use.
CREATE CONSTRAINT room AS
SELECT * FROM load MINIMIZE 10 * cores > 9 * total_cores TIER 4;

-- 5. Least movement.
CREATE CONSTRAINT movement AS
SELECT * FROM pending WHERE moving MINIMIZE controllable__dkernel <> home TIER 5;

-- 6. Balance: the sum of the squares of the load, in proportion to the size of the dkernel.
CREATE CONSTRAINT balance_cores AS
SELECT * FROM load MINIMIZE 100 * cores * cores / total_cores TIER 6;

CREATE CONSTRAINT balance_slices AS
SELECT * FROM load MINIMIZE 100 * slices * slices / total_slices TIER 6;
