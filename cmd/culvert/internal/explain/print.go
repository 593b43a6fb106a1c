package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// NoClient says that nothing is known of whoever was asked for.
type NoClient struct{ Who string }

func (e *NoClient) Error() string {
	return fmt.Sprintf("nothing is known of %q: no message of its came here, or too long ago: check that the client calls this server's address and that UDP 500 and 4500 reach it", e.Who)
}

type jsonClient struct {
	Address string      `json:"address"`
	State   State       `json:"state"`
	Cause   string      `json:"cause"`
	Events  []jsonEvent `json:"events"`
}

type jsonEvent struct {
	Time    time.Time         `json:"time"`
	Level   string            `json:"level"`
	Topic   string            `json:"topic"`
	Message string            `json:"message"`
	Fields  map[string]string `json:"fields,omitempty"`
}

// Print writes the timeline of an address or a user, and what it comes to. escape makes what came from the network fit
// for a terminal. The error is a *NoClient if nothing is known.
func (b *Book) Print(w io.Writer, who string, asJSON bool, escape func(string) string) error {
	found := b.find(who)
	if len(found) == 0 {
		return &NoClient{who}
	}
	if asJSON {
		out := make([]jsonClient, 0, len(found))
		for _, h := range found {
			c := jsonClient{Address: h.addr.String(), Events: []jsonEvent{}}
			c.State, c.Cause = judge(h.events)
			for _, e := range h.events {
				fields := map[string]string{}
				for _, f := range e.Fields {
					fields[f.Key] = f.Value
				}
				c.Events = append(c.Events, jsonEvent{e.Time, strings.ToLower(e.Level.String()), e.Topic, e.Message, fields})
			}
			out = append(out, c)
		}
		return json.NewEncoder(w).Encode(out)
	}
	for i, h := range found {
		var s strings.Builder
		if i > 0 {
			s.WriteByte('\n')
		}
		for _, e := range h.events {
			mark := " "
			if e.Level > 0 { // above info
				mark = "!"
			}
			fmt.Fprintf(&s, "%s %s %-6s %s", e.Time.Format(time.DateTime), mark, e.Topic, escape(e.Message))
			for _, f := range e.Fields {
				v := f.Value
				if v == "" || strings.ContainsAny(v, " \"=") {
					v = strconv.Quote(v)
				}
				fmt.Fprintf(&s, " %s=%s", f.Key, escape(v))
			}
			s.WriteByte('\n')
		}
		state, cause := judge(h.events)
		fmt.Fprintf(&s, "%s: %s: %s\n", h.addr, state, escape(cause))
		if _, err := io.WriteString(w, s.String()); err != nil {
			return err
		}
	}
	return nil
}
