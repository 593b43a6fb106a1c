# Writes culvert's TOML from UCI: /etc/config/culvert, and what the protocol handler has left for the interfaces that netifd
# brings up. Sourced by the init script, after OpenWrt's functions.sh.
#
# culvert_configure sets CULVERT_FILE, the file to run with, and CULVERT_WANTED, empty if there is nothing to run. It fails
# where the new configuration has mistakes, which it logs, and then leaves the old file as it was.
# shellcheck shell=dash disable=SC3043,SC2034

CULVERT_RUN=${CULVERT_RUN:-/var/run/culvert}
CULVERT_PROG=${CULVERT_PROG:-/usr/sbin/culvert}
CULVERT_FILE=$CULVERT_RUN/culvert.toml
CULVERT_WANTED=

NL='
'
TAB='	'

# culvert_run_dir makes the directory for what need not survive a boot. The daemon's control socket lies in /run, which
# OpenWrt has under another name.
culvert_run_dir() {
	mkdir -p "$CULVERT_RUN/netifd"
	chmod 0700 "$CULVERT_RUN"
	[ -n "$CULVERT_TEST" ] || [ -e /run ] || ln -s var/run /run
}

# culvert_quote sets QUOTED to a TOML string.
culvert_quote() {
	local rest="$1" out='' head
	while :; do
		head=${rest%%[\\\""$NL$TAB"]*}
		out=$out$head
		[ "$head" != "$rest" ] || break
		rest=${rest#"$head"}
		case $rest in
		\\*) out="$out\\\\" ;;
		\"*) out="$out\\\"" ;;
		"$NL"*) out="$out\\n" ;;
		*) out="$out\\t" ;;
		esac
		rest=${rest#?}
	done
	QUOTED="\"$out\""
}

# culvert_value sets VALUE to what TOML calls a value of that kind.
culvert_value() { # culvert_value KIND VALUE
	case $1 in
	int)
		VALUE=$2
		;;
	bool)
		case $2 in
		1 | on | true | yes | enabled) VALUE=true ;;
		0 | off | false | no | disabled) VALUE=false ;;
		*)
			culvert_quote "$2" # `culvert check` says what is wrong with it
			VALUE=$QUOTED
			;;
		esac
		;;
	span) # seconds, where no unit is written
		case $2 in
		*[!0-9]*) culvert_quote "$2" ;;
		*) culvert_quote "$2s" ;;
		esac
		VALUE=$QUOTED
		;;
	number) # a number, or a word that stands for none
		case $2 in
		*[!0-9]* | '') culvert_quote "$2" && VALUE=$QUOTED ;;
		*) VALUE=$2 ;;
		esac
		;;
	*)
		culvert_quote "$2"
		VALUE=$QUOTED
		;;
	esac
}

culvert_item() {
	culvert_quote "$1"
	ITEMS="$ITEMS${ITEMS:+, }$QUOTED"
}

# culvert_kebab sets key to an option's name as TOML has it.
culvert_kebab() {
	key=
	set -f
	local IFS=_ part
	for part in $1; do
		key=$key${key:+-}$part
	done
	set +f
}

# culvert_options writes the options of a section that are there: SECTION KIND:OPTION..., where KIND is str, int, number,
# bool, span or list. A list whose option ends in s in TOML and not in UCI is written OPTION=KEY.
culvert_options() {
	local section="$1" word kind option key value
	shift
	for word; do
		kind=${word%%:*}
		option=${word#*:}
		key=${option#*=}
		option=${option%%=*}
		config_get value "$section" "$option"
		[ -n "$value" ] || continue
		[ "$key" != "$option" ] || culvert_kebab "$key"
		if [ "$kind" = list ]; then
			ITEMS=
			config_list_foreach "$section" "$option" culvert_item
			echo "$key = [$ITEMS]"
		else
			culvert_value "$kind" "$value"
			echo "$key = $VALUE"
		fi
	done
}

# culvert_named begins the table of a section that has a name.
culvert_named() { # culvert_named SECTION TABLE
	local name
	config_get name "$1" name
	if [ -z "$name" ]; then
		case $1 in
		cfg[0-9a-f]*) # a section without a name either
			culvert_complain "a section of type '${2##*.}' has no option name: left out"
			return 1
			;;
		esac
		name=$1
	fi
	culvert_quote "$name"
	echo
	echo "[$2.$QUOTED]"
}

culvert_complain() {
	logger -t culvert -p daemon.err "/etc/config/culvert: $1"
}

culvert_main() {
	local log
	[ "$1" = main ] || return 0
	echo
	echo "[system]"
	culvert_options "$1" str:identity str:data_path str:crypto_engine
	config_get log "$1" log
	[ -z "$log" ] || {
		echo
		echo "[log]"
		culvert_options "$1" list:log=topics
	}
}

culvert_server() {
	local ipsec
	[ "$1" = server ] || return 0
	echo
	echo "[l2tp.server]"
	config_get ipsec "$1" use_ipsec
	case $ipsec in
	'') ;;
	1 | on | true | enabled) echo 'use-ipsec = "yes"' ;;
	0 | off | false | disabled) echo 'use-ipsec = "no"' ;;
	*)
		culvert_quote "$ipsec"
		echo "use-ipsec = $QUOTED"
		;;
	esac
	culvert_options "$1" bool:enabled str:ipsec_secret list:authentication str:default_profile list:listen int:max_mtu \
		int:max_mru span:keepalive_timeout number:max_sessions bool:one_session_per_host str:caller_id_type \
		list:allowed_address str:tunnel_secret
}

