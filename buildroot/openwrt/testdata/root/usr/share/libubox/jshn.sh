# Stands in for libubox's jshn.sh.
json_load() {
	jshn check "$1" || return
	JSON=$1
	JPATH=
}
json_select() {
	case $1 in
	..) JPATH=${JPATH%/*} ;;
	*)
		jshn type "$JSON" "$JPATH" "$1" >/dev/null || return
		JPATH=$JPATH/$1
		;;
	esac
}
json_get_type() {
	eval "$1=\$(jshn type \"\$JSON\" \"\$JPATH\" \"\$2\")"
}
json_get_var() {
	eval "$1=\$(jshn value \"\$JSON\" \"\$JPATH\" \"\$2\")"
}
json_get_vars() {
	local name
	for name; do json_get_var "$name" "$name"; done
}
json_init() { OUT=; }
json_add_boolean() { OUT="$OUT${OUT:+, }\"$1\": $([ "$2" = 1 ] && echo true || echo false)"; }
json_add_string() { OUT="$OUT${OUT:+, }\"$1\": \"$(echo "$2" | sed 's/[\\"]/\\&/g')\""; }
json_dump() { echo "{ $OUT }"; }
