// Package buildroot holds no program: beside it lie a BR2_EXTERNAL tree for Buildroot (package culvert, images for the four
// emulated boards) and, in openwrt/, a package for OpenWrt's feeds. check.sh holds the tree against a Buildroot, image.sh
// builds an image with it, which this package's test boots.
package buildroot
