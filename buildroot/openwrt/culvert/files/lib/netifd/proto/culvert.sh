#!/bin/sh
# netifd's handler of `option proto culvert`: an L2TP/IPsec client. One daemon serves all interfaces (UDP 500 and 4500 can be
# taken only once): setup leaves the interface's part of the daemon's configuration where the init script finds it, and
# has the daemon read it. From then on the daemon dials and redials; culvert-up and culvert-down, its scripts, tell netifd
# about the link, and culvert-watch, the handler's task, why there is none.
# shellcheck shell=dash disable=SC1091,SC2034,SC3043,SC2154

CULVERT_RUN=${CULVERT_RUN:-/var/run/culvert}
CULVERT_LIB=${CULVERT_LIB:-/usr/lib/culvert}
CULVERT_INIT=${CULVERT_INIT:-/etc/init.d/culvert}
CULVERT_NETIFD=${CULVERT_NETIFD:-/lib/netifd}

[ -n "$INCLUDE_ONLY" ] || {
	. /lib/functions.sh
	. ../netifd-proto.sh
	init_proto "$@"
}

proto_culvert_init_config() {
	proto_config_add_string server
	proto_config_add_string username
	proto_config_add_string password
	proto_config_add_boolean use_ipsec
	proto_config_add_string ipsec_secret
	proto_config_add_array 'auth:list(string)'
	proto_config_add_string keepalive
	proto_config_add_string src_address
	proto_config_add_boolean ipv6
	proto_config_add_int mtu
	available=1
	no_device=1
	lasterror=1
}

# proto_culvert_refuse: nothing but another configuration would help.
proto_culvert_refuse() {
	proto_notify_error "$1" "$2"
	proto_block_restart "$1"
	return 1
}

# proto_culvert_auth collects the list `auth` that jshn has.
proto_culvert_auth() {
	local i=1 type method
	ITEMS=
	json_get_type type auth
	case $type in
	array)
		json_select auth
		while json_get_type type "$i" && [ "$type" = string ]; do
			json_get_var method "$i"
			culvert_item "$method"
			i=$((i + 1))
		done
		json_select ..
		;;
	string)
		json_get_var method auth
		culvert_item "$method"
		;;
	esac
}

proto_culvert_setup() {
	local interface="$1" name="l2tp-$1" file="$CULVERT_RUN/netifd/$1.toml"
	local server username password use_ipsec ipsec_secret keepalive src_address ipv6 mtu address found=''
	json_get_vars server username password use_ipsec ipsec_secret keepalive src_address ipv6 mtu
	. "$CULVERT_LIB/config.sh"

	[ -n "$server" ] || proto_culvert_refuse "$interface" NO_SERVER || return
	[ -n "$username" ] || proto_culvert_refuse "$interface" NO_USERNAME || return
	[ ${#name} -le 15 ] || proto_culvert_refuse "$interface" NAME_TOO_LONG || return # "l2tp-" and ten characters
	: "${use_ipsec:=1}"
	[ "$use_ipsec" = 0 ] || [ -n "$ipsec_secret" ] || proto_culvert_refuse "$interface" NO_IPSEC_SECRET || return

	# The way to the server must not lead through the tunnel; netifd also waits for the interface that it leads through.
	culvert_run_dir
	: >"$CULVERT_RUN/netifd/$interface.hosts"
	for address in $(resolveip -t 5 "$server"); do
		proto_add_host_dependency "$interface" "$address"
		echo "$address" >>"$CULVERT_RUN/netifd/$interface.hosts"
		found=1
	done
	[ -n "$found" ] || {
		proto_notify_error "$interface" SERVER_NOT_FOUND
		sleep 5
		proto_setup_failed "$interface"
		return 1
	}

	(
		umask 077
		exec >"$file.new"
		echo "# network.$interface"
		echo "[ppp.profile.$name]"
		[ "$ipv6" = 1 ] && echo "use-ipv6 = true" || echo "use-ipv6 = false"
		culvert_quote "$CULVERT_NETIFD/culvert-up"
		echo "on-up = $QUOTED"
		culvert_quote "$CULVERT_NETIFD/culvert-down"
		echo "on-down = $QUOTED"
		echo "[l2tp.client.$name]"
		echo "profile = \"$name\""
		culvert_quote "$server"
		echo "connect-to = $QUOTED"
		culvert_quote "$username"
		echo "user = $QUOTED"
		culvert_quote "$password"
		echo "password = $QUOTED"
		culvert_value bool "$use_ipsec"
		echo "use-ipsec = $VALUE"
		[ -z "$ipsec_secret" ] || { culvert_quote "$ipsec_secret" && echo "ipsec-secret = $QUOTED"; }
		proto_culvert_auth
		[ -z "$ITEMS" ] || echo "allow = [$ITEMS]"
		[ -z "$keepalive" ] || { culvert_value span "$keepalive" && echo "keepalive-timeout = $VALUE"; }
		[ -z "$src_address" ] || { culvert_quote "$src_address" && echo "src-address = $QUOTED"; }
		[ -z "$mtu" ] || printf 'max-mtu = %s\nmax-mru = %s\n' "$mtu" "$mtu"
	)
	mv "$file.new" "$file"
	"$CULVERT_INIT" reload
	# The daemon that runs has taken it in, or its mistakes are in the log.
	grep -qxF "[l2tp.client.$name]" "$CULVERT_RUN/culvert.toml" 2>/dev/null || {
		rm -f "$file"
		proto_culvert_refuse "$interface" BAD_CONFIGURATION
		return
	}
	proto_run_command "$interface" "$CULVERT_NETIFD/culvert-watch" "$interface" "$name"
}

proto_culvert_teardown() {
	local interface="$1"
	rm -f "$CULVERT_RUN/netifd/$interface.toml" "$CULVERT_RUN/netifd/$interface.hosts"
	proto_kill_command "$interface"
	"$CULVERT_INIT" reload
}

[ -n "$INCLUDE_ONLY" ] || {
	add_protocol culvert
}