culvert_pool() {
	culvert_named "$1" ip.pool || return 0
	culvert_options "$1" list:range=ranges str:next_pool
}

culvert_profile() {
	culvert_named "$1" ppp.profile || return 0
	culvert_options "$1" str:local_address str:remote_address list:dns_server list:wins_server str:use_encryption \
		bool:use_ipv6 str:remote_ipv6_prefix_pool bool:change_tcp_mss bool:only_one str:rate_limit span:session_timeout \
		span:idle_timeout str:bridge str:on_up str:on_down
}

culvert_user() {
	culvert_named "$1" ppp.secret || return 0
	culvert_options "$1" str:password str:ipsec_secret str:service str:profile str:local_address str:remote_address \
		list:route=routes str:caller_id str:rate_limit bool:disabled str:comment
}

culvert_binding() {
	culvert_named "$1" l2tp.binding || return 0
	culvert_options "$1" str:user
}

culvert_client() {
	culvert_named "$1" l2tp.client || return 0
	culvert_options "$1" str:connect_to str:user str:password bool:use_ipsec str:ipsec_secret str:profile list:allow \
		bool:add_default_route int:default_route_distance str:use_peer_dns bool:dial_on_demand span:keepalive_timeout \
		int:max_mtu int:max_mru str:src_address bool:disabled str:comment
}

# culvert_uci writes the whole of /etc/config/culvert.
culvert_uci() {
	config_foreach culvert_main culvert
	config_foreach culvert_server server
	config_foreach culvert_pool pool
	config_foreach culvert_profile profile
	config_foreach culvert_user user
	config_foreach culvert_binding binding
	config_foreach culvert_client client
}

# culvert_netifd writes what the protocol handler has left.
culvert_netifd() {
	local file
	for file in "$CULVERT_RUN"/netifd/*.toml; do
		[ -f "$file" ] || continue
		echo
		cat "$file"
	done
}

# culvert_interfaces says whether /etc/config/network has interfaces of ours, up or not.
culvert_interfaces() {
	local found=''
	# shellcheck disable=SC2317
	culvert_is_ours() {
		local proto
		config_get proto "$1" proto
		[ "$proto" != culvert ] || found=1
	}
	config_load network
	config_foreach culvert_is_ours interface
	[ -n "$found" ]
}

culvert_configure() {
	local enabled own ours='' new="$CULVERT_RUN/culvert.toml.new" problems line
	CULVERT_FILE=$CULVERT_RUN/culvert.toml
	CULVERT_WANTED=
	culvert_interfaces && ours=1
	config_load culvert
	config_get_bool enabled main enabled 1
	[ "$enabled" = 1 ] || {
		rm -f "$CULVERT_FILE"
		return 0
	}
	config_get own main config
	if [ -n "$own" ] && [ -z "$ours" ]; then
		# Run as it is, so that what the console changes is kept.
		CULVERT_FILE=$own
		new=$own
	else
		(
			umask 077
			exec >"$new" || exit 1
			echo "# Made from /etc/config/culvert and /etc/config/network: change those. What the console changes here is lost."
			if [ -n "$own" ]; then cat "$own"; else culvert_uci; fi
			culvert_netifd
		) || return 1
	fi
	problems=$("$CULVERT_PROG" check -c "$new" 2>&1) || {
		echo "$problems" | while read -r line; do culvert_complain "$line"; done
		[ ! -f "$CULVERT_FILE" ] || CULVERT_WANTED=1
		return 1
	}
	# A daemon without a server and without clients has nothing to do.
	if [ "$new" = "$own" ] || grep -q '^\[l2tp\.client\.' "$new" || culvert_serves "$new"; then
		CULVERT_WANTED=1
	fi
	[ "$new" = "$CULVERT_FILE" ] || mv "$new" "$CULVERT_FILE"
}

# culvert_serves says whether the server is switched on, as it is where its table does not say otherwise.
culvert_serves() {
	awk '/^\[/ { server = ($0 == "[l2tp.server]"); if (server) on = 1 }
		server && /^enabled *= *false/ { on = 0 }
		END { exit !on }' "$1"
}
