package model

import "fmt"

// parser is a recursive-descent parser for statements and a Pratt parser (Pratt, "Top down operator
// precedence", POPL 1973) for expressions.
type parser struct {
	lexer
	tok   token
	prev  int // end offset of the token before tok
	depth int
}

// parse turns a policy's text into its statements. The error is always an *Error.
func parse(name, text string) ([]*statement, error) {
	p := &parser{lexer: lexer{name: name, src: text, line: 1}}
	if len(text) > MaxText {
		return nil, p.fail(Pos{1, 1}, "", "policy of %d bytes; the limit is %d", len(text), MaxText)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	var out []*statement
	for p.tok.kind != tokEOF {
		s, err := p.statement()
		if err != nil {
			return nil, err
		}
		if out = append(out, s); len(out) > MaxStatements {
			return nil, p.fail(s.pos, "", "more than %d statements", MaxStatements)
		}
	}
	return out, nil
}

func (p *parser) advance() (err error) {
	p.prev = p.tok.end
	p.tok, err = p.next()
	return err
}

func (p *parser) is(text string) bool {
	return p.tok.text == text && (p.tok.kind == tokKeyword || p.tok.kind == tokOp)
}

// accept consumes the keyword or operator text if it comes next.
func (p *parser) accept(text string) (bool, error) {
	if !p.is(text) {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) expect(text, where string) error {
	if !p.is(text) {
		return p.fail(p.tok.pos, "", "expected %q %s, found %v", text, where, p.tok)
	}
	return p.advance()
}

func (p *parser) ident(what string) (string, Pos, error) {
	if p.tok.kind != tokIdent {
		hint := ""
		if p.tok.kind == tokKeyword {
			hint = fmt.Sprintf("%q is a keyword", p.tok.text)
		}
		return "", p.tok.pos, p.fail(p.tok.pos, hint, "expected %s, found %v", what, p.tok)
	}
	name, pos := p.tok.text, p.tok.pos
	return name, pos, p.advance()
}

func (p *parser) statement() (*statement, error) {
	s := &statement{pos: p.tok.pos, begin: p.tok.off, tier: 1}
	if err := p.expect("create", "at the beginning of a statement"); err != nil {
		return nil, err
	}
	switch {
	case p.is("view"):
		s.view = true
	case p.is("constraint"):
	default:
		return nil, p.fail(p.tok.pos, "", "expected VIEW or CONSTRAINT after CREATE, found %v", p.tok)
	}
	err := p.advance()
	if err != nil {
		return nil, err
	}
	if s.name, s.pos, err = p.ident("a name"); err != nil {
		return nil, err
	}
	if err = p.expect("as", "after the name"); err != nil {
		return nil, err
	}
	if s.sel, err = p.selectExpr(); err != nil {
		return nil, err
	}
	if !s.view {
		if err = p.goal(s); err != nil {
			return nil, err
		}
	}
	s.end = p.prev
	if p.tok.kind == tokEOF {
		return s, nil
	}
	return s, p.expect(";", "after the statement")
}

func (p *parser) goal(s *statement) (err error) {
	switch {
	case p.is("check"):
		s.goal = Check
	case p.is("maximize"):
		s.goal = Maximize
	case p.is("minimize"):
		s.goal = Minimize
	default:
		return p.fail(p.tok.pos, "a constraint ends with CHECK condition, MAXIMIZE number or MINIMIZE number",
			"expected CHECK, MAXIMIZE or MINIMIZE, found %v", p.tok)
	}
	if err = p.advance(); err != nil {
		return err
	}
	if s.expr, err = p.expr(0); err != nil {
		return err
	}
	if !p.is("tier") {
		return nil
	}
	at := p.tok.pos
	if err = p.advance(); err != nil {
		return err
	}
	if s.goal == Check {
		return p.fail(at, "only MAXIMIZE and MINIMIZE have a tier", "a CHECK has no tier: it always holds")
	}
	if p.tok.kind != tokNumber || p.tok.num < 1 || p.tok.num >= MaxTiers {
		return p.fail(p.tok.pos, "", "expected a tier from 1 (first) to %d (last), found %v", MaxTiers-1, p.tok)
	}
	s.tier = int(p.tok.num)
	return p.advance()
}

// enter bounds the recursion; leave undoes it.
func (p *parser) enter() error {
	if p.depth++; p.depth > MaxDepth {
		return p.fail(p.tok.pos, "", "nested deeper than %d levels", MaxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

func (p *parser) selectExpr() (*selectExpr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	s := &selectExpr{pos: p.tok.pos}
	err := p.expect("select", "here")
	if err != nil {
		return nil, err
	}
	if s.star, err = p.accept("*"); err != nil {
		return nil, err
	}
	for more := !s.star; more; {
		var it selectItem
		if it.e, err = p.expr(0); err != nil {
			return nil, err
		}
		if ok, err := p.accept("as"); err != nil {
			return nil, err
		} else if ok {
			if it.alias, _, err = p.ident("a name after AS"); err != nil {
				return nil, err
			}
		}
		s.items = append(s.items, it)
		if more, err = p.accept(","); err != nil {
			return nil, err
		}
	}
	if err = p.expect("from", "after the selected columns"); err != nil {
		return nil, err
	}
	if err = p.tables(s); err != nil {
		return nil, err
	}
	return s, p.clauses(s)
}

func (p *parser) tables(s *selectExpr) error {
	for {
		var t tableRef
		var err error
		if t.name, t.pos, err = p.ident("the name of a relation"); err != nil {
			return err
		}
		t.alias = t.name
		as, err := p.accept("as")
		if err != nil {
			return err
		}
		if as || p.tok.kind == tokIdent {
			if t.alias, _, err = p.ident("an alias"); err != nil {
				return err
			}
		}
		if on, err := p.accept("on"); err != nil {
			return err
		} else if on {
			if len(s.from) == 0 {
				return p.fail(t.pos, "", "ON belongs to a JOIN; the first relation has none")
			}
			if t.on, err = p.expr(0); err != nil {
				return err
			}
		}
		if s.from = append(s.from, t); len(s.from) > MaxTables {
			return p.fail(t.pos, "", "more than %d relations", MaxTables)
		}
		inner, err := p.accept("inner")
		if err != nil {
			return err
		}
		join, err := p.accept("join")
		if err != nil {
			return err
		}
		if inner && !join {
			return p.fail(p.tok.pos, "", "expected JOIN after INNER, found %v", p.tok)
		}
		if !join {
			if join, err = p.accept(","); err != nil {
				return err
			}
		}
		if !join {
			return nil
		}
	}
}

func (p *parser) clauses(s *selectExpr) error {
	if ok, err := p.accept("where"); err != nil {
		return err
	} else if ok {
		if s.where, err = p.expr(0); err != nil {
			return err
		}
	}
	if ok, err := p.accept("group"); err != nil {
		return err
	} else if ok {
		if err = p.expect("by", "after GROUP"); err != nil {
			return err
		}
		if s.groupBy, err = p.list(); err != nil {
			return err
		}
	}
	if ok, err := p.accept("having"); err != nil {
		return err
	} else if ok {
		if len(s.groupBy) == 0 {
			return p.fail(p.tok.pos, "write the condition after WHERE", "HAVING without GROUP BY")
		}
		if s.having, err = p.expr(0); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) list() ([]expr, error) {
	var out []expr
	for {
		e, err := p.expr(0)
		if err != nil {
			return nil, err
		}
		if out = append(out, e); len(out) > 64 {
			return nil, p.fail(p.tok.pos, "", "list of more than 64 expressions")
		}
		if more, err := p.accept(","); err != nil || !more {
			return out, err
		}
	}
}

// Binding powers of the infix operators; 0 is not an operator.
func power(t token) int {
	if t.kind != tokOp && t.kind != tokKeyword {
		return 0
	}
	switch t.text {
	case "or":
		return 1
	case "and":
		return 2
	case "=", "<>", "<", "<=", ">", ">=", "in", "not", "between":
		return 4
	case "+", "-":
		return 5
	case "*", "/", "%":
		return 6
	}
	return 0
}

const (
	powerNot    = 3
	powerNegate = 7
)

// expr parses an expression whose operators bind tighter than min.
func (p *parser) expr(min int) (expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	left, err := p.prefix()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		bp := power(p.tok)
		if bp <= min {
			return left, nil
		}
		// A long chain of operators is as deep a tree as a nested one.
		if n > 256 {
			return nil, p.fail(p.tok.pos, "", "more than 256 operators in a row")
		}
		if left, err = p.infix(left, bp); err != nil {
			return nil, err
		}
	}
}

func (p *parser) infix(left expr, bp int) (expr, error) {
	op := p.tok
	if err := p.advance(); err != nil {
		return nil, err
	}
	switch op.text {
	case "in", "not":
		not := op.text == "not"
		if not {
			if err := p.expect("in", "after NOT"); err != nil {
				return nil, err
			}
		}
		return p.in(left, op.pos, not)
	case "between":
		lo, err := p.expr(4)
		if err != nil {
			return nil, err
		}
		if err = p.expect("and", "between the bounds of BETWEEN"); err != nil {
			return nil, err
		}
		hi, err := p.expr(4)
		if err != nil {
			return nil, err
		}
		return &binary{op.pos, "and", &binary{op.pos, ">=", left, lo}, &binary{op.pos, "<=", left, hi}}, nil
	}
	right, err := p.expr(bp)
	if err != nil {
		return nil, err
	}
	if bp == 4 && power(p.tok) == 4 {
		return nil, p.fail(p.tok.pos, "join comparisons by AND", "comparisons cannot be chained")
	}
	return &binary{op.pos, op.text, left, right}, nil
}

func (p *parser) in(left expr, pos Pos, not bool) (expr, error) {
	e := &in{pos: pos, x: left, not: not}
	err := p.expect("(", "after IN")
	if err != nil {
		return nil, err
	}
	if p.is("select") {
		e.sub, err = p.selectExpr()
	} else {
		e.list, err = p.list()
	}
	if err != nil {
		return nil, err
	}
	return e, p.expect(")", "at the end of the list")
}

func (p *parser) prefix() (expr, error) {
	t := p.tok
	switch {
	case t.kind == tokNumber:
		return &literal{pos: t.pos, typ: Int, num: t.num}, p.advance()
	case t.kind == tokText:
		return &literal{pos: t.pos, typ: Text, text: t.text}, p.advance()
	case p.is("true"), p.is("false"):
		l := &literal{pos: t.pos, typ: Bool}
		if t.text == "true" {
			l.num = 1
		}
		return l, p.advance()
	case p.is("-"), p.is("not"):
		bp := powerNegate
		if t.text == "not" {
			bp = powerNot
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		x, err := p.expr(bp)
		return &unary{t.pos, t.text, x}, err
	case p.is("exists"):
		if err := p.advance(); err != nil {
			return nil, err
		}
		if err := p.expect("(", "after EXISTS"); err != nil {
			return nil, err
		}
		sub, err := p.selectExpr()
		if err != nil {
			return nil, err
		}
		return &exists{t.pos, sub}, p.expect(")", "after the subquery")
	case p.is("("):
		return p.group()
	case t.kind == tokIdent:
		return p.name()
	}
	return nil, p.fail(t.pos, "", "expected an expression, found %v", t)
}

func (p *parser) group() (expr, error) {
	pos := p.tok.pos
	err := p.advance()
	if err != nil {
		return nil, err
	}
	var e expr
	if p.is("select") {
		var sub *selectExpr
		sub, err = p.selectExpr()
		e = &scalar{pos, sub}
	} else {
		e, err = p.expr(0)
	}
	if err != nil {
		return nil, err
	}
	return e, p.expect(")", "to close the parenthesis")
}

// name parses a column, a qualified column or a call.
func (p *parser) name() (expr, error) {
	name, pos, err := p.ident("a name")
	if err != nil {
		return nil, err
	}
	if ok, err := p.accept("."); err != nil {
		return nil, err
	} else if ok {
		col, _, err := p.ident("a column after the dot")
		return &column{pos: pos, table: name, name: col}, err
	}
	if ok, err := p.accept("("); err != nil {
		return nil, err
	} else if !ok {
		return &column{pos: pos, name: name}, nil
	}
	c := &call{pos: pos, name: name}
	if c.distinct, err = p.accept("distinct"); err != nil {
		return nil, err
	}
	if c.star, err = p.accept("*"); err != nil {
		return nil, err
	}
	if !c.star && !p.is(")") {
		if c.args, err = p.list(); err != nil {
			return nil, err
		}
	}
	return c, p.expect(")", "after the arguments")
}
