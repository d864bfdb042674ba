// Package peer is one end of a rack: what the control kernel, a data kernel and the host tool have in common. It takes the
// machine block for a new life, beats, serves a loop with connections to all other peers, and mends rings that were damaged.
//
//	p, err := peer.Open(peer.Config{Memory: mem, Self: 2, Kind: 'd', Ring: ring, ...})
//	rpc.Handle(p.Mux(), rpc.Worker, serveThis)
//	err = p.Run(ctx)                     // until ctx ends, or with ErrFenced
//	conn, err := p.Conn(layout.Ckernel)  // meanwhile, for any goroutine
//
// # Life
//
// Open takes the block: the generation that it gets is this life's, in every frame and in every grant. Tick, which Run calls
// once a Beat, counts the heartbeat up and looks whether this life was fenced. A fenced life has lost all it owned and
// must stop at once: Run returns ErrFenced and all connections end.
//
// The words of the own block that only this machine writes are stored again if somebody has broken them. A successor that
// took the block is told from damage by a check word (mailbox word 1), and ends this life with [ErrReplaced].
//
// Words of the mailbox of a machine block that this package uses:
//
//	0  peers that are asked to make the rings between them and this machine anew, a bit each; set here, cleared by the peer
//	1  check of the generation; by the machine
//	2  of the ckernel: the rack's generation if its slices are known to be zero; by the host tool, taken by the ckernel
//	3  check of the fence; by the ckernel
//	4  the generation, once the life has attached to its rings: what was sent before is lost; by the machine
//
// # Mending
//
// A connection that found its rings corrupt is of no more use (rpc.ErrCorrupt) until the rings are made anew. Of two peers the
// one with the lower number does that. If it is the other one that noticed, it asks: bit q of its mailbox word 0 asks
// peer q to make the rings between them anew; q clears the bit when it has. Both look once a beat, so that a peer which breaks
// rings again and again costs little. A connection that a damaged frame told of a life which never was is closed and made again. Calls
// under way end with rpc.ErrCorrupt, rpc.ErrReset or rpc.ErrClosed, which callers take like a restart.
//
// # Concurrency
//
// All methods may be called by any goroutine; Tick by one at a time. The order of locks: Peer.mu before those of package rpc.
package peer
