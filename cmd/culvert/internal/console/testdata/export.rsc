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
set crypto-engine=software
/user
add name=admin \
    password-hash="\$6\$saltsalt\$cPbDmdp7sUA1v8Yjfppi8VeFqwELnkKCqsv5H2wx/S4LZwLhIhlK7tCX/4JqgCT3onV3./FXCDD2Y6iXkj4Lp/"
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
    dns-server=10.99.0.1,8.8.8.8 remote-ipv6-prefix-pool=v6pool \
    rate-limit=10M/2M session-timeout=8h bridge=br-lan \
    on-up=/etc/culvert/up.sh on-down=/etc/culvert/down.sh
set default local-address=10.99.0.1 remote-address=spill
/ppp secret
add name=Home disabled=no password="swordfish \" 1" service=l2tp profile=staff \
    local-address=172.16.1.1 remote-address=172.16.1.2 \
    routes="10.1.202.0/24 172.16.1.2 1,10.1.203.0/24" caller-id=198.51.100.7 \
    comment="the other office"
add name="DOM\\ann" password="two\nlines" profile=default
/radius
add name=main address=192.0.2.20 secret="radius secret" accept-coa=yes
/interface l2tp-server server
set enabled=yes use-ipsec=required ipsec-secret="a long shared secret" \
    default-profile=default max-mtu=1400 max-mru=1410 keepalive-timeout=20s \
    max-sessions=12 one-session-per-host=yes caller-id-type=number \
    allowed-address=0.0.0.0/0 tunnel-secret=tunnel l2tpv3-ether-bridge=br-lan
/ip ipsec profile
set default enc-algorithm=aes-256,aes-192,aes-128 \
    hash-algorithm=sha512,sha384,sha256,sha1 \
    dh-group=modp2048,ecp256,ecp384,x25519
add name=old enc-algorithm=3des hash-algorithm=md5 dh-group=modp1024
/ip ipsec proposal
set default enc-algorithms=aes-256-gcm,aes-128-cbc
add name=gcm enc-algorithms=aes-128-gcm pfs-group=modp2048
/ip ipsec peer
add name=l2tp-in
add name=museum profile=old proposal=gcm exchange-mode=aggressive \
    send-initial-contact=no address=198.51.100.0/24,2001:db8::7
/ip ipsec identity
add peer=l2tp-in
add peer=museum secret=relics
/ip ipsec settings
set half-open=64 mark-mask=0x00ff0000
/interface l2tp-server
add name=l2tp-home user=Home
/interface l2tp-client
add name=l2tp-out1 disabled=no connect-to=vpn.example.com@red user=user1 \
    password=swordfish use-ipsec=yes ipsec-secret="another secret" \
    use-peer-dns=exclusively mrru=1600 l2tpv3-cookie-length=4 \
    l2tpv3-digest-hash=sha1
/interface l2tp-ether
add name=l2tp-ether1 disabled=yes connect-to=198.51.100.7 \
    l2tp-proto-version=l2tpv3-ip cookie-length=8 digest-hash=none circuit-id=a \
    bridge=br-lan use-ipsec=no
add name=l2tp-ether2 disabled=no unmanaged-mode=yes connect-to=2001:db8::7 \
    mac-address=02:00:00:00:00:01 local-address=2001:db8::1 local-tunnel-id=1 \
    remote-tunnel-id=2 local-session-id=3 remote-session-id=4 \
    send-cookie=01020304 peer-cookie=0102030405060708
