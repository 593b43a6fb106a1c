# Culvert: `make help` lists what there is. Debian 12 with Go is enough; `make deps` installs the rest.

GO      ?= go
BUILD   ?= build
LDFLAGS  = -s -w -X main.version=$(VERSION)
# What the compiler inlines in a router's binary; said there, because Buildroot and OpenWrt build with it as well.
GCFLAGS := $(shell grep '^-' cmd/culvert/gcflags)
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
export CGO_ENABLED ?= 0

# name:GOOS-GOARCH variables of every board family; MIPS is soft-float because OpenWrt's kernels have no FPU emulator.
TARGETS = mips mipsle armv5 armv7 arm64 amd64
ENV_mips   = GOARCH=mips GOMIPS=softfloat
ENV_mipsle = GOARCH=mipsle GOMIPS=softfloat
ENV_armv5  = GOARCH=arm GOARM=5
ENV_armv7  = GOARCH=arm GOARM=7
ENV_arm64  = GOARCH=arm64
ENV_amd64  = GOARCH=amd64

# The packages that are pure codec and state machine: they also run on emulated big-endian MIPS.
CORES = ./ipsec ./ipsec/isakmp ./ipsec/ikev1 ./l2tp ./ppp ./ppp/aaa ./board/netlink ./board/nft ./board/firewall
FUZZTIME ?= 3s

.PHONY: build demo demo-lab test check unit race lab lab-long cross reproducible big-endian fuzz fuzz-short bench bench-user deps deps-boards kernel kernel-boards image run board test-boards bench-boards clean help

build: ## the binary for this machine: ./culvert
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o culvert ./cmd/culvert

demo: build ## culvert's server and client in network namespaces of this machine, a NAT between them (root)
	./culvert demo

demo-lab: deps ## a real strongSwan + xl2tpd client connects to culvert inside the lab; prints what it saw
	$(GO) run ./board/lab/demo

# The kernels of the lab, where they are not there yet, are built beside what does not need them.
test: deps ## everything CI runs
	@setsid nice board/lab/kernel.sh & kernel=$$!; trap 'kill -- -$$kernel 2>/dev/null || true' EXIT; \
	$(MAKE) check unit race cross board big-endian fuzz-short && \
	wait $$kernel && trap - EXIT && $(MAKE) lab

