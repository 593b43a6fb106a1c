package hwcrypto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// flaky is software that misbehaves on demand.
type flaky struct {
	name    string
	only    Cipher        // 0: every suite
	slow    time.Duration // for each packet, by clock
	stolen  time.Duration // for each packet, by others
	clock   *fakeClock
	failAt  int  // from this packet on it fails, 0: never
	rejects bool // from then on it calls authentic packets forged instead
	wrong   bool // it makes wrong ICVs
	packets *int
}

func (f flaky) Name() string { return f.name }

func (f flaky) New(c Config) (Transform, error) {
	if f.only != 0 && c.Suite.Cipher != f.only {
		return nil, ErrUnsupported
	}
	t, err := Software{}.New(c)
	if f.packets == nil {
		f.packets = new(int)
	}
	return &flakyTransform{t, f}, err
}

type flakyTransform struct {
	Transform
	f flaky
}

var errEngine = errors.New("the engine hangs")

func (t *flakyTransform) broken() bool {
	if t.f.clock != nil {
		t.f.clock.wall += t.f.slow + t.f.stolen
		t.f.clock.processor += t.f.slow
	}
	*t.f.packets++
	return t.f.failAt != 0 && *t.f.packets >= t.f.failAt
}

func (t *flakyTransform) Seal(p []byte, high uint32) error {
	if t.broken() && !t.f.rejects {
		return errEngine
	}
	err := t.Transform.Seal(p, high)
	if t.f.wrong && err == nil {
		p[len(p)-1] ^= 1
	}
	return err
}

func (t *flakyTransform) Open(p []byte, high uint32) error {
	if t.broken() {
		if t.f.rejects {
			clear(p[headerLen:])
			return ErrAuth
		}
		return errEngine
	}
	return t.Transform.Open(p, high)
}

var testSuite = Suite{Cipher: AESCBC, KeyBits: 128, Hash: SHA1, ICV: 12}

func TestFailoverLosesNoPacket(t *testing.T) {
	for name, rejects := range map[string]bool{"an engine that hangs": false, "an engine that rejects what is good": true} {
		for _, failAt := range []int{1, 2, 3, 10, 11} {
			t.Run(fmt.Sprint(name, failAt), func(t *testing.T) {
				count := -1 << 30 // the tests and measurements beforehand do not count
				var log bytes.Buffer
				p := Open(Options{
					Mode: KernelFirst, PerPoint: time.Microsecond, Log: slog.New(slog.NewTextHandler(&log, nil)),
					Providers: []Provider{flaky{name: "engine", failAt: failAt, rejects: rejects, packets: &count}},
				})
				if c := p.Choose(testSuite); c.Provider != "engine" {
					t.Fatalf("chosen %+v", c)
				}
				count = 0
				cfg := Config{Suite: testSuite, Keys: testKeys(testSuite)}
				out, err := p.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				in, err := p.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				packet := make([]byte, testSuite.Overhead()+64)
				for seq := range uint64(20) {
					text := fmt.Appendf(nil, "packet %d", seq)
					binary.BigEndian.PutUint32(packet[4:], uint32(seq))
					copy(packet[24:], text)
					if err := out.Seal(packet, seq); err != nil {
						t.Fatalf("packet %d: %v", seq, err)
					}
					if err := in.Open(packet, seq); err != nil || !bytes.HasPrefix(packet[24:], text) {
						t.Fatalf("packet %d: %q, %v", seq, packet[24:40], err)
					}
				}
				if in.Provider() != "software" {
					t.Errorf("ended on %s", in.Provider())
				}
				// New ones do without it, and it is said once for all, without a key in it.
				young, err := p.New(cfg)
				if err != nil || young.Provider() != "software" {
					t.Errorf("a new one is on %s, error %v", young.Provider(), err)
				}
				if n := strings.Count(log.String(), "a crypto provider failed"); n != 1 || strings.Contains(log.String(), fmt.Sprint(cfg.Keys.Enc)) {
					t.Errorf("%d warnings:\n%s", n, &log)
				}
				if c := p.Choices(); len(c) != 1 || c[0].Provider != "software" || !strings.Contains(c[0].Reason, "failed") {
					t.Errorf("choices %+v", c)
				}
				for _, x := range []*Crypter{out, in, young} {
					x.Close()
					if x.Seal(packet, 1) == nil || x.Open(packet, 1) == nil {
						t.Error("works after Close")
					}
				}
			})
		}
	}
}

