package proto

// The scheduler. Texts that are longer than a message come in parts.

// SchedShow asks for what the scheduler knows, as text.
type SchedShow struct {
	What   string // "" is its state for people, "dump" all of it as sched.Load reads it, "policy" the policy in force, else that policy
	Offset uint32 // of the part wanted
}

func (m *SchedShow) code(c *codec) { c.str(&m.What, MaxName).u32(&m.Offset) }

// SchedShowReply answers [SchedShow].
type SchedShowReply struct {
	Name  string // of the policy in force
	Total uint32 // bytes of the whole text
	Text  []byte // from Offset on
}

func (m *SchedShowReply) code(c *codec) {
	c.str(&m.Name, MaxName).u32(&m.Total).bytes(&m.Text, MaxData)
}

// SchedSet puts a policy in force.
type SchedSet struct {
	Name string
	Text []byte // none: the shipped policy of that name
}

func (m *SchedSet) code(c *codec) { c.str(&m.Name, MaxName).bytes(&m.Text, MaxData) }

// SchedSetReply answers [SchedSet] with what became of it.
type SchedSetReply struct{ Text []byte }

func (m *SchedSetReply) code(c *codec) { c.bytes(&m.Text, MaxData) }

// SchedExplain asks where requests would go now and why, or what refuses them. It changes nothing.
type SchedExplain struct{ Requests []byte } // lines of "request", as sched.ExplainFile reads them

func (m *SchedExplain) code(c *codec) { c.bytes(&m.Requests, MaxData) }

// SchedExplainReply answers [SchedExplain].
type SchedExplainReply struct{ Text []byte }

func (m *SchedExplainReply) code(c *codec) { c.bytes(&m.Text, MaxData) }
