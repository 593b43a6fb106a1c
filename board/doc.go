// Package board knows the machine that culvert runs on: which router it is, how much memory a Go program may take there,
// its lights, its button, its watchdog, its flash, the kernel modules it has to load, whether the kernel has entropy yet.
//
// Detection reads a file system (fs.FS rooted at /), so that any router is a test's table of files. What is known of the
// RouterBOARD families (processor, byte order, crypto engine and its driver) is a table in family.go; everything else is
// read from the machine: the device tree, /proc/cpuinfo, and RouterBOOT's configuration as OpenWrt's kernel shows it under
// /sys/firmware/mikrotik.
//
// Files: detect.go and family.go say which router, memory.go what a process may take, storage.go writes to flash, led.go,
// button.go and watchdog.go are the hardware, modules.go and entropy.go what a kernel needs before there is a service.
// Read detect.go first.
package board
