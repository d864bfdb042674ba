// Package model states a placement problem: the relations a policy may read, the decision variables, and the
// policies themselves, written in C-SQL (after DCM: Suresh et al., "Building Scalable and Flexible Cluster
// Managers Using Declarative Programming", OSDI'20), parsed, type-checked and compiled to atoms that package
// sched/solve optimises.
//
// A Policy and an Instance are values without locks: one goroutine uses them at a time.
package model

import (
	"fmt"
	"strings"
)

// MaxTiers is the number of objective tiers, compared lexicographically. Tier 0 is the number of refused
// requests; policies use tiers 1 to MaxTiers−1.
const MaxTiers = 8

// Type is the type of an expression.
type Type uint8

const (
	Int Type = iota
	Bool
	Text
)

func (t Type) String() string { return [...]string{"INTEGER", "BOOLEAN", "TEXT"}[t] }

// Column is one column of a relation. Enum lists the values of a TEXT column; stored values are indexes into it.
type Column struct {
	Name     string
	Type     Type
	Enum     []string
	Decision bool // the solver chooses its value
	Doc      string
}

// relID numbers the built-in relations.
type relID uint8

const (
	relDkernels relID = iota
	relCores
	relSlices
	relUnallocated
	relHealth
	relProcesses
	relRequests
	relPins
	relNear
	relPlacements
	relRound
	relPending
	relHeld
	relLoad
	numRels
	relView relID = 255
)

// Relation describes a relation of the state.
type Relation struct {
	Name    string
	Doc     string
	Cols    []Column
	Decided bool // its rows depend on the decision variables

	id   relID
	view *statement
}

func (r *Relation) column(name string) int {
	for i := range r.Cols {
		if r.Cols[i].Name == name {
			return i
		}
	}
	return -1
}

// Shape says how the cores of a request are laid out over dkernels.
type Shape uint8

const (
	// Pack asks for few dkernels, Spread for an even distribution, Apart for at most one core a dkernel.
	Pack Shape = iota
	Spread
	Apart
)

func (s Shape) String() string {
	if int(s) < len(shapeNames) {
		return shapeNames[s]
	}
	return fmt.Sprintf("shape %d", uint8(s))
}

var (
	shapeNames    = []string{"pack", "spread", "apart"}
	resourceNames = []string{"core", "slice"}
)

// Columns of the pending relation, in order.
const (
	pendID = iota
	pendRequest
	pendProcess
	pendResource
	pendCores
	pendSlices
	pendShape
	pendPinned
	pendHome
	pendMoving
	pendDkernel
	pendWidth
)

// Columns of held and load.
const (
	heldProcess = iota
	heldDkernel
	heldCores
	heldSlices
	heldNew
	heldWidth
)

const (
	loadDkernel = iota
	loadCores
	loadSlices
	loadTotalCores
	loadTotalSlices
	loadWidth
)

