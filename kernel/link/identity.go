package link

import (
	"fmt"
	"slices"
	"strings"

	"dinos/boot/info"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// Words of the kernel's command line.
const (
	WordPeer = "dinos.peer"
	WordName = "dinos.name"
	WordRack = "dinos.rack"
)

// Identity is which kernel of the rack this is.
type Identity struct {
	Given bool // the command line has one
	Peer  int
	Name  string // "" for the layout's
	Rack  uint64 // generation of the rack; 0 for any
}

// ParseIdentity reads the identity in a command line.
func ParseIdentity(a *info.Args) (Identity, error) {
	words := []string{WordPeer, WordName, WordRack}
	for _, k := range a.Keys() {
		if strings.HasPrefix(k, "dinos.") && !slices.Contains(words, k) {
			return Identity{}, fmt.Errorf("%w: unknown word %s, known are %s", ErrIdentity, k, strings.Join(words, ", "))
		}
	}
	id := Identity{Given: a.Has(WordPeer)}
	if !id.Given {
		for _, w := range []string{WordName, WordRack} {
			if a.Has(w) {
				return Identity{}, fmt.Errorf("%w: %s is given without %s", ErrIdentity, w, WordPeer)
			}
		}
		return id, nil
	}
	peer, err := a.Uint(WordPeer, 0, 0, layout.MaxMachines-1)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	id.Peer = int(peer)
	if id.Name, err = a.String(WordName, ""); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if len(id.Name) > proto.MaxName || a.Has(WordName) && id.Name == "" {
		return Identity{}, fmt.Errorf("%w: %s of %d bytes, want 1 to %d", ErrIdentity, WordName, len(id.Name), proto.MaxName)
	}
	if id.Rack, err = a.Uint(WordRack, 0, 1, 1<<64-1); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return id, nil
}
