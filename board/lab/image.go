package lab

import (
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// An Image is what a board boots: a kernel, and an initramfs with busybox, the files of rootfs/overlay and culvert.
type Image struct {
	Board          *Board
	Kernel, Initrd string
}

// imageModules are the kernel modules of an image, besides those of /etc/modules: what culvert loads, and what may be
// asked of a kernel ("?").
var imageModules = strings.Fields(`slhc ppp_generic pppox l2tp_core l2tp_netlink l2tp_ppp xfrm_user esp4 esp6 authenc echainiv gcm tun nf_tables nft_ct
	l2tp_eth? l2tp_ip? seqiv? cbc? ctr? hmac? sha1_generic? sha256_generic? sha512_generic? ccm? drbg? jitterentropy_rng? ghash_generic? des_generic? md5? cryptd?
	ppp_mppe? arc4? nft_masq? nft_nat? nft_limit? nft_xfrm? nft_reject? nf_nat? nft_socket? bridge? veth? dummy? vrf? ifb?
	af_alg? algif_hash? algif_skcipher? algif_aead? crypto_user? evdev? uinput? uleds?
	sch_htb? sch_tbf? sch_ingress? cls_u32? cls_matchall? act_police? act_mirred?`)

// BuildImage makes a board's image in dir. Files are added to the image last and replace what is there: their names in the
// image, and what they hold.
func BuildImage(b *Board, dir string, files map[string][]byte) (*Image, error) {
	k, err := b.Kernel()
	if err != nil {
		return nil, err
	}
	source, err := sourceDir()
	if err != nil {
		return nil, err
	}
	rootfs := filepath.Join(source, "../../rootfs")
	if k.busybox == "" {
		if k.busybox, err = script(filepath.Join(rootfs, "busybox.sh")); err != nil {
			return nil, err
		}
	}
	culvert, err := BuildFor(b, "culvert/cmd/culvert")
	if err != nil {
		return nil, err
	}
	r := NewInitramfs()
	r.Tree(filepath.Join(rootfs, "overlay"))
	r.File("bin/busybox", k.busybox)
	r.File("usr/sbin/culvert", culvert)
	list, ok := files["etc/modules"]
	if !ok {
		if list, err = os.ReadFile(filepath.Join(rootfs, "overlay/etc/modules")); err != nil {
			return nil, err
		}
	}
	modules := imageModules
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			modules = append(modules, f[0]+"?")
		}
	}
	if _, err := k.Modules(r, modules...); err != nil {
		return nil, err
	}
	for name, content := range files {
		r.Data(name, 0o600, content)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	i := &Image{Board: b, Kernel: filepath.Join(dir, "kernel"), Initrd: filepath.Join(dir, "initramfs.gz")}
	if err := copyKernel(k.Image, i.Kernel); err != nil {
		return nil, err
	}
	f, err := os.Create(i.Initrd)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := r.Write(f, gzip.BestCompression); err != nil {
		return nil, err
	}
	return i, f.Close()
}

// copyKernel compresses a kernel that is not: arm64's, which QEMU and boot loaders take either way.
func copyKernel(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	const magicAt, magic = 0x38, "ARMd" // Documentation/arch/arm64/booting.rst
	if len(b) > magicAt+4 && string(b[magicAt:magicAt+4]) == magic {
		z, _ := gzip.NewWriterLevel(out, gzip.BestCompression)
		if _, err := z.Write(b); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
	} else if _, err := out.Write(b); err != nil {
		return err
	}
	return out.Close()
}

// Sizes are those of the kernel and of the initramfs, in octets.
func (i *Image) Sizes() (kernel, initrd int64, err error) {
	k, err := os.Stat(i.Kernel)
	if err != nil {
		return 0, 0, err
	}
	r, err := os.Stat(i.Initrd)
	if err != nil {
		return 0, 0, err
	}
	return k.Size(), r.Size(), nil
}

// QEMU returns how to start the image; the caller adds to Append and Args.
func (i *Image) QEMU() *QEMU {
	return &QEMU{Board: i.Board, Kernel: i.Kernel, Initrd: i.Initrd, Args: []string{"-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0"}}
}

// NewFlash makes what a board keeps its configuration on, if the file is not there: on malta the NOR flash of 4 MB, erased,
// which the kernel mounts as JFFS2; elsewhere a disk of 16 MB with ext4.
func NewFlash(b *Board, file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	if b.nor {
		erased := make([]byte, 4<<20)
		for i := range erased {
			erased[i] = 0xff
		}
		return os.WriteFile(file, erased, 0o600)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(file, 16<<20); err != nil {
		return err
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-F", file).CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs (package e2fsprogs): %w: %s", err, out)
	}
	return nil
}

// Flash are QEMU's arguments for a file of [NewFlash].
func Flash(b *Board, file string) []string {
	if b.nor {
		return []string{"-drive", "if=pflash,format=raw,file=" + file}
	}
	return []string{"-drive", "if=none,id=flash,format=raw,file=" + file, "-device", "virtio-blk-pci,drive=flash"}
}
