package console

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"culvert/cmd/culvert/internal/control"
)

func TestComplete(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "0 export help import interface ip log network ppp radius system user",
		"/":                                "0 export help import interface ip log network ppp radius system user",
		"i":                                "1 import interface ip",
		"/pp":                              "2 ppp",
		"/ppp ":                            "0 aaa active profile secret",
		"/ppp s":                           "1 secret",
		"/ppp/s":                           "1 secret",
		"/ppp secret pr":                   "2 print",
		"/ppp secret print ":               "0 count-only detail show-sensitive terse where",
		"/ppp secret print de":             "2 detail",
		"/ppp secret remove ":              "0 Home user1",
		"/ppp secret set u":                "1 user1",
		"/ppp secret set user1 pro":        "3 profile=",
		"/ppp secret set user1 profile=":   "0 default default-encryption l2tp-profile",
		"/ppp secret set user1 profile=l2": "2 l2tp-profile",
		"/ppp secret set user1 disabled=":  "0 no yes",
		"/ppp secret add serv":             "4 service=",
		"/ppp secret add name=x service=l": "1 l2tp",
		"/ppp secret print where dis":      "3 disabled",
		"/ppp secret set [find pas":        "3 password",
		"/ppp secret set [f":               "1 find",
		"/ip ipsec profile set default dh-group=modp2048,ecp": "3 ecp256 ecp384 ecp521",
		"/interface l2tp-client monitor l":                    "1 l2tp-out1",
		"/interface monitor-traffic l2tp-u":                   "6 l2tp-user1",
		"/ppp; /ip po":                                        "2 pool",
		"/nowhere x":                                          "0",
		"/ppp secret set \"us":                                "0",
		"/ip firewall ":                                       "0 ban settings",
		"/export sh":                                          "2 show-sensitive",
		"/ppp secret print":                                   "5 print",
		"\xff":                                                "0",
	} {
		var out bytes.Buffer
		if err := New(newFake(t)).Complete("", text, &out); err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		var c control.Completion
		if err := json.Unmarshal(out.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, w := range c.Words {
			words = append(words, w.Text)
			if !strings.HasSuffix(text, w.Text[:c.Typed]) {
				t.Errorf("%q: %q does not begin with the end of it", text, w.Text)
			}
		}
		slices.Sort(words)
		got := strings.Join(append([]string{string(rune('0' + c.Typed))}, words...), " ")
		if got != want && !(want == "0" && len(words) == 0) {
			t.Errorf("%q\n got %s\nwant %s", text, got, want)
		}
	}
	var out bytes.Buffer
	if err := New(newFake(t)).Complete("/ppp", "sec", &out); err != nil || !strings.Contains(out.String(), `"secret"`) {
		t.Errorf("%v %s", err, out.String())
	}
}

func FuzzComplete(f *testing.F) {
	f.Add("/ppp secret set user1 profile=l2")
	f.Add(`/ppp secret set [find name="x`)
	src := newFake(f)
	f.Fuzz(func(t *testing.T, text string) {
		var out bytes.Buffer
		New(src).Complete("/ppp", text, &out)
		var c control.Completion
		if out.Len() > 0 && (json.Unmarshal(out.Bytes(), &c) != nil || c.Typed > len(text)) {
			t.Errorf("%q: %s", text, out.String())
		}
	})
}
