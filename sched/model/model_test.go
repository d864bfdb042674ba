package model

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestShipped compiles every policy that ships and wants all of it certified.
func TestShipped(t *testing.T) {
	for _, n := range Shipped() {
		text, err := ShippedText(n)
		require.NoError(t, err)
		p, err := Compile(n, text)
		require.NoError(t, err)
		require.True(t, p.Certified(), "%s", p.Describe())
	}
	_, err := ShippedText("nonesuch")
	require.ErrorContains(t, err, "locality, capacity-only")
}

// TestErrors goes through faulty policies: each error has the line and column of the fault and says what would be right.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "p:1:1: the policy is empty; a policy without goals is"},
		{"SELECT 1", `p:1:1: expected "create" at the beginning of a statement, found "select"`},
		{"CREATE TABLE t", `p:1:8: expected VIEW or CONSTRAINT after CREATE, found "table"`},
		{"CREATE CONSTRAINT select AS", `p:1:19: expected a name, found "select"; "select" is a keyword`},
		{"CREATE CONSTRAINT a AS SELECT * FORM load", `p:1:33: expected "from" after the selected columns, found "form"`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load", "p:1:42: expected CHECK, MAXIMIZE or MINIMIZE, found the end of the text; a constraint ends with"},
		{"CREATE CONSTRAINT a AS\nSELECT * FROM lod CHECK true", `p:2:15: unknown relation "lod"; did you mean "load"?`},
		{"CREATE CONSTRAINT a AS\nSELECT * FROM zzzzzzzz CHECK true", `p:2:15: unknown relation "zzzzzzzz"; relations are dkernels,`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK core <= 1", `p:1:49: unknown column "core"; did you mean "cores"?`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK x.cores <= 1", `p:1:49: relation "x" is not in FROM; name it in FROM or JOIN`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load JOIN cores CHECK dkernel = 1", `column "dkernel" is ambiguous; write load.dkernel or cores.dkernel`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK cores", "p:1:49: CHECK wants BOOLEAN, this is INTEGER; write a condition"},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending MINIMIZE shape", "MINIMIZE wants INTEGER, this is TEXT"},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending CHECK shape = 'pak'", `column "shape" is never 'pak'; its values are 'pack', 'spread', 'apart'`},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending CHECK shape = 3", "TEXT compared to INTEGER; compare values of one type"},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending CHECK pinned < true", "BOOLEAN < BOOLEAN; only INTEGER has an order"},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending CHECK NOT cores", "NOT wants BOOLEAN, this is INTEGER"},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending CHECK cores AND pinned", "AND wants BOOLEAN, this is INTEGER"},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending WHERE cores CHECK true", "WHERE wants BOOLEAN"},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending WHERE max(cores) > 1 CHECK true", `aggregate "max" is not allowed here`},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending MINIMIZE max(max(cores))", `aggregate "max" is not allowed here`},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending GROUP BY process CHECK cores > 1", `column "cores" is not grouped by; add it to GROUP BY`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE max(cores) + slices", `column "slices" is not grouped by`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE mean(cores)", `unknown function "mean"; functions are`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE cores TIER 8", "expected a tier from 1 (first) to 7 (last)"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE cores TIER x", "expected a tier from 1 (first) to 7 (last)"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK cores > 1 TIER 1", "a CHECK has no tier"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE cores / 0", "division by zero"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE 99999999999999999999", "number 99999999999999999999 is too large; the largest number is 1048576"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE 1x", "malformed number"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE cores # 1", "unexpected character '#'"},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending CHECK shape = 'pack", "text without an end"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK 1 < cores < 3", "comparisons cannot be chained; join comparisons by AND"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK cores IN (SELECT * FROM cores)", "IN wants a subquery with one column"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK cores = (SELECT total FROM cores)", "a subquery used as a value has one value"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK true; CREATE CONSTRAINT a AS SELECT * FROM load CHECK true", `p:1:73: a second "a"; the first is at 1:19`},
		{"CREATE CONSTRAINT alive AS SELECT * FROM load CHECK true", `"alive" is a physical constraint`},
		{"CREATE CONSTRAINT a AS SELECT * FROM cores CHECK free > 0", `"a" does not depend on the placement; select from pending, held or load`},
		{"CREATE CONSTRAINT a AS SELECT * FROM pending CHECK false", `"a" can never be satisfied`},
		{"CREATE VIEW load AS SELECT * FROM cores; CREATE CONSTRAINT a AS SELECT * FROM load CHECK true", `"load" is already a relation`},
		{"CREATE VIEW v AS SELECT free + 1 FROM cores; CREATE CONSTRAINT a AS SELECT * FROM load CHECK true", "column 1 of the view has no name; write AS name after it"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load, load CHECK true", `two relations are called "load"; write an alias`},
		{"CREATE CONSTRAINT a AS SELECT * FROM load HAVING true CHECK true", "HAVING without GROUP BY"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load CHECK " + strings.Repeat("(", 100), "nested deeper than 48 levels"},
		{"CREATE CONSTRAINT a AS SELECT * FROM load MINIMIZE 1" + strings.Repeat("+1", 1000), "more than 256 operators in a row"},
	} {
		_, err := Compile("p", c.text)
		require.Error(t, err, c.text)
		require.Contains(t, err.Error(), c.want, c.text)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Positive(t, e.Pos.Line)
		require.Positive(t, e.Pos.Col)
	}
}

// TestRecognition pins which statements are certified and which are not, and why not.
func TestRecognition(t *testing.T) {
	for _, c := range []struct {
		text string
		kind Kind
		why  string
	}{
		{"SELECT * FROM pending JOIN unallocated CHECK capacity_constraint(controllable__dkernel, unallocated.dkernel, pending.cores, unallocated.cores)", Load, ""},
		{"SELECT * FROM load CHECK 2 * cores + slices < 10", Load, ""},
		{"SELECT * FROM load CHECK cores >= 2", Loose, "a CHECK that more load can repair, or that is not linear"},
		{"SELECT * FROM load MINIMIZE cores % 2", Load, "not a quadratic function with conditions"},
		{"SELECT * FROM load MINIMIZE 3 * (cores > 4 AND slices > 2)", Load, ""},
		{"SELECT * FROM load MAXIMIZE min(total_cores - cores)", Extreme, ""},
		{"SELECT * FROM load MINIMIZE max(cores) - min(cores)", Loose, "this aggregate of load"},
		{"SELECT process FROM held GROUP BY process MINIMIZE count(*)", Cell, ""},
		{"SELECT process FROM pending GROUP BY process MINIMIZE count(DISTINCT controllable__dkernel)", Span, ""},
		{"SELECT process FROM pending GROUP BY process CHECK all_equal(controllable__dkernel)", Equal, ""},
		{"SELECT * FROM pending MINIMIZE id", Loose, "it tells rows of one request apart by pending.id"},
		{"SELECT * FROM pending JOIN near ON near.request = pending.request AND near.dkernel = controllable__dkernel MAXIMIZE 1", Row, ""},
	} {
		p, err := Compile("p", "CREATE CONSTRAINT c AS "+c.text)
		require.NoError(t, err, c.text)
		a := p.Atoms[len(p.Atoms)-1]
		require.Equal(t, c.kind, a.Kind, c.text)
		require.Equal(t, c.why, a.Why, c.text)
	}
}

// FuzzCompile: no text makes the compiler panic, and what it accepts can be evaluated.
func FuzzCompile(f *testing.F) {
	for _, n := range append(Shipped(), physical) {
		text, err := ShippedText(n)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add("CREATE VIEW v AS SELECT process AS p, count(DISTINCT controllable__dkernel) AS n FROM pending GROUP BY process HAVING sum(cores) > 0;\n" +
		"CREATE CONSTRAINT c AS SELECT * FROM v JOIN held ON held.process = v.p WHERE n BETWEEN 1 AND 3 CHECK (SELECT max(cores) FROM near, load) >= 0 OR NOT EXISTS (SELECT * FROM pins)")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Compile("fuzz", text)
		if err != nil {
			if e, ok := err.(*Error); !ok || e.Pos.Line < 1 || e.Pos.Col < 1 {
				t.Fatalf("not an error with a position: %v", err)
			}
			return
		}
		in := &Instance{Nodes: []Node{{ID: 1, Cores: 4, Slices: 4, Alive: true}, {ID: 2, Cores: 4, Slices: 4, Alive: true}},
			Items: []Item{{Process: 1, Cores: 2, Slices: 1, Pins: []int64{1, 2}}, {Process: 2, Cores: 1, Near: []int64{2}}}}
		if err := in.Prepare(p); err != nil {
			t.Fatal(err)
		}
		p.Evaluate(in, []Part{{0, 0, 1, 1}, {0, 1, 1, 0}, {1, 1, 1, 0}})
		_ = p.Describe()
	})
}