// schema is the catalogue of built-in relations; tables of an Instance have the same order.
var schema = numbered([numRels]Relation{
	relDkernels: {Name: "dkernels", Doc: "the data kernels of the rack", Cols: []Column{
		{Name: "id", Doc: "number of the dkernel"},
		{Name: "rank", Doc: "its place in the list, from 0"},
		{Name: "cores", Doc: "cores it has"},
		{Name: "slices", Doc: "memory slices it has"},
		{Name: "generation", Doc: "its present life"},
		{Name: "alive", Type: Bool, Doc: "it answers"},
		{Name: "drained", Type: Bool, Doc: "it takes nothing new"}}},
	relCores:  {Name: "cores", Doc: "cores by dkernel, before the round", Cols: usage()},
	relSlices: {Name: "slices", Doc: "memory slices by dkernel, before the round", Cols: usage()},
	relUnallocated: {Name: "unallocated", Doc: "what is free, before the round", Cols: []Column{
		{Name: "dkernel"}, {Name: "cores"}, {Name: "slices"}}},
	relHealth: {Name: "health", Doc: "life of the dkernels", Cols: []Column{
		{Name: "dkernel"}, {Name: "generation"}, {Name: "alive", Type: Bool}, {Name: "drained", Type: Bool}}},
	relProcesses: {Name: "processes", Doc: "the processes and what they hold, before the round", Cols: []Column{
		{Name: "id"}, {Name: "cores"}, {Name: "slices"}}},
	relRequests: {Name: "requests", Doc: "the requests of the round", Cols: []Column{
		{Name: "id", Doc: "its place in the batch, from 0"}, {Name: "process"}, {Name: "cores"}, {Name: "slices"},
		{Name: "shape", Type: Text, Enum: shapeNames}}},
	relPins: {Name: "pins", Doc: "dkernels a request is restricted to", Cols: []Column{
		{Name: "request"}, {Name: "dkernel"}}},
	relNear: {Name: "near", Doc: "dkernels a request would like to be at", Cols: []Column{
		{Name: "request"}, {Name: "dkernel"}}},
	relPlacements: {Name: "placements", Doc: "what each process holds at each dkernel, before the round", Cols: []Column{
		{Name: "process"}, {Name: "dkernel"}, {Name: "cores"}, {Name: "slices"}}},
	relRound: {Name: "round", Doc: "one row: the round itself", Cols: []Column{
		{Name: "number"}, {Name: "cursor", Doc: "rank of the dkernel granted last"},
		{Name: "dkernels", Doc: "number of dkernels"}, {Name: "requests", Doc: "number of requests"}}},
	relPending: {Name: "pending", Doc: "one row for each core and each slice asked for", Decided: true, Cols: []Column{
		{Name: "id"}, {Name: "request"}, {Name: "process"},
		{Name: "resource", Type: Text, Enum: resourceNames},
		{Name: "cores", Doc: "1 for a core, 0 for a slice"}, {Name: "slices", Doc: "1 for a slice, 0 for a core"},
		{Name: "shape", Type: Text, Enum: shapeNames},
		{Name: "pinned", Type: Bool, Doc: "the request has pins"},
		{Name: "home", Doc: "dkernel it is moving from, 0 for a new one"},
		{Name: "moving", Type: Bool, Doc: "it has a home"},
		{Name: "controllable__dkernel", Decision: true, Doc: "the dkernel it gets"}}},
	relHeld: {Name: "held", Doc: "what the processes of the round hold at each dkernel, after it", Decided: true, Cols: []Column{
		{Name: "process"}, {Name: "dkernel"}, {Name: "cores"}, {Name: "slices"},
		{Name: "new", Type: Bool, Doc: "the process held nothing there before"}}},
	relLoad: {Name: "load", Doc: "what is used at each dkernel, after the round", Decided: true, Cols: []Column{
		{Name: "dkernel"}, {Name: "cores"}, {Name: "slices"}, {Name: "total_cores"}, {Name: "total_slices"}}},
})

func numbered(rels [numRels]Relation) [numRels]Relation {
	for i := range rels {
		rels[i].id = relID(i)
	}
	return rels
}

func usage() []Column {
	return []Column{{Name: "dkernel"}, {Name: "total"}, {Name: "used"}, {Name: "free"}}
}

// Schema lists the relations a policy may use.
func Schema() []Relation {
	out := make([]Relation, numRels)
	copy(out, schema[:])
	return out
}

// DescribeSchema is the catalogue as text, one relation a line.
func DescribeSchema() string {
	var b strings.Builder
	for i := range schema {
		r := &schema[i]
		fmt.Fprintf(&b, "%s(", r.Name)
		for j, c := range r.Cols {
			if j > 0 {
				b.WriteString(", ")
			}
			b.WriteString(c.Name)
			if c.Type != Int {
				b.WriteString(" " + c.Type.String())
			}
		}
		fmt.Fprintf(&b, ")  -- %s\n", r.Doc)
	}
	return b.String()
}

// nearest is the candidate with the least edit distance to name, "" when none is close.
func nearest(name string, candidates []string) string {
	best, dist := "", len(name)/2+1
	for _, c := range candidates {
		if d := editDistance(name, c); d < dist {
			best, dist = c, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diag
			if a[i] != b[j] {
				d = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