// TestForgeriesAreNoFailure floods with forged packets: the provider stays.
func TestForgeriesAreNoFailure(t *testing.T) {
	p := Open(Options{Mode: KernelFirst, PerPoint: time.Microsecond, Providers: []Provider{flaky{name: "engine"}}})
	p.Choose(testSuite)
	x, err := p.New(Config{Suite: testSuite, Keys: testKeys(testSuite)})
	if err != nil {
		t.Fatal(err)
	}
	good := make([]byte, testSuite.Overhead()+64)
	if err := x.Seal(good, 5); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxAudits {
		b := bytes.Clone(good)
		b[len(b)-1-i%12] ^= 1
		if err := x.Open(b, 5); !errors.Is(err, ErrAuth) {
			t.Fatalf("forgery: %v", err)
		}
	}
	if err := x.Open(good, 5); err != nil || x.Provider() != "engine" || x.audit != nil {
		t.Errorf("error %v, provider %s", err, x.Provider())
	}
}

// fakeClock goes on when it is read, and when a flaky provider works.
type fakeClock struct{ wall, processor time.Duration }

func (c *fakeClock) stopwatch() stopwatch {
	return stopwatch{
		clock:     func() time.Duration { c.wall += time.Nanosecond; return c.wall },
		processor: func() time.Duration { return c.processor },
	}
}

func TestChoice(t *testing.T) {
	const us = time.Microsecond
	engine := func(slow time.Duration) flaky { return flaky{name: "engine", slow: slow} }
	for name, tc := range map[string]struct {
		mode      Mode
		providers []flaky
		software  time.Duration
		stolen    time.Duration // from software
		want      string
		reason    string
	}{
		"nothing but software":       {Auto, []flaky{}, us, 0, "software", "only provider"},
		"switched off":               {SoftwareOnly, []flaky{engine(us)}, us, 0, "software", "only provider"},
		"slow engine":                {Auto, []flaky{engine(20 * us)}, 10 * us, 0, "software", "no other is 10 % faster"},
		"slow engine, by order":      {KernelFirst, []flaky{engine(20 * us)}, 10 * us, 0, "engine", "configuration"},
		"no faster than software":    {Auto, []flaky{engine(10 * us)}, 10 * us, 0, "software", "MB/s"},
		"a hair's breadth":           {Auto, []flaky{engine(95 * us)}, 100 * us, 0, "software", "no other is 10 % faster"},
		"fast engine":                {Auto, []flaky{engine(5 * us)}, 10 * us, 0, "engine", "faster than software in 5 of 5 rounds"},
		"not this suite":             {KernelFirst, []flaky{{name: "engine", only: AESGCM}}, us, 0, "software", "not in this kernel"},
		"wrong results":              {KernelFirst, []flaky{{name: "engine", wrong: true}}, us, 0, "software", "known answer 0"},
		"breaks while measured":      {KernelFirst, []flaky{{name: "engine", failAt: 300, slow: us}}, us, 0, "software", errEngine.Error()},
		"the faster of two":          {KernelFirst, []flaky{{name: "slow", slow: 100 * us}, {name: "fast", slow: us}}, us, 0, "fast", "slow:"},
		"the first fails its answer": {KernelFirst, []flaky{{name: "bad", wrong: true}, {name: "good", slow: us}}, us, 0, "good", "bad:"},
		// By the clock it would be.
		"faster only because others have the processor": {Auto, []flaky{engine(12 * us)}, 10 * us, 100 * us, "software", "no other"},
	} {
		t.Run(name, func(t *testing.T) {
			clock := &fakeClock{}
			var list []Provider
			for _, f := range tc.providers {
				f.clock = clock
				list = append(list, f)
			}
			if list == nil {
				list = []Provider{}
			}
			p := Open(Options{Mode: tc.mode, PerPoint: 100 * us, Providers: list})
			p.list[len(p.list)-1] = flaky{name: Software{}.Name(), slow: tc.software, stolen: tc.stolen, clock: clock}
			p.watch = clock.stopwatch()
			c := p.Choose(testSuite)
			if c.Provider != tc.want || !strings.Contains(c.Reason, tc.reason) {
				t.Errorf("%s because %s", c.Provider, c.Reason)
			}
			x, err := p.New(Config{Suite: testSuite, Keys: testKeys(testSuite)})
			if err != nil || x.Provider() != tc.want {
				t.Errorf("new: error %v", err)
			}
			x.Close()
		})
	}
	// Nothing measured: software, at once.
	p := Open(Options{Providers: []Provider{engine(0)}})
	if x, err := p.New(Config{Suite: testSuite, Keys: testKeys(testSuite)}); err != nil || x.Provider() != "software" {
		t.Errorf("unmeasured: error %v", err)
	}
	if c := p.Choose(Suite{Cipher: 99}); !strings.Contains(c.Reason, "not supported") {
		t.Errorf("%+v", c)
	}
}

