package board

import (
	"strings"
	"testing"
	"testing/fstest"
)

// tree makes a root file system out of names and contents.
func tree(files map[string]string) fstest.MapFS {
	m := make(fstest.MapFS)
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o400}
	}
	return m
}

func repeat(n int, s string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(s, "#", string(rune('0'+i))))
	}
	return b.String()
}

// What real boards' files hold, as their kernels write them.
var boards = map[string]map[string]string{
	"RB750Gr3": {
		"proc/device-tree/model":      "MikroTik RouterBOARD 750Gr3\x00",
		"proc/device-tree/compatible": "mikrotik,routerboard-750gr3\x00mediatek,mt7621-soc\x00",
		"proc/cpuinfo": "system type\t\t: MediaTek MT7621 ver:1 eco:3\nmachine\t\t\t: MikroTik RouterBOARD 750Gr3\n" +
			repeat(4, "processor\t\t: #\ncpu model\t\t: MIPS 1004Kc V2.15\nBogoMIPS\t\t: 586.13\nASEs implemented\t: mips16 dsp mt\n\n"),
		"proc/meminfo": "MemTotal:         251508 kB\nMemFree:          192368 kB\n",
		"sys/firmware/mikrotik/hard_config/board_product_code":   "RB750Gr3\n",
		"sys/firmware/mikrotik/hard_config/board_serial":         "8AFF08EXAMPL\n",
		"sys/firmware/mikrotik/hard_config/product_name":         "hEX\n",
		"sys/firmware/mikrotik/hard_config/booter_version":       "3.41\n",
		"sys/firmware/mikrotik/hard_config/mac_base":             "64:d1:54:00:00:01\n",
		"sys/firmware/mikrotik/hard_config/hw_options":           "raw\t\t: 0x00000021\n\nno UART\t\t: true\nhas usb\t\t: true\nhas MicroSD\t\t: true\n",
		"sys/firmware/mikrotik/soft_config/bios_version":         "6.45.9\n",
		"sys/firmware/mikrotik/soft_config/uart_speed":           "off 1200 2400 4800 9600 19200 38400 57600 [115200]\n",
		"sys/firmware/mikrotik/hard_config/wlan_data/irrelevant": "",
	},
	"hAP ac2": {
		"proc/device-tree/model":      "MikroTik hAP ac2\x00",
		"proc/device-tree/compatible": "mikrotik,hap-ac2\x00qcom,ipq4018\x00",
		"proc/cpuinfo": repeat(4, "processor\t: #\nmodel name\t: ARMv7 Processor rev 5 (v7l)\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm\nCPU implementer\t: 0x41\nCPU part\t: 0xc07\n\n") +
			"Hardware\t: Generic DT based system\nRevision\t: 0000\n",
		"proc/meminfo": "MemTotal:         120416 kB\n",
		"sys/firmware/mikrotik/hard_config/board_product_code": "RBD52G-5HacD2HnD-TC\n",
		"sys/firmware/mikrotik/hard_config/hw_options":         "raw\t\t: 0x00000000\n\nno UART\t\t: false\n",
	},
	"RB951G": {
		"proc/device-tree/model":      "Mikrotik RouterBOARD 951G-2HnD\x00",
		"proc/device-tree/compatible": "mikrotik,routerboard-951g-2hnd\x00qca,ar9344\x00",
		"proc/cpuinfo": "system type\t\t: Atheros AR9344 rev 2\nmachine\t\t\t: Mikrotik RouterBOARD 951G-2HnD\nprocessor\t\t: 0\n" +
			"cpu model\t\t: MIPS 74Kc V4.12\nASEs implemented\t: mips16 dsp dsp2\n",
		"proc/meminfo": "MemTotal:         124996 kB\n",
	},
	"RB951Ui-2nD, an old kernel without a device tree": {
		"proc/cpuinfo": "system type\t\t: Qualcomm Atheros QCA9531 ver 2 rev 0\nmachine\t\t\t: MikroTik RouterBOARD 951Ui-2nD\nprocessor\t\t: 0\ncpu model\t\t: MIPS 24Kc V7.4\n",
		"proc/meminfo": "MemTotal:          60044 kB\n",
	},
	"RB5009": {
		"proc/device-tree/model":      "MikroTik RB5009\x00",
		"proc/device-tree/compatible": "mikrotik,rb5009\x00marvell,armada7040\x00marvell,armada-ap806-quad\x00marvell,armada-ap806\x00",
		"proc/cpuinfo":                repeat(4, "processor\t: #\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n"),
		"proc/meminfo":                "MemTotal:        1008172 kB\n",
	},
	"an unknown board of a known chip": {
		"proc/device-tree/model":      "D-Link DIR-860L B1\x00",
		"proc/device-tree/compatible": "dlink,dir-860l-b1\x00mediatek,mt7621-soc\x00",
		"proc/cpuinfo":                "system type\t\t: MediaTek MT7621 ver:1 eco:3\nprocessor\t\t: 0\ncpu model\t\t: MIPS 1004Kc V2.15\n",
		"proc/meminfo":                "MemTotal:         124180 kB\n",
	},
	"malta": {
		"proc/device-tree/compatible": "mti,malta\x00",
		"proc/cpuinfo":                "system type\t\t: MIPS Malta\nmachine\t\t\t: mti,malta\nprocessor\t\t: 0\ncpu model\t\t: MIPS 24Kc V0.0\nASEs implemented\t: mips16\n",
		"proc/meminfo":                "MemTotal:          57476 kB\n",
	},
	"virt": {
		"proc/device-tree/model":      "linux,dummy-virt\x00",
		"proc/device-tree/compatible": "linux,dummy-virt\x00",
		"proc/cpuinfo":                "processor\t: 0\nBogoMIPS\t: 125.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n",
		"proc/meminfo":                "MemTotal:         243336 kB\n",
	},
	"a PC": {
		"proc/cpuinfo":                      "processor\t: 0\nmodel name\t: Intel(R) Celeron(R) J4125\nflags\t\t: fpu sse2 aes sha_ni\nprocessor\t: 1\nmodel name\t: Intel(R) Celeron(R) J4125\n",
		"sys/class/dmi/id/sys_vendor":       "QEMU\n",
		"sys/class/dmi/id/product_name":     "Standard PC (Q35 + ICH9, 2009)\n",
		"proc/meminfo":                      "MemTotal:        8052980 kB\n",
		"sys/firmware/efi/fw_platform_size": "64\n",
	},
	"nothing at all": {},
}

