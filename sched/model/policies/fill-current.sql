-- Stay at the dkernel granted last until it is full, then go to the next.

CREATE CONSTRAINT current AS
SELECT * FROM pending
JOIN dkernels ON dkernels.id = pending.controllable__dkernel
JOIN round
MINIMIZE (dkernels.rank - round.cursor) % round.dkernels TIER 1;
