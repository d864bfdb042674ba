-- Each request one dkernel after the one before it, beginning after the dkernel granted last.

CREATE CONSTRAINT turn AS
SELECT * FROM pending
JOIN dkernels ON dkernels.id = pending.controllable__dkernel
JOIN round
MINIMIZE (dkernels.rank - round.cursor - 1 - pending.request) % round.dkernels TIER 1;
