# 2026-11-21 12:00:02 by culvert 0.1
/system logging
remove [find]
add topics=info
add topics=ipsec,debug
add topics=l2tp,packet
add topics="!ppp,!debug"
/system identity
set name=branch-7
/system settings
set data-path=auto crypto-engine=software allow-world-readable=no \
    led=green:user
/user
add name=admin \
    password-hash="\$6\$saltsalt\$cPbDmdp7sUA1v8Yjfppi8VeFqwELnkKCqsv5H2wx/S4LZwLhIhlK7tCX/4JqgCT3onV3./FXCDD2Y6iXkj4Lp/" \
    group=full
add name=watcher \
    password-hash="\$6\$saltsalt\$cPbDmdp7sUA1v8Yjfppi8VeFqwELnkKCqsv5H2wx/S4LZwLhIhlK7tCX/4JqgCT3onV3./FXCDD2Y6iXkj4Lp/" \
    group=read
/system logging action
set ring=500 remote=udp://192.0.2.9:514
/ip pool
add name=road ranges=10.99.0.2-10.99.0.100,10.99.1.0/24,10.99.2.7
add name=spill ranges=10.98.0.0/30
add name=v6pool ranges=2001:db8:99::/48
set road next-pool=spill
/ppp profile
add name=staff local-address=10.99.0.1 remote-address=road \
    dns-server=10.99.0.1,8.8.8.8 wins-server="" use-encryption=default \
    use-ipv6=yes remote-ipv6-prefix-pool=v6pool change-tcp-mss=yes only-one=no \
    rate-limit=10M/2M session-timeout=8h idle-timeout=0s bridge=br-lan \
    on-up=/etc/culvert/up.sh on-down=/etc/culvert/down.sh
set default local-address=10.99.0.1 remote-address=spill
/ppp secret
add name=Home disabled=no password="swordfish \" 1" service=l2tp profile=staff \
    local-address=172.16.1.1 remote-address=172.16.1.2 \
    routes="10.1.202.0/24 172.16.1.2 1,10.1.203.0/24" caller-id=198.51.100.7 \
    rate-limit="" comment="the other office"
add name="DOM\\ann" password="two\nlines" service=any profile=default
/ppp aaa
set use-radius=no accounting=yes interim-update=0s
/radius
add name=main address=192.0.2.20 secret="radius secret" service=ppp \
    authentication-port=1812 accounting-port=1813 timeout=300ms accept-coa=yes
/interface l2tp-server server
set enabled=yes use-ipsec=required ipsec-secret="a long shared secret" \
    authentication=mschap2 default-profile=default \
    listen="0.0.0.0:1701,[::]:1701" max-mtu=1400 max-mru=1410 mrru=disabled \
    keepalive-timeout=20s max-sessions=12 one-session-per-host=yes \
    caller-id-type=number allow-fast-path=no allowed-address=0.0.0.0/0 \
    tunnel-secret=tunnel accept-proto-version=all accept-pseudowire-type=all \
    l2tpv3-circuit-id="" l2tpv3-cookie-length=0 l2tpv3-digest-hash=md5 \
    l2tpv3-ether-bridge=br-lan
/ip ipsec profile
set default enc-algorithm=aes-256,aes-192,aes-128 \
    hash-algorithm=sha512,sha384,sha256,sha1 \
    dh-group=modp2048,ecp256,ecp384,x25519 lifetime=1d nat-traversal=yes \
    dpd-interval=2m dpd-maximum-failures=5
add name=old enc-algorithm=3des hash-algorithm=md5 dh-group=modp1024
/ip ipsec proposal
set default enc-algorithms=aes-256-gcm,aes-128-cbc auth-algorithms=sha256,sha1 \
    lifetime=30m pfs-group=none
add name=gcm enc-algorithms=aes-128-gcm auth-algorithms="" pfs-group=modp2048
/ip ipsec peer
add name=l2tp-in profile=default exchange-mode=main-l2tp \
    send-initial-contact=yes
add name=museum profile=old proposal=gcm exchange-mode=aggressive \
    send-initial-contact=no address=198.51.100.0/24,2001:db8::7
/ip ipsec identity
add peer=l2tp-in auth-method=pre-shared-key certificate="" key="" ca="" crl=""
add peer=museum secret=relics
/ip ipsec settings
set half-open=64 mark-mask=0x00ff0000
/interface l2tp-server
add name=l2tp-home user=Home
/interface l2tp-client
add name=l2tp-out1 disabled=no connect-to=vpn.example.com@red user=user1 \
    password=swordfish use-ipsec=yes ipsec-secret="another secret" \
    profile=default-encryption allow=mschap2 add-default-route=no \
    default-route-distance=1 use-peer-dns=exclusively dial-on-demand=no \
    keepalive-timeout=60s max-mtu=1450 max-mru=1450 mrru=1600 src-address="" \
    tunnel-secret="another tunnel" l2tp-proto-version=l2tpv2 \
    l2tpv3-cookie-length=4 l2tpv3-digest-hash=sha1 l2tpv3-circuit-id="" \
    allow-fast-path=no comment=""
/interface l2tp-ether
add name=l2tp-ether1 disabled=yes connect-to=198.51.100.7 \
    l2tp-proto-version=l2tpv3-ip mac-address=auto mtu=1420 cookie-length=8 \
    digest-hash=none circuit-id=a use-l2-specific-sublayer=no bridge=br-lan \
    use-ipsec=no ipsec-secret="" allow-fast-path=no comment=""
add name=l2tp-ether2 disabled=no unmanaged-mode=yes connect-to=2001:db8::7 \
    mac-address=02:00:00:00:00:01 local-address=2001:db8::1 local-tunnel-id=1 \
    remote-tunnel-id=2 local-session-id=3 remote-session-id=4 \
    send-cookie=01020304 peer-cookie=0102030405060708
/ip firewall settings
set manage=no masquerade=""
/system watchdog
set watchdog-timer=yes device=/dev/watchdog0 timeout=1m
/system reset-button
set enabled=yes hold-time=3s on-event=/etc/culvert/reset.sh
/network
set dns-server=192.168.88.1,2001:db8::53 ip-forward=yes
/network interface
add name=eth0 address=192.168.88.1/24,2001:db8:88::1/64 dhcp-client=no \
    gateway=192.168.88.254,fe80::1 routes="10.0.0.0/8 192.168.88.253 5" \
    mtu=1492 disabled=no
add name=eth1 dhcp-client=yes
