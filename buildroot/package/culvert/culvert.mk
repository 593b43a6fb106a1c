################################################################################
#
# culvert
#
################################################################################

# The source is what this external tree lies in.
CULVERT_SITE = $(BR2_EXTERNAL_CULVERT_PATH)/..
CULVERT_SITE_METHOD = local
CULVERT_VERSION = $(or $(shell git -C $(BR2_EXTERNAL_CULVERT_PATH)/.. describe --always --dirty 2>/dev/null),local)
CULVERT_LICENSE = Apache-2.0, vendored modules' licenses not listed
CULVERT_LICENSE_FILES = LICENSE
CULVERT_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude=/build --exclude=/culvert
CULVERT_DEPENDENCIES = host-go

# Nothing of it is C.
CULVERT_ADD_TOOLCHAIN_DEPENDENCY = NO

# golang-package knows no 32-bit MIPS, so go is called here. MIPS is
# soft-float: router boards have no FPU, nor their kernels an emulator.
ifeq ($(BR2_aarch64),y)
CULVERT_GOENV = GOARCH=arm64
else ifeq ($(BR2_arm),y)
CULVERT_GOENV = GOARCH=arm GOARM=$(if $(BR2_ARM_CPU_ARMV5),5,$(if $(BR2_ARM_CPU_ARMV6),6,7))
else ifeq ($(BR2_i386),y)
CULVERT_GOENV = GOARCH=386 GO386=$(if $(BR2_X86_CPU_HAS_SSE2),sse2,softfloat)
else ifeq ($(BR2_mips),y)
CULVERT_GOENV = GOARCH=mips GOMIPS=softfloat
else ifeq ($(BR2_mipsel),y)
CULVERT_GOENV = GOARCH=mipsle GOMIPS=softfloat
else ifeq ($(BR2_x86_64),y)
CULVERT_GOENV = GOARCH=amd64
endif

define CULVERT_CONFIGURE_CMDS
	cd $(@D); test -d $(CULVERT_OVERRIDE_SRCDIR)/vendor || \
		$(HOST_GO_HOST_ENV) GOFLAGS=-mod=mod GOSUMDB=off \
		GOPROXY="$(call qstrip,$(BR2_PACKAGE_CULVERT_GOPROXY))" \
		$(GO_BIN) mod vendor
endef

define CULVERT_BUILD_CMDS
	cd $(@D); $(HOST_GO_HOST_ENV) GOOS=linux $(CULVERT_GOENV) CGO_ENABLED=0 \
		$(GO_BIN) build -trimpath -buildvcs=false \
		$$(grep '^-' cmd/culvert/gcflags) \
		-ldflags "-s -w -X main.version=$(CULVERT_VERSION)" \
		-o culvert ./cmd/culvert
endef

define CULVERT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/culvert $(TARGET_DIR)/usr/sbin/culvert
	$(INSTALL) -D -m 0600 $(CULVERT_PKGDIR)/culvert.toml \
		$(TARGET_DIR)/etc/culvert/culvert.toml
endef

define CULVERT_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(CULVERT_PKGDIR)/S60culvert \
		$(TARGET_DIR)/etc/init.d/S60culvert
endef

define CULVERT_PERMISSIONS
	/etc/culvert d 0700 0 0 - - - - -
	/etc/culvert/culvert.toml f 0600 0 0 - - - - -
endef

# What the README asks of a kernel, where Buildroot builds it. The fragment
# in board/ says more, for boards of one's own.
CULVERT_LINUX_CONFIG_OPTIONS = \
	NET INET PACKET UNIX IPV6 IP_MULTIPLE_TABLES \
	XFRM XFRM_USER XFRM_STATISTICS INET_ESP INET6_ESP \
	PPP L2TP PPPOL2TP TUN \
	NETFILTER NF_CONNTRACK NF_TABLES NF_TABLES_INET NFT_CT NFT_NAT NFT_MASQ NFT_XFRM \
	CRYPTO CRYPTO_USER CRYPTO_AUTHENC CRYPTO_ECHAINIV CRYPTO_SEQIV \
	CRYPTO_AES CRYPTO_CBC CRYPTO_CTR CRYPTO_GCM CRYPTO_DES \
	CRYPTO_HMAC CRYPTO_MD5 CRYPTO_SHA1 CRYPTO_SHA256 CRYPTO_SHA512

define CULVERT_LINUX_CONFIG_FIXUPS
	$(foreach option,$(CULVERT_LINUX_CONFIG_OPTIONS),
		$(call KCONFIG_ENABLE_OPT,CONFIG_$(option)))
endef

$(eval $(generic-package))
