package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

// What `culvert crypto` prints on boards with a crypto engine, QEMU's virtio-crypto: every way there is to do the suites,
// with its driver, priority and place, how fast it is or what is wrong with it, and what is taken and why.
func TestBoardCrypto(t *testing.T) {
	for _, board := range []string{"qemu-arm64", "qemu-mips"} {
		t.Run(board, func(t *testing.T) {
			lab.RunOn(t, board, boardCrypto,
				lab.Modules("virtio_crypto", "crypto_user", "xfrm_user", "esp4", "authenc", "echainiv", "seqiv", "cbc", "ctr", "gcm", "ghash_generic?", "drbg",
					"sha512_generic?", "af_alg", "algif_skcipher", "algif_aead", "algif_hash"),
				lab.QEMUArgs("-object", "cryptodev-backend-builtin,id=crypto0", "-device", "virtio-crypto-pci,cryptodev=crypto0"), lab.Timeout(3*time.Minute))
		})
	}
}

func boardCrypto(t *testing.T) {
	var out, wrong bytes.Buffer
	if code := runCrypto(t.Context(), &invocation{config: defaultConfig, json: true, stdout: &out, stderr: &wrong}); code != exitDone || wrong.Len() > 0 {
		t.Fatalf("exit status %d: %s", code, &wrong)
	}
	var r cryptoReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := r.print(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &table)
	if r.Offer == "" || r.OfferReason == "" || len(r.InKernel) == 0 || len(r.InUserspace) != 6 {
		t.Errorf("%+v", r)
	}
	engines := 0
	for _, s := range append(r.InKernel, r.InUserspace...) {
		chosen := 0
		for _, row := range s.Rows {
			if row.chosen(s.Choice) {
				chosen++
				if row.SelfTest != "passed" || len(row.MBps) != len(r.Sizes) {
					t.Errorf("%s is taken: %+v", s.Algorithm, row)
				}
			}
			if row.On == "engine" {
				engines++
				if !strings.Contains(row.Driver, "virtio_crypto") || !row.Async || row.Priority == 0 {
					t.Errorf("%+v", row)
				}
			}
			for i, v := range row.MBps {
				if v <= 0 {
					t.Errorf("%s: %d octets: %v", row.Driver, r.Sizes[i], v)
				}
			}
		}
		if chosen != 1 || s.Reason == "" {
			t.Errorf("%+v", s)
		}
	}
	if engines < 4 {
		t.Errorf("the engine is in only %d rows", engines)
	}
}
