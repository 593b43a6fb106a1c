# Stands in for OpenWrt's functions.sh: UCI files as variables, with the functions and the meaning of the real one.
rec() {
	local IFS='|'
	echo "$*" >>/calls
}
config_load() {
	local old
	for old in $(set | sed -n 's/^\(CONFIG_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$old"; done
	eval "$(uci-shell "/etc/config/$1")"
}
config_get() {
	eval "$1=\${CONFIG_${2}_${3}:-\$4}"
}
config_get_bool() {
	local _tmp
	config_get _tmp "$2" "$3" "$4"
	case "$_tmp" in
	1|on|true|yes|enabled) _tmp=1 ;;
	0|off|false|no|disabled) _tmp=0 ;;
	*) _tmp="$4" ;;
	esac
	eval "$1=\$_tmp"
}
config_foreach() {
	local ___function="$1" ___type="$2" section cfgtype
	shift 2
	for section in $CONFIG_SECTIONS; do
		config_get cfgtype "$section" TYPE
		[ -n "$___type" ] && [ "$cfgtype" != "$___type" ] && continue
		eval "$___function \"\$section\" \"\$@\""
	done
}
config_list_foreach() {
	local section="$1" option="$2" function="$3" val len c=1
	shift 3
	config_get len "$section" "${option}_LENGTH"
	[ -z "$len" ] && return 0
	while [ $c -le "$len" ]; do
		config_get val "$section" "${option}_ITEM$c"
		eval "$function \"\$val\" \"\$@\""
		c=$((c + 1))
	done
}
