package l2tp

import (
	"fmt"
	"log/slog"
	"strings"
)

// String lists the message's AVPs by name, for debugging. What could help to guess a secret shows as ***.
func (m *Message) String() string {
	var b strings.Builder
	b.WriteString(m.Type.String())
	for _, f := range m.fields() {
		if !m.Has(f.avp) {
			continue
		}
		fmt.Fprintf(&b, ", %s ", f.avp)
		v := m.values[f.avp]
		switch f.avp {
		case AVPChallengeResponse, AVPProxyAuthResponse:
			b.WriteString("***")
			continue
		}
		switch avps[f.avp].kind {
		case kindUint:
			fmt.Fprint(&b, m.Uint(f.avp))
		case kindString:
			fmt.Fprintf(&b, "%q", printable(v))
		case kindResult:
			result, code, text := parseResult(v)
			fmt.Fprintf(&b, "%d/%d %q", result, code, text)
		default:
			fmt.Fprintf(&b, "%x", v)
		}
	}
	if m.Fault != nil {
		fmt.Fprintf(&b, " (%s)", m.Fault)
	}
	return b.String()
}

func (m *Message) LogValue() slog.Value { return slog.StringValue(m.String()) }
