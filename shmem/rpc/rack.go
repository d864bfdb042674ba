package rpc

import "dinos/shmem/layout"

// PeerConfig is the part of a Config that follows from the rack: the rings between self and peer, and the peer's name. The
// caller adds generations, the doorbell and handlers.
func PeerConfig(k *layout.Rack, self, peer int) (Config, error) {
	out, outBytes, err := k.RingRegion(k.Region, self, peer)
	if err != nil {
		return Config{}, err
	}
	in, inBytes, err := k.RingRegion(k.Region, peer, self)
	if err != nil {
		return Config{}, err
	}
	return Config{Name: k.PeerName(peer), Out: out, In: in, OutBytes: outBytes, InBytes: inBytes}, nil
}
