package ppp

import (
	"strings"
	"testing"
	"time"
)

// rfcTable is section 4.1 of RFC 1661 as it is printed.
const rfcTable = `
      |    0         1         2         3         4         5
 Up   |    2     irc,scr/6     -         -         -         -
 Down |    -         -         0       tls/1       0         1
 Open |  tls/1       1     irc,scr/6     3r        5r        5r
 Close|    0       tlf/0       2         2         4         4
  TO+ |    -         -         -         -       str/4     str/5
  TO- |    -         -         -         -       tlf/2     tlf/3
 RCR+ |    -         -       sta/2 irc,scr,sca/8   4         5
 RCR- |    -         -       sta/2 irc,scr,scn/6   4         5
 RCA  |    -         -       sta/2     sta/3       4         5
 RCN  |    -         -       sta/2     sta/3       4         5
 RTR  |    -         -       sta/2     sta/3     sta/4     sta/5
 RTA  |    -         -         2         3       tlf/2     tlf/3
 RUC  |    -         -       scj/2     scj/3     scj/4     scj/5
 RXJ+ |    -         -         2         3         4         5
 RXJ- |    -         -       tlf/2     tlf/3     tlf/2     tlf/3
 RXR  |    -         -         2         3         4         5
      |    6         7         8           9
 Up   |    -         -         -           -
 Down |    1         1         1         tld/1
 Open |    6         7         8           9r
 Close|irc,str/4 irc,str/4 irc,str/4 tld,irc,str/4
  TO+ |  scr/6     scr/6     scr/8         -
  TO- | tlf/3p    tlf/3p    tlf/3p         -
 RCR+ |  sca/8   sca,tlu/9   sca/8   tld,scr,sca/8
 RCR- |  scn/6     scn/7     scn/6   tld,scr,scn/6
 RCA  |  irc/7     scr/6x  irc,tlu/9   tld,scr/6x
 RCN  |irc,scr/6   scr/6x  irc,scr/8   tld,scr/6x
 RTR  |  sta/6     sta/6     sta/6   tld,zrc,sta/5
 RTA  |    6         6         8       tld,scr/6
 RUC  |  scj/6     scj/7     scj/8       scj/9
 RXJ+ |    6         6         8           9
 RXJ- |  tlf/3     tlf/3     tlf/3   tld,irc,str/5
 RXR  |    6         7         8         ser/9
`

var eventNames = map[string]event{
	"Up": evUp, "Down": evDown, "Open": evOpen, "Close": evClose, "TO+": evTOp, "TO-": evTOm, "RCR+": evRCRp, "RCR-": evRCRm,
	"RCA": evRCA, "RCN": evRCN, "RTR": evRTR, "RTA": evRTA, "RUC": evRUC, "RXJ+": evRXJp, "RXJ-": evRXJm, "RXR": evRXR,
}

var actionNames = map[action]string{
	tld: "tld", scr: "scr", str: "str", sca: "sca", scn: "scn", sta: "sta", scj: "scj", ser: "ser", tlu: "tlu", tls: "tls", tlf: "tlf",
}

// recorder writes down what an automaton does. irc and zrc are seen in the counter.
type recorder struct{ did []string }

func (r *recorder) perform(a action) { r.did = append(r.did, actionNames[a]) }
func (r *recorder) layer(a action)   { r.did = append(r.did, actionNames[a]) }

func TestAutomatonCellByCell(t *testing.T) {
	now := time.Unix(1000, 0)
	first, checked := 0, 0
	for line := range strings.Lines(rfcTable) {
		name, cells, ok := strings.Cut(line, "|")
		if !ok {
			continue
		}
		name = strings.TrimSpace(name)
		if name == "" {
			first = int(strings.Fields(cells)[0][0] - '0')
			continue
		}
		e, ok := eventNames[name]
		if !ok {
			t.Fatalf("event %q", name)
		}
		for i, want := range strings.Fields(cells) {
			state := State(first + i)
			checked++
			rec := &recorder{}
			a := automaton{state: state, owner: rec, period: time.Second, maxConfigure: 77, maxTerminate: 55, counter: 9, timer: now.Add(time.Hour)}
			a.handle(now, e)

			next, actions := state, ""
			if want != "-" {
				var n string
				actions, n, ok = strings.Cut(want, "/")
				if !ok {
					actions, n = "", want
				}
				next = State(n[0] - '0')
			}
			var expect []string
			counter := 9
			for f := range strings.SplitSeq(actions, ",") {
				switch f {
				case "":
				case "irc":
					if counter = 77; strings.Contains(actions, "str") {
						counter = 55
					}
				case "zrc":
					counter = 0
				case "scr", "str":
					counter--
					expect = append(expect, f)
				default:
					expect = append(expect, f)
				}
			}
			if a.state != next || strings.Join(rec.did, ",") != strings.Join(expect, ",") || a.counter != counter {
				t.Errorf("%s in %v: got %v/%d counter %d, RFC 1661 has %s", name, state, rec.did, a.state, a.counter, want)
			}
			timed := a.state >= Closing && a.state <= AckSent
			if want != "-" && a.deadline().IsZero() == timed {
				t.Errorf("%s in %v: timer running: %v, should be: %v", name, state, !a.deadline().IsZero(), timed)
			}
		}
	}
	if checked != int(numEvents)*int(numStates) {
		t.Errorf("%d cells checked, want %d", checked, int(numEvents)*int(numStates))
	}
}

func TestAutomatonFootnotes(t *testing.T) {
	now := time.Unix(1000, 0)
	rec := &recorder{}
	a := automaton{state: Opened, owner: rec, restartable: true, period: time.Second, maxConfigure: 3}
	a.handle(now, evOpen)
	if a.state != ReqSent || strings.Join(rec.did, ",") != "tld,scr" {
		t.Errorf("restart option: %v %v", a.state, rec.did)
	}
	rec = &recorder{}
	a = automaton{state: ReqSent, owner: rec, passive: true, period: time.Second}
	a.handle(now, evTOm)
	if a.state != Stopped || len(rec.did) != 0 {
		t.Errorf("passive option: %v %v", a.state, rec.did)
	}
	a.maxConfigure = 3
	a.handle(now, evRCRp)
	if a.state != AckSent {
		t.Errorf("a passive automaton ignores a peer that wakes up: %v", a.state)
	}
}

func TestAutomatonTimer(t *testing.T) {
	now := time.Unix(1000, 0)
	rec := &recorder{}
	a := automaton{state: Starting, owner: rec, period: 3 * time.Second, maxConfigure: 10, maxTerminate: 2}
	a.handle(now, evUp)
	start := now
	for !a.deadline().IsZero() {
		a.tick(a.deadline().Add(-1)) // too early: nothing
		now = a.deadline()
		a.tick(now)
	}
	if got := strings.Count(strings.Join(rec.did, ","), "scr"); got != 10 {
		t.Errorf("%d Configure-Requests, want 10", got)
	}
	if d := now.Sub(start); d != 26*time.Second || a.state != Stopped {
		t.Errorf("gave up in %v after %v", a.state, d)
	}
}