// TestDecide: a provider must be ahead by the margin, for small packets and full ones, in four rounds of five.
func TestDecide(t *testing.T) {
	soft := Result{Provider: Software{}.Name(), Rounds: []Round{{100, 0, 1000}, {100, 0, 1000}, {100, 0, 1000}, {100, 0, 1000}, {100, 0, 1000}}}
	result := func(rounds ...Round) Result { return Result{Provider: "engine", Rounds: rounds} }
	fast, slow := Round{50, 0, 500}, Round{500, 0, 5000}
	for name, c := range map[string]struct {
		result Result
		want   string
	}{
		"always":               {result(fast, fast, fast, fast, fast), "engine"},
		"but once":             {result(fast, slow, fast, fast, fast), "engine"},
		"but twice":            {result(fast, slow, fast, slow, fast), "software"},
		"once by far":          {result(Round{1, 0, 1}, slow, slow, slow, slow), "software"},
		"by less":              {result(Round{92, 0, 920}, Round{92, 0, 920}, Round{92, 0, 920}, Round{92, 0, 920}, Round{92, 0, 920}), "software"},
		"not on small ones":    {result(Round{110, 0, 10}, Round{110, 0, 10}, Round{110, 0, 10}, Round{110, 0, 10}, Round{110, 0, 10}), "software"},
		"only on small ones":   {result(Round{10, 0, 1000}, Round{10, 0, 1000}, Round{10, 0, 1000}, Round{10, 0, 1000}, Round{10, 0, 1000}), "software"},
		"broken in the middle": {Result{Provider: "engine", Rounds: []Round{fast, fast, fast, fast}, Err: errEngine}, "software"},
	} {
		if got := decide(Auto, []Result{c.result, soft}); got.Provider != c.want {
			t.Errorf("%s: %s", name, got.Provider)
		}
	}
	if got := decide(KernelFirst, []Result{result(slow, slow, slow, slow, slow), soft}); got.Provider != "engine" {
		t.Errorf("by configuration: %s", got.Provider)
	}
}

