-- Each request at a dkernel drawn by lot; the lot of a round follows from its seed.

CREATE CONSTRAINT lot AS
SELECT * FROM pending
MINIMIZE random(request, controllable__dkernel) TIER 1;
