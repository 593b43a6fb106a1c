# Stands in for netifd's netifd-proto.sh: what netifd is told is written down.
. /lib/functions.sh
. /usr/share/libubox/jshn.sh
for name in config_add_string config_add_boolean config_add_int config_add_array init_update set_keep add_ipv4_address \
	add_ipv4_route add_dns_server send_update run_command kill_command notify_error block_restart setup_failed add_host_dependency; do
	eval "proto_$name() { rec proto_$name \"\$@\"; }"
done
init_proto() {
	proto=$1
	cmd=$2
	interface=$3
	data=$4
}
add_protocol() {
	[ "$proto" = "$1" ] || return 0
	case $cmd in
	dump)
		"proto_$1_init_config"
		rec dump "$1" "available=$available" "no_device=$no_device" "no_proto_task=${no_proto_task:-0}"
		;;
	*)
		json_load "$data"
		"proto_$1_$cmd" "$interface"
		;;
	esac
}
