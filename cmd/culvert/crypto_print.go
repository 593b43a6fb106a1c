package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"culvert/cmd/culvert/internal/config"
	"culvert/hwcrypto"
	"culvert/hwcrypto/engine"
	"culvert/ipsec"
	"culvert/ipsec/esp"
)

// cryptoReport is what `culvert crypto` prints.
type cryptoReport struct {
	Kernel  string   `json:"kernel"`
	Setting string   `json:"crypto-engine"`
	Sizes   []int    `json:"sizes"`
	Notes   []string `json:"notes,omitempty"` // what could not be done
	// Of the kernel's ESP, and of the one in userspace.
	InKernel    []cryptoSuite `json:"kernel-esp"`
	InUserspace []cryptoSuite `json:"userspace-esp"`
	// What a call offers first whose proposal is not configured, and why.
	Offer       string `json:"call-offers-first"`
	OfferReason string `json:"call-offers-first-reason"`
}

// cryptoSuite is one algorithm.
type cryptoSuite struct {
	Algorithm string      `json:"algorithm"`
	Choice    string      `json:"choice"`
	Reason    string      `json:"reason"`
	Rows      []cryptoRow `json:"candidates"`
}

// cryptoRow is one way to do it.
type cryptoRow struct {
	Driver   string    `json:"driver"`
	Priority int       `json:"priority"`
	Async    bool      `json:"async"`
	On       string    `json:"on"`             // "engine" or "cpu"
	MBps     []float64 `json:"MBps,omitempty"` // of payload, for each of the sizes; none if not measured
	SelfTest string    `json:"self-test"`      // "passed", "not run", or what went wrong
}

// runCrypto measures and prints, and leaves the kernel as it was.
func runCrypto(ctx context.Context, c *invocation) int {
	suites, setting := config.DefaultProposal().Suites, engine.Auto
	r := cryptoReport{Sizes: hwcrypto.Sizes[:]}
	cfg, err := config.Load(c.config)
	switch {
	case err == nil:
		setting = cfg.System.CryptoEngine
		if s := cryptoSuites(cfg); len(s) > 0 {
			suites = s
		}
	case errors.Is(err, os.ErrNotExist) && c.config == defaultConfig:
		r.Notes = append(r.Notes, fmt.Sprintf("there is no %s: these are the suites that clients are offered by default", c.config))
	default:
		fmt.Fprintln(c.stderr, err)
		return exitFailed
	}
	r.Setting = setting
	var uts unix.Utsname
	unix.Uname(&uts)
	r.Kernel = unix.ByteSliceToString(uts.Release[:])

	o := engineOptions(setting, suites, slog.New(slog.DiscardHandler))
	o.All, o.Afresh = true, c.measure
	e, err := engine.Open(ctx, o)
	r.note("the kernel's ESP", err)
	for _, k := range e.Choices() {
		s := cryptoSuite{Algorithm: k.Suite.KernelName(), Choice: k.Driver, Reason: k.Reason}
		for _, x := range k.Results {
			row := cryptoRow{Driver: x.Driver, Priority: x.Priority, Async: x.Async, On: where(x.Engine), SelfTest: cmp.Or(x.Failure, "not run")}
			if x.Failure == "" && x.Each[0] > 0 {
				row.SelfTest = "passed"
				for i := range x.Each {
					row.MBps = append(row.MBps, x.MBps(i))
				}
			}
			s.Rows = append(s.Rows, row)
		}
		r.InKernel = append(r.InKernel, s)
	}
	r.note("restoring the kernel's priorities", e.Close())

	p := hwcrypto.Open(providerOptions(setting))
	for _, suite := range suites {
		suite, ok := esp.Suite(suite)
		if !ok || ctx.Err() != nil {
			continue
		}
		k := p.Choose(suite)
		if k.Results == nil {
			k.Results = p.Measure(suite) // there is nothing to choose from, but something to see
		}
		s := cryptoSuite{Algorithm: suite.String(), Choice: k.Provider, Reason: k.Reason}
		for _, x := range k.Results {
			row := cryptoRow{Driver: x.Provider, Priority: x.Driver.Priority, Async: x.Driver.Async, On: where(x.Driver.Engine), SelfTest: "passed"}
			if x.Driver.Driver != "" {
				row.Driver += ": " + x.Driver.Driver
			}
			switch {
			case errors.Is(x.Err, hwcrypto.ErrUnsupported):
				row.SelfTest = "not in this kernel"
			case x.Err != nil:
				row.SelfTest = x.Err.Error()
			default:
				for i := range x.Seal {
					row.MBps = append(row.MBps, x.MBps(i))
				}
			}
			s.Rows = append(s.Rows, row)
		}
		r.InUserspace = append(r.InUserspace, s)
	}
	offer, why := callOffer(r.speed, kernelHasGCM())
	r.Offer, r.OfferReason = offer[0].String(), why

	var out bytes.Buffer
	if c.json {
		enc := json.NewEncoder(&out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.print(&out)
	}
	if err == nil {
		_, err = out.WriteTo(c.stdout)
	}
	if err != nil {
		fmt.Fprintln(c.stderr, err)
		return exitFailed
	}
	return exitDone
}

// providerOptions are `[system] crypto-engine` for ciphers outside of the kernel's ESP.
func providerOptions(setting string) hwcrypto.Options {
	switch setting {
	case engine.Auto:
		return hwcrypto.Options{}
	case engine.Software:
		return hwcrypto.Options{Mode: hwcrypto.SoftwareOnly}
	case engine.Hardware:
		return hwcrypto.Options{Mode: hwcrypto.KernelFirst}
	}
	return hwcrypto.Options{Driver: setting}
}

// speed is what was measured of full packets: of the kernel's ESP, which the daemon prefers, if it was.
func (r *cryptoReport) speed(s ipsec.Suite) float64 {
	h, ok := esp.Suite(s)
	if !ok {
		return 0
	}
	for _, part := range []struct {
		suites []cryptoSuite
		name   string
	}{{r.InKernel, h.KernelName()}, {r.InUserspace, h.String()}} {
		for _, s := range part.suites {
			for _, row := range s.Rows {
				if s.Algorithm == part.name && row.chosen(s.Choice) && len(row.MBps) > fullPacket {
					return row.MBps[fullPacket]
				}
			}
		}
	}
	return 0
}

// chosen says whether a row is the one that was taken.
func (row *cryptoRow) chosen(choice string) bool {
	return row.Driver == choice || strings.HasPrefix(row.Driver, choice+": ")
}

func where(engine bool) string {
	if engine {
		return "engine"
	}
	return "cpu"
}

// note keeps an error in words, each of its parts once: every suite meets the same obstacle.
func (r *cryptoReport) note(what string, err error) {
	if err == nil {
		return
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		r.Notes = append(r.Notes, what+": not measured, that takes root (or CAP_NET_ADMIN and CAP_SYS_ADMIN)")
		return
	}
	seen := make(map[string]bool)
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); !seen[line] {
			seen[line] = true
			r.Notes = append(r.Notes, what+": "+line)
		}
	}
}

