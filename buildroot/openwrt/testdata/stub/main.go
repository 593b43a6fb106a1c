// Command stub stands in, by the name it is called by, for the programs of OpenWrt that the tests' root does not have.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	args := os.Args[1:]
	switch name := filepath.Base(os.Args[0]); name {
	case "jshn":
		jshn(args)
	case "uci-shell":
		uciShell(args[0])
	case "culvert":
		culvert(args)
	case "resolveip":
		record("resolveip", args)
		if strings.HasPrefix(args[len(args)-1], "vpn") {
			fmt.Println("192.0.2.1")
			fmt.Println("192.0.2.9")
		}
	case "uci":
		record(name, args)
		if args[len(args)-1] == "batch" {
			in, _ := io.ReadAll(os.Stdin)
			for line := range strings.Lines(string(in)) {
				record("uci-batch", []string{strings.TrimSpace(line)})
			}
			return
		}
		os.Exit(1)
	default: // logger, ubus
		record(name, args)
	}
}

func record(name string, args []string) {
	f, err := os.OpenFile("/calls", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, strings.Join(append([]string{name}, args...), "|"))
}

func fatal(err any) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// jshn COMMAND JSON PATH KEY: value, type or has of a member; a path is keys with slashes, arrays count from 1.
func jshn(args []string) {
	var v any
	if err := json.Unmarshal([]byte(args[1]), &v); err != nil {
		fatal("Failed to parse message data")
	}
	if _, ok := v.(map[string]any); !ok {
		fatal("Failed to parse message data")
	}
	if args[0] == "check" {
		return
	}
	for _, key := range append(strings.FieldsFunc(args[2], func(r rune) bool { return r == '/' }), args[3]) {
		switch x := v.(type) {
		case map[string]any:
			m, ok := x[key]
			if !ok {
				os.Exit(1)
			}
			v = m
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 1 || i > len(x) {
				os.Exit(1)
			}
			v = x[i-1]
		default:
			os.Exit(1)
		}
	}
	kind := "object"
	switch x := v.(type) {
	case string:
		kind = "string"
	case float64:
		kind = "int"
	case bool: // jshn's booleans are 0 and 1
		kind, v = "boolean", 0
		if x {
			v = 1
		}
	case []any:
		kind = "array"
	}
	if args[0] == "type" {
		fmt.Print(kind)
		return
	}
	fmt.Print(v)
}

// uciShell writes a UCI file as assignments that functions.sh reads.
func uciShell(file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		os.Exit(1)
	}
	section, count := "", 0
	lists := map[string]int{}
	var sections []string
	set := func(name, value string) {
		fmt.Printf("%s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	for line := range strings.Lines(string(data)) {
		words := uciWords(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "config":
			count++
			section = fmt.Sprintf("cfg%02x0000", count)
			if len(words) > 2 {
				section = words[2]
			}
			sections = append(sections, section)
			set("CONFIG_"+section+"_TYPE", words[1])
		case "option":
			set("CONFIG_"+section+"_"+words[1], words[2])
		case "list":
			name := "CONFIG_" + section + "_" + words[1]
			lists[name]++
			set(fmt.Sprintf("%s_ITEM%d", name, lists[name]), words[2])
			set(name+"_LENGTH", strconv.Itoa(lists[name]))
			fmt.Printf("%s=\"${%s:+$%s }${%s_ITEM%d}\"\n", name, name, name, name, lists[name])
		default:
			fatal("uci: Parse error: " + line)
		}
	}
	set("CONFIG_SECTIONS", strings.Join(sections, " "))
}

// uciWords splits a line with quotes as UCI has them: 'as it is', "with \ before a quote", and both joined to one word.
func uciWords(line string) (words []string) {
	var word strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		case quote == 0 && c == '#' && !in:
			return words
		case quote == 0 && (c == '\'' || c == '"'):
			quote, in = c, true
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		default:
			in = true
			word.WriteByte(c)
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words
}

// culvert is the real one where the configuration is checked; as the console of a daemon it answers what /console says.
func culvert(args []string) {
	if args[0] == "check" {
		fatal(syscall.Exec("/usr/sbin/culvert.real", append([]string{"culvert"}, args...), os.Environ()))
	}
	command := args[len(args)-1]
	record("culvert", args)
	answers, err := os.ReadFile("/console")
	if err != nil {
		fatal("dial unix /run/culvert/control.sock: no such file or directory")
	}
	_, answer, ok := strings.Cut("\n"+string(answers), "\n[admin@office] > "+command+"\n")
	if !ok {
		fatal("no answer to " + command)
	}
	answer, _, _ = strings.Cut(answer, "\n[admin@office] > ")
	fmt.Println(answer)
}