func TestDetect(t *testing.T) {
	for _, test := range []struct {
		board, name, cpu, soc, arch string
		cpus                        int
		memoryMB                    uint64
		engine                      string
		routerboard                 bool
	}{
		{"RB750Gr3", "MikroTik RouterBOARD 750Gr3", "MIPS 1004Kc V2.15", "MediaTek MT7621A", "mipsle", 4, 245, "EIP93", true},
		{"hAP ac2", "MikroTik hAP ac2", "ARM Cortex-A7", "Qualcomm IPQ4018", "arm", 4, 117, "Qualcomm crypto engine", true},
		{"RB951G", "Mikrotik RouterBOARD 951G-2HnD", "MIPS 74Kc V4.12", "Qualcomm Atheros AR9344", "mips", 1, 122, "", true},
		{"RB951Ui-2nD, an old kernel without a device tree", "MikroTik RouterBOARD 951Ui-2nD", "MIPS 24Kc V7.4", "Qualcomm Atheros QCA9531 or QCA9533", "mips", 1, 58, "", true},
		{"RB5009", "MikroTik RB5009", "ARM Cortex-A72", "Marvell Armada 7040", "arm64", 4, 984, "SafeXcel EIP197", true},
		{"an unknown board of a known chip", "D-Link DIR-860L B1", "MIPS 1004Kc V2.15", "MediaTek MT7621A", "mipsle", 1, 121, "EIP93", false},
		{"malta", "mti,malta", "MIPS 24Kc V0.0", "MIPS Malta", "", 1, 56, "virtio-crypto", false},
		{"virt", "linux,dummy-virt", "ARM Cortex-A53", "QEMU virt", "", 1, 237, "virtio-crypto", false},
		{"a PC", "QEMU Standard PC (Q35 + ICH9, 2009)", "Intel(R) Celeron(R) J4125", "", "", 2, 7864, "", false},
	} {
		t.Run(test.board, func(t *testing.T) {
			i := Detect(tree(boards[test.board]))
			if i.Name() != test.name || i.CPU != test.cpu || i.CPUs != test.cpus || i.Memory>>20 != test.memoryMB || i.RouterBOARD() != test.routerboard {
				t.Errorf("%+v", i)
			}
			f := i.Family
			if f == nil {
				f = &Family{}
			}
			if f.SoC != test.soc || f.Arch != test.arch || f.Engine != test.engine {
				t.Errorf("family %+v", f)
			}
		})
	}
	i := Detect(tree(boards["RB750Gr3"]))
	want := RouterBOOT{Present: true, ProductCode: "RB750Gr3", Product: "hEX", Serial: "8AFF08EXAMPL", Booter: "3.41", BIOS: "6.45.9",
		MAC: "64:d1:54:00:00:01", UARTSpeed: "115200"}
	if i.RouterBOOT != want {
		t.Errorf("%+v", i.RouterBOOT)
	}
	if !i.SerialKnown || i.Serial {
		t.Errorf("a board without a serial line: %+v", i)
	}
	if i := Detect(tree(boards["hAP ac2"])); !i.SerialKnown || !i.Serial {
		t.Errorf("a board with one: %+v", i)
	}
	if i := Detect(tree(boards["RB951G"])); i.SerialKnown {
		t.Errorf("a board that does not say: %+v", i)
	}
	if i := Detect(tree(nil)); i.Name() == "" || i.CPUs != 1 || i.Family != nil || i.RouterBOARD() {
		t.Errorf("a machine that says nothing: %+v", i)
	}
}

