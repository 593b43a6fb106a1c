package board

import (
	"bytes"
	"io/fs"
	"runtime"
	"strconv"
	"strings"
)

// Info is what a machine says of itself. What it does not say is empty.
type Info struct {
	Model      string   // "MikroTik RouterBOARD 750Gr3"
	Compatible []string // of the device tree, the most special first: "mikrotik,routerboard-750gr3"
	System     string   // the chip as the kernel calls it: "MediaTek MT7621 ver:1 eco:3"
	CPU        string   // "MIPS 1004Kc V2.15"
	Features   []string // of the processor, those that matter for ciphers: aes, pmull, sha1, sha2, neon
	CPUs       int
	Memory     uint64  // octets, all that the kernel has
	Family     *Family // nil: not in the table

	RouterBOOT RouterBOOT
	// Serial tells whether the board has a serial line; known is false where it does not say.
	Serial, SerialKnown bool
}

// RouterBOOT is what MikroTik's boot loader keeps about the board, in flash.
type RouterBOOT struct {
	Present     bool
	ProductCode string // "RB750Gr3"
	Product     string
	Serial      string
	Identifier  string
	Booter      string // version of the loader itself
	BIOS        string // version of its upgrade
	MAC         string // the first of the board's
	UARTSpeed   string // "115200"
}

const (
	deviceTree = "proc/device-tree"
	hardConfig = "sys/firmware/mikrotik/hard_config"
	softConfig = "sys/firmware/mikrotik/soft_config"
)

// Detect reads a file system rooted at /. It does not fail: a machine that says nothing is an Info of that much.
func Detect(root fs.FS) Info {
	i := Info{
		Model:      text(root, deviceTree+"/model"),
		Compatible: list(root, deviceTree+"/compatible"),
		CPUs:       1,
	}
	i.cpuinfo(root)
	if i.Model == "" {
		i.Model = strings.TrimSpace(text(root, "sys/class/dmi/id/sys_vendor") + " " + text(root, "sys/class/dmi/id/product_name"))
	}
	i.Memory = meminfo(root)
	i.routerBOOT(root)
	i.Family = familyOf(i)
	if i.Memory == 0 && i.Family != nil {
		i.Memory = uint64(i.Family.MemoryMB) << 20
	}
	return i
}

// cpuinfo reads /proc/cpuinfo, whose keys differ by architecture.
func (i *Info) cpuinfo(root fs.FS) {
	b, _ := fs.ReadFile(root, "proc/cpuinfo")
	processors := 0
	part := ""
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(line, ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || value == "" {
			continue
		}
		switch key {
		case "processor":
			if _, err := strconv.Atoi(value); err == nil {
				processors++
			}
		case "machine": // MIPS; and its device tree may be missing on old kernels
			if i.Model == "" {
				i.Model = value
			}
		case "system type", "Hardware": // MIPS, ARM
			if i.System == "" && value != "Generic DT based system" {
				i.System = value
			}
		case "cpu model", "model name":
			if i.CPU == "" {
				i.CPU = value
			}
		case "CPU part":
			part = value
		case "Features", "flags", "ASEs implemented":
			if i.Features == nil {
				i.Features = features(value)
			}
		}
	}
	if name := armParts[part]; name != "" && (i.CPU == "" || strings.HasPrefix(i.CPU, "ARMv")) {
		i.CPU = name
	}
	if processors > 0 {
		i.CPUs = processors
	}
	if i.CPU == "" {
		i.CPU = runtime.GOARCH
	}
}

// armParts are the cores of ARM Limited's and Qualcomm's that routers have, by MIDR's part number.
var armParts = map[string]string{
	"0xc07": "ARM Cortex-A7", "0xc09": "ARM Cortex-A9", "0xc0f": "ARM Cortex-A15", "0xd03": "ARM Cortex-A53",
	"0xd07": "ARM Cortex-A57", "0xd08": "ARM Cortex-A72", "0x06f": "Qualcomm Krait",
}

// features keeps the instructions that ciphers profit from.
func features(line string) (out []string) {
	for _, f := range strings.Fields(line) {
		switch f {
		case "aes", "pmull", "pclmulqdq", "sha1", "sha2", "sha_ni", "neon", "asimd", "dsp", "dsp2":
			out = append(out, f)
		}
	}
	return out
}

func meminfo(root fs.FS) uint64 {
	b, _ := fs.ReadFile(root, "proc/meminfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			n, err := strconv.ParseUint(f[1], 10, 50)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// routerBOOT reads what OpenWrt's routerboot driver shows. Only root may.
func (i *Info) routerBOOT(root fs.FS) {
	if _, err := fs.Stat(root, hardConfig); err != nil {
		return
	}
	i.RouterBOOT = RouterBOOT{
		Present:     true,
		ProductCode: text(root, hardConfig+"/board_product_code"),
		Product:     text(root, hardConfig+"/product_name"),
		Serial:      text(root, hardConfig+"/board_serial"),
		Identifier:  text(root, hardConfig+"/board_identifier"),
		Booter:      text(root, hardConfig+"/booter_version"),
		BIOS:        text(root, softConfig+"/bios_version"),
		MAC:         text(root, hardConfig+"/mac_base"),
		UARTSpeed:   chosen(text(root, softConfig+"/uart_speed")),
	}
	for line := range strings.Lines(text(root, hardConfig+"/hw_options")) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "no UART" {
			i.SerialKnown = true
			i.Serial = strings.TrimSpace(value) == "false"
		}
	}
	if i.Memory == 0 {
		if n, err := strconv.ParseUint(text(root, hardConfig+"/mem_size"), 0, 50); err == nil {
			i.Memory = n
		}
	}
}

// chosen returns which of a setting's values is the current one: "off 1200 [115200]".
func chosen(s string) string {
	_, s, _ = strings.Cut(s, "[")
	s, _, _ = strings.Cut(s, "]")
	return s
}

// Name is what people call the machine.
func (i Info) Name() string {
	switch {
	case i.Model != "":
		return i.Model
	case i.RouterBOOT.ProductCode != "":
		return i.RouterBOOT.ProductCode
	case i.System != "":
		return i.System
	}
	return i.CPU
}

// RouterBOARD tells whether this is one of MikroTik's.
func (i Info) RouterBOARD() bool {
	if i.RouterBOOT.Present {
		return true
	}
	for _, c := range i.Compatible {
		if strings.HasPrefix(c, "mikrotik,") {
			return true
		}
	}
	return strings.HasPrefix(strings.ToLower(i.Model), "mikrotik")
}

// text reads a small file without the line end or NUL that closes it.
func text(root fs.FS, name string) string {
	b, _ := fs.ReadFile(root, name)
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00\n"))
}

// list reads strings that each end in NUL, as the device tree has them.
func list(root fs.FS, name string) (out []string) {
	b, _ := fs.ReadFile(root, name)
	for _, s := range bytes.Split(b, []byte{0}) {
		if len(s) > 0 {
			out = append(out, string(s))
		}
	}
	return out
}
