package isakmp_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
)

// Another dissector has to read the goldens, and what this package writes, the way this package reads them: the number
// of transforms, their values, identities, and no packet that it calls malformed.
func TestTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("tshark is missing: install the package tshark")
		}
		t.Skip("tshark is not installed")
	}
	var datagrams [][]byte
	var want []string
	for _, c := range isakmptest.Clients() {
		datagrams = append(datagrams, c.Main1(), quick1(t, c))
		want = append(want, mainLine(t, c), quickLine(t, c))
	}
	file := filepath.Join(t.TempDir(), "ike.pcap")
	if err := os.WriteFile(file, pcap(datagrams), 0o600); err != nil {
		t.Fatal(err)
	}
	fields := []string{
		"isakmp.exchangetype", "isakmp.prop.transforms",
		"isakmp.ike.attr.encryption_algorithm", "isakmp.ike.attr.key_length", "isakmp.ike.attr.hash_algorithm",
		"isakmp.ike.attr.group_description", "isakmp.ike.attr.life_duration",
		"isakmp.ipsec.attr.auth_algorithm", "isakmp.ipsec.attr.key_length", "isakmp.ipsec.attr.encap_mode",
		"isakmp.ipsec.attr.group_description", "isakmp.ipsec.attr.life_duration",
		"isakmp.id.data.ipv4_addr", "isakmp.id.port", "isakmp.ike.nat_original_address_ipv4", "isakmp.notify.msgtype",
		"_ws.malformed",
	}
	args := []string{"-r", file, "-n", "-T", "fields", "-E", "separator=|", "-E", "aggregator=,", "-E", "occurrence=a"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command(tshark, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines for %d packets:\n%s", len(lines), len(want), out)
	}
	for i, line := range lines {
		if line != want[i] {
			t.Errorf("packet %d of %s\ntshark  %s\nculvert %s", i+1, isakmptest.Clients()[i/2].Name, line, want[i])
		}
	}
}

// column collects one attribute over all transforms, the way tshark's aggregator shows it.
func column(sa isakmp.SA, typ uint16) string {
	var s []string
	for _, p := range sa.Proposals {
		for _, tr := range p.Transforms {
			for _, a := range tr.Attributes {
				if a.Type == typ {
					v, _ := a.Uint()
					s = append(s, fmt.Sprint(v))
				}
			}
		}
	}
	return strings.Join(s, ",")
}

func transforms(sa isakmp.SA) string {
	var s []string
	for _, p := range sa.Proposals {
		s = append(s, fmt.Sprint(len(p.Transforms)))
	}
	return strings.Join(s, ",")
}

func mainLine(t *testing.T, c isakmptest.Client) string {
	ps, _, err := isakmp.ParsePayloads(isakmp.PayloadSA, c.Main1()[isakmp.HeaderLen:], false)
	if err != nil {
		t.Fatal(err)
	}
	sa, err := isakmp.ParseSA(ps[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{"2", transforms(sa), column(sa, isakmp.P1Encryption), column(sa, isakmp.P1KeyLength),
		column(sa, isakmp.P1Hash), column(sa, isakmp.P1Group), column(sa, isakmp.P1LifeDuration), "", "", "", "", "", "", "", "", "", ""}, "|")
}

func quickLine(t *testing.T, c isakmptest.Client) string {
	sa, err := isakmp.ParseSA(c.QuickSA(isakmp.EncapUDPTransport))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{"32", transforms(sa), "", "", "", "", "", column(sa, isakmp.P2Auth), column(sa, isakmp.P2KeyLength),
		column(sa, isakmp.P2Encap), column(sa, isakmp.P2Group), column(sa, isakmp.P2LifeDuration),
		"10.0.0.7,192.0.2.1", "1701,1701", "10.0.0.7,192.0.2.1", "24578", ""}, "|")
}

// quick1 is a first message of quick mode as it looks before encryption, written by this package.
func quick1(t *testing.T, c isakmptest.Client) []byte {
	t.Helper()
	h, err := isakmp.ParseHeader(c.Main1())
	if err != nil {
		t.Fatal(err)
	}
	client, server := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("192.0.2.1")
	contact := isakmp.Notification{DOI: isakmp.DOIIPsec, Protocol: isakmp.ProtoISAKMP, SPI: make([]byte, 16), Type: isakmp.NotifyInitialContact}
	h.Responder, h.Exchange, h.MessageID, h.Next = isakmp.Cookie{1}, isakmp.Quick, 0x5eed, isakmp.PayloadHash
	b := isakmp.AppendPayloads(h.Append(nil), []isakmp.Payload{
		{Type: isakmp.PayloadHash, Body: make([]byte, 20)},
		{Type: isakmp.PayloadSA, Body: c.QuickSA(isakmp.EncapUDPTransport)},
		{Type: isakmp.PayloadNonce, Body: make([]byte, 16)},
		{Type: isakmp.PayloadID, Body: isakmp.IDFromAddr(client, 17, 1701).Append(nil)},
		{Type: isakmp.PayloadID, Body: isakmp.IDFromAddr(server, 17, 1701).Append(nil)},
		{Type: isakmp.PayloadNATOA, Body: isakmp.AppendNATOA(nil, client)},
		{Type: isakmp.PayloadNATOA, Body: isakmp.AppendNATOA(nil, server)},
		{Type: isakmp.PayloadNotify, Body: contact.Append(nil)},
	})
	isakmp.SetLength(b)
	return b
}

// pcap wraps UDP payloads from and to port 500 into a capture of link type 101, raw IP.
func pcap(datagrams [][]byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint32(b, 65535)
	b = le.AppendUint32(b, 101)
	for i, d := range datagrams {
		n := uint32(len(d) + 28)
		b = le.AppendUint32(b, uint32(i))
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, n)
		b = le.AppendUint32(b, n)
		b = append(b, 0x45, 0, byte(n>>8), byte(n), 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1)
		b = append(b, 500>>8, 500&0xff, 500>>8, 500&0xff, byte((n-20)>>8), byte(n-20), 0, 0)
		b = append(b, d...)
	}
	return b
}
