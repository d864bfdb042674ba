package nrtest

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// History records calls and returns. It is not safe for concurrent use.
type History struct {
	ops []porcupine.Operation
}

// Call notes that client calls op at time now, and returns the call's number for Return. Until then the op's outcome is unknown.
func (h *History) Call(client int, op Op, now int64) int {
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: op, Call: now, Output: Outcome{}, Return: math.MaxInt64})
	return len(h.ops) - 1
}

// Return notes the response of a call.
func (h *History) Return(call int, value uint32, now int64) {
	h.ops[call].Output = Outcome{value, true}
	h.ops[call].Return = now
}

// Withdraw notes that the op of a call certainly had no effect.
func (h *History) Withdraw(call int) { h.ops[call].ClientId = -1 }

// Len is the number of calls.
func (h *History) Len() int { return len(h.ops) }

// Check has porcupine look for a linearization. If there is none, it saves a picture and says where.
func (h *History) Check(name string) error {
	var ops []porcupine.Operation
	end := int64(0)
	for _, o := range h.ops {
		if o.Return != math.MaxInt64 {
			end = max(end, o.Return)
		}
		end = max(end, o.Call)
	}
	for _, o := range h.ops {
		if o.ClientId < 0 {
			continue
		}
		if o.Return == math.MaxInt64 {
			if o.Input.(Op).Kind == Get || o.Input.(Op).Kind == Sum {
				continue // a read that nobody saw constrains nothing
			}
			o.Return = end + 1 // the picture wants a scale
		}
		ops = append(ops, o)
	}
	model := Model()
	if porcupine.CheckOperationsTimeout(model, ops, 30*time.Second) == porcupine.Ok {
		return nil
	}
	res, info := porcupine.CheckOperationsVerbose(model, ops, 30*time.Second)
	if res == porcupine.Unknown {
		return fmt.Errorf("%s: porcupine found no answer in time for %d ops", name, len(ops))
	}
	path := filepath.Join(os.TempDir(), "nr-"+strings.ReplaceAll(name, " ", "-")+".html")
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		return fmt.Errorf("%s: history is not linearizable, and its picture cannot be saved: %w", name, err)
	}
	return fmt.Errorf("%s: history is not linearizable, see %s", name, path)
}