// The table is data that people maintain: each entry must be whole, and no board named twice.
func TestFamilies(t *testing.T) {
	seen := make(map[string]string)
	for _, f := range Families() {
		if f.Name == "" || f.SoC == "" || f.MemoryMB == 0 || f.FlashMB == 0 {
			t.Errorf("%+v lacks something", f)
		}
		if (f.Engine == "") != (len(f.Drivers) == 0) {
			t.Errorf("%s: an engine and its drivers come together", f.Name)
		}
		if f.BigEndian != (f.Arch == "mips") {
			t.Errorf("%s: architecture %s, big-endian %v", f.Name, f.Arch, f.BigEndian)
		}
		for _, b := range append(append([]string(nil), f.boards...), f.chips...) {
			if other := seen[b]; other != "" {
				t.Errorf("%s is in %s and in %s", b, other, f.Name)
			}
			seen[b] = f.Name
		}
	}
}

func TestTune(t *testing.T) {
	last := int64(0)
	for _, mb := range []uint64{32, 58, 64, 117, 128, 245, 256} {
		got := TuneFor(mb << 20)
		if got.Limit <= 0 || got.Limit < last || uint64(got.Limit) > mb<<20/2 || got.GCPercent < 10 || got.GCPercent > 100 {
			t.Errorf("%d MB: %+v", mb, got)
		}
		last = got.Limit
	}
	for _, mb := range []uint64{0, 984, 8192} {
		if got := TuneFor(mb << 20); got.Limit != 0 || got.GCPercent != 100 {
			t.Errorf("%d MB: %+v", mb, got)
		}
	}
}

func FuzzDetect(f *testing.F) {
	f.Add("model\x00", "a,b\x00c\x00", boards["RB750Gr3"]["proc/cpuinfo"], "MemTotal: 1 kB\n", "raw: 1\n\nno UART\t: true\n", "[115200]")
	f.Add("", ",", ":\n::\nprocessor:", "MemTotal: 99999999999999999999 kB", "no UART:", "[[]")
	f.Fuzz(func(t *testing.T, model, compatible, cpuinfo, meminfo, options, speed string) {
		i := Detect(tree(map[string]string{
			"proc/device-tree/model": model, "proc/device-tree/compatible": compatible, "proc/cpuinfo": cpuinfo, "proc/meminfo": meminfo,
			"sys/firmware/mikrotik/hard_config/hw_options": options, "sys/firmware/mikrotik/soft_config/uart_speed": speed,
		}))
		if i.CPUs < 1 || i.CPU == "" || !i.RouterBOOT.Present {
			t.Errorf("%+v", i)
		}
	})
}
