package board

import (
	"slices"
	"strings"
)

// Family is a kind of RouterBOARD: what its members have in common.
type Family struct {
	Name      string
	SoC       string
	Core      string
	Arch      string // GOARCH of the binary it runs, with GOMIPS=softfloat or GOARM where there is such a thing
	BigEndian bool
	Engine    string   // the chip's crypto engine; empty: it has none, or Linux has no driver for it
	Drivers   []string // how /proc/crypto names that engine's: the beginnings of the names
	MemoryMB  int      // of the smallest member
	FlashMB   int
	Serial    string // the serial line's device, where OpenWrt has the board

	boards []string // device tree's compatible names, without the vendor
	models []string // in the model's name, for kernels without a device tree and RouterBOOT's product codes
	chips  []string // device tree's compatible names of the chip: any board of it that is not named here
}

// families is OpenWrt's device trees (target/linux/{ath79,ramips,ipq40xx,mvebu}) and, for those boards that OpenWrt does
// not have, mainline's or MikroTik's own data. The engines' drivers are the names that Linux 6.1 to 6.18 register.
var families = []Family{
	{
		Name: "hEX", SoC: "MediaTek MT7621A", Core: "MIPS 1004Kc", Arch: "mipsle", MemoryMB: 256, FlashMB: 16, Serial: "ttyS0",
		Engine: "EIP93", Drivers: []string{"authenc(hmac(md5-eip93)", "authenc(hmac(sha1-eip93)", "authenc(hmac(sha256-eip93)", "cbc(aes-eip93)"},
		boards: []string{"routerboard-750gr3", "routerboard-760igs", "routerboard-m11g", "routerboard-m33g", "ltap-2hnd"},
		models: []string{"750Gr3", "760iGS", "M11G", "M33G", "LtAP-2HnD"},
		chips:  []string{"mediatek,mt7621-soc"},
	},
	{
		Name: "hAP ac2, cAP ac, wAP ac", SoC: "Qualcomm IPQ4018", Core: "ARM Cortex-A7", Arch: "arm", MemoryMB: 128, FlashMB: 16, Serial: "ttyMSM0",
		Engine: "Qualcomm crypto engine", Drivers: []string{"cbc-aes-qce", "authenc-hmac-sha256-cbc-aes-qce", "ctr-aes-qce"},
		boards: []string{"hap-ac2", "cap-ac", "wap-ac", "wap-ac-lte", "wap-r-ac", "sxtsq-5-ac"},
		models: []string{"RBD52G", "hAP ac2", "RBcAPGi"},
		chips:  []string{"qcom,ipq4018"},
	},
	{
		Name: "hAP ac3, RB450Gx4", SoC: "Qualcomm IPQ4019", Core: "ARM Cortex-A7", Arch: "arm", MemoryMB: 256, FlashMB: 128, Serial: "ttyMSM0",
		Engine: "Qualcomm crypto engine", Drivers: []string{"cbc-aes-qce", "authenc-hmac-sha256-cbc-aes-qce", "ctr-aes-qce"},
		boards: []string{"hap-ac3", "hap-ac3-lte6-kit", "lhgg-60ad", "rb450gx4"},
		models: []string{"RBD53", "hAP ac3", "RB450Gx4"},
		chips:  []string{"qcom,ipq4019"},
	},
	{
		Name: "RB951, RB2011", SoC: "Qualcomm Atheros AR9344", Core: "MIPS 74Kc", Arch: "mips", BigEndian: true, MemoryMB: 64, FlashMB: 128, Serial: "ttyS0",
		boards: []string{"routerboard-951g-2hnd", "routerboard-951ui-2hnd", "routerboard-2011uias-2hnd", "routerboard-2011uias", "routerboard-sxt-5nd-r2", "routerboard-912uag-2hpnd"},
		models: []string{"951G-2HnD", "951Ui-2HnD", "2011UiAS", "2011L", "RB2011"},
		chips:  []string{"qca,ar9344", "qca,ar9342"},
	},
	{
		Name: "hEX lite, hAP, hAP ac lite, wAP, mAP", SoC: "Qualcomm Atheros QCA9531 or QCA9533", Core: "MIPS 24Kc", Arch: "mips", BigEndian: true, MemoryMB: 64, FlashMB: 16, Serial: "ttyS0",
		boards: []string{"routerboard-750-r2", "routerboard-951ui-2nd", "routerboard-952ui-5ac2nd", "routerboard-wap-2nd", "routerboard-wapr-2nd",
			"routerboard-wap-g-5hact2hnd", "routerboard-map-2nd", "routerboard-mapl-2nd", "routerboard-lhg-2nd", "routerboard-941-2nd"},
		models: []string{"750 r2", "750r2", "951Ui-2nD", "952Ui-5ac2nD", "wAP-2nD", "wAPR-2nD", "mAP-2nD", "mAPL-2nD", "LHG", "941-2nD", "hEX lite"},
		chips:  []string{"qca,qca9533", "qca,qca9531"},
	},
	{
		Name: "hAP ac, RB922, wAP AC", SoC: "Qualcomm Atheros QCA9558 or QCA9556", Core: "MIPS 74Kc", Arch: "mips", BigEndian: true, MemoryMB: 128, FlashMB: 16, Serial: "ttyS0",
		boards: []string{"routerboard-962uigs-5hact2hnt", "routerboard-922uags-5hpacd", "routerboard-921gs-5hpacd-15s"},
		models: []string{"962UiGS", "922UAGS", "921GS"},
		chips:  []string{"qca,qca9558", "qca,qca9556"},
	},
	{
		Name: "RB493G", SoC: "Atheros AR7161", Core: "MIPS 24Kc", Arch: "mips", BigEndian: true, MemoryMB: 256, FlashMB: 128, Serial: "ttyS0",
		boards: []string{"routerboard-493g"}, models: []string{"493G"}, chips: []string{"qca,ar7161"},
	},
	{
		Name: "RB5009", SoC: "Marvell Armada 7040", Core: "ARM Cortex-A72", Arch: "arm64", MemoryMB: 1024, FlashMB: 1024, Serial: "ttyS0",
		Engine: "SafeXcel EIP197", Drivers: []string{"safexcel-"},
		boards: []string{"rb5009"}, models: []string{"RB5009"}, chips: []string{"marvell,armada7040"},
	},
	{
		Name: "RB3011", SoC: "Qualcomm IPQ8064", Core: "Qualcomm Krait", Arch: "arm", MemoryMB: 1024, FlashMB: 128,
		boards: []string{"rb3011"}, models: []string{"RB3011"}, chips: []string{"qcom,ipq8064"},
	},
	{
		Name: "RB1100AHx4, RB4011", SoC: "Annapurna AL21400", Core: "ARM Cortex-A15", Arch: "arm", MemoryMB: 1024, FlashMB: 128,
		models: []string{"RB1100AHx4", "RB1100Dx4", "RB4011"}, chips: []string{"al,alpine"},
	},
	{
		Name: "hAP ax2, hAP ax3", SoC: "Qualcomm IPQ6010", Core: "ARM Cortex-A53", Arch: "arm64", MemoryMB: 1024, FlashMB: 128,
		Engine: "Qualcomm crypto engine", Drivers: []string{"cbc-aes-qce", "authenc-hmac-sha256-cbc-aes-qce"},
		models: []string{"hAP ax", "C52iG", "C53UiG"}, chips: []string{"qcom,ipq6018"},
	},
	{
		Name: "L009", SoC: "Qualcomm IPQ5018", Core: "ARM Cortex-A53", Arch: "arm64", MemoryMB: 512, FlashMB: 128,
		Engine: "Qualcomm crypto engine", Drivers: []string{"cbc-aes-qce", "authenc-hmac-sha256-cbc-aes-qce"},
		models: []string{"L009"}, chips: []string{"qcom,ipq5018"},
	},
	{
		Name: "malta (emulated)", SoC: "MIPS Malta", Core: "MIPS 24Kc", Serial: "ttyS0", MemoryMB: 64, FlashMB: 4,
		Engine: "virtio-crypto", Drivers: []string{"virtio_crypto_"},
		models: []string{"MIPS Malta", "mti,malta"}, chips: []string{"mti,malta"},
	},
	{
		Name: "virt (emulated)", SoC: "QEMU virt", Serial: "ttyAMA0", MemoryMB: 128, FlashMB: 64,
		Engine: "virtio-crypto", Drivers: []string{"virtio_crypto_"},
		models: []string{"linux,dummy-virt"}, chips: []string{"linux,dummy-virt"},
	},
}

// Families returns the table, for documentation and tests.
func Families() []Family { return slices.Clone(families) }

// familyOf looks the board up by its own name first, then by what the model's name has in it, then by its chip.
func familyOf(i Info) *Family {
	for _, c := range i.Compatible {
		_, name, ok := strings.Cut(c, ",")
		if !ok {
			continue
		}
		for n := range families {
			if slices.Contains(families[n].boards, name) {
				return &families[n]
			}
		}
	}
	for _, text := range []string{i.RouterBOOT.ProductCode, i.Model, i.System} {
		for n := range families {
			if text != "" && slices.ContainsFunc(families[n].models, func(m string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(m)) }) {
				return &families[n]
			}
		}
	}
	for n := range families {
		if slices.ContainsFunc(families[n].chips, func(c string) bool { return slices.Contains(i.Compatible, c) }) {
			return &families[n]
		}
	}
	return nil
}
