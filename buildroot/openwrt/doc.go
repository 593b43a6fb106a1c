// Package openwrt holds no program: culvert/ is a package for OpenWrt's feeds, with its init script, its protocol handler for
// netifd and what else it brings along. Its tests run all of that under busybox's shell in a root of their own, where
// testdata/ stands in for OpenWrt's libraries and writes down what they are asked for.
package openwrt