check: ## formatting, vet, import rules, shell syntax
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofmt would change: $$out" >&2; exit 1; }
	$(GO) vet ./...
	GOARCH=mips GOMIPS=softfloat $(GO) vet ./...
	$(GO) test -run TestImports ./cmd/culvert
	for f in board/lab/*.sh rootfs/*.sh rootfs/kernel/*.sh; do bash -n $$f || exit 1; done
	$(GO) test -run TestScripts ./board/lab

unit: ## unit tests (the lab's are a target of their own)
	$(GO) test -short ./...

race: ## unit tests under the race detector
	CGO_ENABLED=1 $(GO) test -short -race ./...

lab: deps kernel ## every end-to-end test, inside user-mode Linux 6.1 and 6.12, against strongSwan, xl2tpd and pppd
	@board/lab/test.sh

lab-long: deps kernel ## by real clocks: twenty clients behind one NAT, which CI leaves out, and a client's minutes of outages and renewals
	CULVERT_LONG=1 $(GO) test -run '^TestLab(TwentyBehindNAT|ClientChanges|ClientMinutes)' -v -count 1 -timeout 30m ./cmd/culvert

# What a binary may weigh, in octets, as it is and compressed for flash. Raising it is a decision, not an accident: the goal
# is 6 MB and 2 MB for mips. What is shipped sorts by sort.Slice: every slices.SortFunc is 16 KB of MIPS of its own.
BUDGET    = 9900000
BUDGET_XZ = 2500000
BUDGET_XZ_mips   = 2285000
BUDGET_XZ_mipsle = 2330000
BUDGET_XZ_amd64  = 2810000

cross: ## static binaries for every board family, with their sizes held to the budget; mips proved free of an FPU
	@mkdir -p $(BUILD)
	@printf '%-8s %10s %10s\n' target bytes xz
	@set -e; $(foreach t,$(TARGETS),env GOOS=linux $(ENV_$(t)) $(GO) build -trimpath -buildvcs=false $(GCFLAGS) -ldflags '$(LDFLAGS)' -o $(BUILD)/culvert-$(t) ./cmd/culvert; \
	size=$$(stat -c %s $(BUILD)/culvert-$(t)); xz=$$(xz -6 -c $(BUILD)/culvert-$(t) | wc -c); printf '%-8s %10d %10d\n' $(t) $$size $$xz; \
	test $$size -le $(BUDGET) -a $$xz -le $(or $(BUDGET_XZ_$(t)),$(BUDGET_XZ)) || { echo "$(t) is over the budget of $(BUDGET) octets, $(or $(BUDGET_XZ_$(t)),$(BUDGET_XZ)) compressed" >&2; exit 1; };)
	@# A processor without floating point: what was built for one with it ends by SIGILL here, as on most MIPS routers.
	@! command -v qemu-mips-static >/dev/null || qemu-mips-static -cpu 24Kc $(BUILD)/culvert-mips version

reproducible: cross ## the same sources in another directory, built from nothing, make the same binary, octet by octet
	@dir=$$(mktemp -d) && trap 'chmod -R u+w "$$dir"; rm -rf "$$dir"' EXIT && git ls-files -z | xargs -0 cp --parents -t "$$dir" && \
	(cd "$$dir" && env GOCACHE="$$dir/.cache" GOOS=linux $(ENV_mips) $(GO) build -trimpath -buildvcs=false $(GCFLAGS) -ldflags '$(LDFLAGS)' -o culvert-mips ./cmd/culvert) && \
	cmp "$$dir/culvert-mips" $(BUILD)/culvert-mips && echo "culvert-mips is reproducible"

# TestXL2TPD starts itself again in a namespace, which an emulated process cannot. The others are slow there, for what they
# prove is not in the order of octets: many handshakes, or many keys made.
SLOW_EMULATED = TestXL2TPD|TestDialSigned|TestCertificateRefusals|TestDialSimultaneous|TestDialLossy|TestStorm|TestPrimes|TestFloodOfFirstMessages
big-endian: deps ## the cores' tests on emulated big-endian MIPS
	GOOS=linux GOARCH=mips GOMIPS=softfloat $(GO) test -short -skip '^($(SLOW_EMULATED))$$' -exec qemu-mips-static $(CORES)

# Before Go 1.27 the end of FUZZTIME is now and then taken for a failure, which writes no input (go.dev/issue/75804).
fuzz-short: FUZZTIME = 3s
fuzz-short fuzz: ## every fuzz target for FUZZTIME each (make fuzz FUZZTIME=5m for long)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; fuzz() { $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg >$(BUILD).fuzz.log 2>&1; }; \
	    fuzz || { grep -q '^    context deadline exceeded' $(BUILD).fuzz.log && ! grep -q 'Failing input' $(BUILD).fuzz.log && \
	      echo "Go has taken the end of the time for a failure, once more" && fuzz; } || { cat $(BUILD).fuzz.log; exit 1; }; \
	  done; done; rm -f $(BUILD).fuzz.log

.PHONY: fuzz-hour
fuzz-hour: ## an hour of fuzzing in all, the same for each target
	@n=$$(git grep -hE '^func Fuzz[A-Za-z0-9_]+\(' -- '*_test.go' | wc -l) && $(MAKE) --no-print-directory fuzz FUZZTIME=$$((3600 / n))s

bench: deps kernel ## throughput, sessions and exchanges per second, memory: ratios to strongSwan + xl2tpd + pppd, and to SoftEther
	$(GO) test -run '^$$' -bench '^BenchmarkMemory$$' -benchtime 1x ./ipsec/ikev1
	CULVERT_BENCH=1 $(GO) test -run '^TestBench' -v -count 1 -timeout 40m -p 1 ./ipsec/esp ./cmd/culvert

bench-user: deps ## of these the userspace data path alone: to the bare ciphers, a loop that copies packets, and SoftEther (root)
	CULVERT_BENCH=1 $(GO) test -run '^TestBench(ESP|UserPath|SoftEther)$$' -v -count 1 -timeout 20m -p 1 ./ipsec/esp ./cmd/culvert

deps: ## Debian packages that tests and demo need (apt, root)
	@board/lab/deps.sh

deps-boards: ## the same for the emulated boards: QEMU, a cross compiler for their big-endian kernel
	@board/lab/deps.sh boards

kernel-boards: deps-boards ## the emulated boards' kernels: Debian's, fetched, and the big-endian one, built once (15 minutes)
	@for arch in arm64 armhf mipsel; do rootfs/kernel/debian.sh $$arch || exit 1; done
	@rootfs/kernel/malta-be.sh

image: kernel-boards ## kernel and initramfs of an emulated board in build/image (BOARD=qemu-arm64, qemu-arm, qemu-mipsel or qemu-mips)
	$(GO) run ./rootfs/mkimage -board "$(BOARD)"

run: kernel-boards ## boots that image in QEMU, its serial line on this terminal
	$(GO) run ./rootfs/mkimage -board "$(BOARD)" -run

board: ## one kind of board, the quickest to fetch: boots to its console, is configured there, serves another with IPsec
	@board/lab/deps.sh board && rootfs/kernel/debian.sh mipsel >/dev/null
	$(GO) test -run '^TestBoardShort$$' -count 1 -timeout 20m -v ./board/lab

test-boards: kernel-boards ## what the emulated ARM and MIPS boards prove
	$(GO) test -run '^TestBoard' -count 1 -timeout 90m -v ./board/lab ./hwcrypto/... ./cmd/culvert

bench-boards: kernel-boards ## README's table of boards: image, boot, memory, throughput by XFRM and in userspace of one boot
	CULVERT_BENCH=1 $(GO) test -run '^TestBoardPair$$' -count 1 -timeout 60m -v ./board/lab

.PHONY: deps-buildroot buildroot buildroot-image dist
deps-buildroot: ## the same for Buildroot
	@board/lab/deps.sh buildroot

# BUILDROOT is a Buildroot source tree: git clone https://gitlab.com/buildroot.org/buildroot.git
BUILDROOT ?=
buildroot: deps-buildroot ## the external tree against BUILDROOT=...: style, defconfigs, the package for every board
	@buildroot/check.sh "$(BUILDROOT)" mips mipsel arm arm64

buildroot-image: deps-buildroot ## an image for qemu-mips made by BUILDROOT=..., booted twice: one serves, the other dials
	@rootfs/kernel/malta-be.sh >/dev/null
	@image=$$(buildroot/image.sh "$(BUILDROOT)") && \
	CULVERT_BUILDROOT_IMAGE=$$image $(GO) test -count 1 -run '^TestImage' -timeout 15m -v ./buildroot

dist: ## the source with all modules in one archive, for builds without a network
	@mkdir -p $(BUILD) && rm -rf $(BUILD)/culvert-$(VERSION)
	git archive --prefix=culvert-$(VERSION)/ HEAD | tar -C $(BUILD) -xf -
	cd $(BUILD)/culvert-$(VERSION) && $(GO) mod vendor
	tar -C $(BUILD) --sort=name --owner=0 --group=0 --mtime=@$$(git log -1 --format=%ct) -cJf $(BUILD)/culvert-$(VERSION).tar.xz culvert-$(VERSION)
	@rm -rf $(BUILD)/culvert-$(VERSION) && ls -l $(BUILD)/culvert-$(VERSION).tar.xz

kernel: deps ## the lab's own Linux 6.1 and 6.12, built once and cached (about 6 minutes on two cores)
	@board/lab/kernel.sh

clean: ## what make made here (the kernel cache stays)
	rm -rf $(BUILD) culvert

help: ## this list
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z -]+):.*## /\1\t/' | expand -t 22