func (r *cryptoReport) print(w *bytes.Buffer) error {
	fmt.Fprintf(w, "Linux %s, crypto-engine = %q\n", r.Kernel, r.Setting)
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	for _, part := range []struct {
		title  string
		suites []cryptoSuite
	}{{"ESP in the kernel, through both SAs of a tunnel", r.InKernel}, {"ESP in userspace, sealed and opened", r.InUserspace}} {
		fmt.Fprintf(w, "\n%s; MB/s at %d, %d and %d octets\n", part.title, r.Sizes[0], r.Sizes[1], r.Sizes[2])
		// One table, so that all columns are alike; the algorithms' names go between its lines.
		var table bytes.Buffer
		t := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "  DRIVER\tPRIORITY\tASYNC\tON\t64\t256\t1400\tSELF-TEST")
		for _, s := range part.suites {
			for _, row := range s.Rows {
				mark, async, speeds := " ", "no", "-\t-\t-"
				if row.chosen(s.Choice) {
					mark = "*"
				}
				if row.Async {
					async = "yes"
				}
				if len(row.MBps) == 3 {
					speeds = fmt.Sprintf("%.1f\t%.1f\t%.1f", row.MBps[0], row.MBps[1], row.MBps[2])
				}
				fmt.Fprintf(t, "%s %s\t%d\t%s\t%s\t%s\t%s\n", mark, row.Driver, row.Priority, async, row.On, speeds, row.SelfTest)
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		line := func() {
			b, _ := table.ReadBytes('\n')
			w.Write(b)
		}
		line()
		for _, s := range part.suites {
			fmt.Fprintln(w, s.Algorithm)
			for range s.Rows {
				line()
			}
		}
		for _, s := range part.suites {
			// The table has the measurements: of the reason only what they led to.
			why, _, _ := strings.Cut(s.Reason, "; ")
			if len(s.Rows) == 0 {
				why = s.Reason
			}
			fmt.Fprintf(w, "* %s: %s, because %s\n", s.Algorithm, cmp.Or(s.Choice, "none"), why)
		}
	}
	fmt.Fprintf(w, "\nA call without a proposal of its own offers %s first: %s\n", r.Offer, r.OfferReason)
	return nil
}