// TestIVs: of one key no two are the same, and those of CBC are no counter.
func TestIVs(t *testing.T) {
	p := Open(Options{Mode: SoftwareOnly})
	for _, s := range []Suite{testSuite, {Cipher: TripleDES, KeyBits: 192, Hash: SHA1, ICV: 12}, {Cipher: AESGCM, KeyBits: 128, ICV: 16}, {Cipher: ChaCha20Poly1305, KeyBits: 256, ICV: 16}} {
		seen := make(map[string]bool)
		for range 2 { // two SAs of one key, as after a restart, must not meet in CBC
			x, err := p.New(Config{Suite: s, Keys: testKeys(s)})
			if err != nil {
				t.Fatal(err)
			}
			for seq := range uint64(1000) {
				packet := make([]byte, s.Overhead()+16)
				if err := x.Seal(packet, seq+1); err != nil {
					t.Fatal(err)
				}
				iv := string(packet[headerLen:][:s.IVLen()])
				if seen[iv] {
					t.Fatalf("%s: IV %x twice", s, iv)
				}
				seen[iv] = true
			}
			if s.AEAD() {
				break
			}
		}
	}
}

// TestSealAll: packets that are sealed together are what they are one by one, whatever their number and lengths, also where
// the upper half of the sequence number changes on the way or the engine fails in their midst.
func TestSealAll(t *testing.T) {
	for i, s := range Suites() {
		count := -1 << 30
		o := Options{Mode: SoftwareOnly}
		if i%2 == 1 {
			o = Options{Mode: KernelFirst, PerPoint: time.Microsecond, Providers: []Provider{flaky{name: "engine", failAt: 40, packets: &count}}}
		}
		p := Open(o)
		p.Choose(s)
		count = 0
		cfg := Config{Suite: s, Keys: testKeys(s), ESN: true}
		one, err := Software{}.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		seq := uint64(1<<32 - 60)
		for n := range 14 {
			var packets, texts [][]byte
			for i := range n {
				b := make([]byte, s.Overhead()+textLen(s, 1+(i*397+n*64)%1500))
				binary.BigEndian.PutUint32(b[4:], uint32(seq)+uint32(i))
				text := b[headerLen+s.IVLen() : len(b)-s.ICV]
				for j := range text {
					text[j] = byte(i + j)
				}
				packets, texts = append(packets, b), append(texts, bytes.Clone(text))
			}
			if done, err := x.SealAll(packets, seq); done != n || err != nil {
				t.Fatalf("%s: %d of %d, %v", s, done, n, err)
			}
			for i, b := range packets {
				high := uint32((seq + uint64(i)) >> 32)
				if err := one.Open(b, high); err != nil {
					t.Fatalf("%s: packet %d of %d: %v", s, i, n, err)
				}
				if text := b[headerLen+s.IVLen() : len(b)-s.ICV]; !bytes.Equal(text, texts[i]) {
					t.Fatalf("%s: packet %d of %d has another text", s, i, n)
				}
			}
			seq += uint64(n)
		}
		short := [][]byte{make([]byte, s.Overhead()+16), make([]byte, s.Overhead()+1), make([]byte, s.Overhead()+16)}
		if done, err := x.SealAll(short, 1); done > 1 || !errors.Is(err, ErrPacket) && s.Block() > 1 {
			t.Errorf("%s: a packet of impossible length: %d, %v", s, done, err)
		}
		x.Close()
		if done, err := x.SealAll([][]byte{make([]byte, s.Overhead()+16)}, 1); done != 0 || err == nil {
			t.Errorf("%s: sealed with a closed Crypter", s)
		}
		if i%2 == 1 && count < 40 {
			t.Errorf("%s: the engine was asked for %d packets", s, count)
		}
	}
}

func TestCrypterAllocatesNothing(t *testing.T) {
	p := Open(Options{Mode: SoftwareOnly})
	for _, s := range Suites() {
		x, err := p.New(Config{Suite: s, Keys: testKeys(s)})
		if err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, s.Overhead()+1024)
		several := [][]byte{packet, bytes.Clone(packet), bytes.Clone(packet), bytes.Clone(packet), bytes.Clone(packet)}
		if n := testing.AllocsPerRun(50, func() {
			if _, err := x.SealAll(several, 1); err != nil {
				t.Fatal(err)
			}
			if x.Seal(packet, 1) != nil || x.Open(packet, 1) != nil {
				t.Fatal("does not open what it sealed")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
}
