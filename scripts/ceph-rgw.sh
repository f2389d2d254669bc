#!/bin/sh
# A Ceph object gateway on this machine, for tests against a real S3 server: one monitor, one OSD in memory, one gateway.
#
#   apt-get install --no-install-recommends radosgw ceph-mon ceph-osd curl uuid-runtime
#   scripts/ceph-rgw.sh start DIR PORT     keys test/test; prints the endpoint once it answers
#   scripts/ceph-rgw.sh stop DIR
set -eu

case "${1:-}" in
start) [ $# -eq 3 ] ;;
stop) [ $# -eq 2 ] ;;
*) false ;;
esac || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }

mkdir -p "$2"
dir=$(cd "$2" && pwd)
export CEPH_CONF="$dir/ceph.conf"

if [ "$1" = stop ]; then
    for pid in "$dir"/run/*.pid; do
        [ -e "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
    done
    exit 0
fi

port=$3
for program in ceph-mon ceph-osd radosgw monmaptool uuidgen curl; do
    command -v "$program" >/dev/null || { echo "ceph-rgw: $program is missing (see the head of this file)" >&2; exit 3; }
done
monitor=$((port + 1))
mkdir -p "$dir/mon" "$dir/osd" "$dir/run" "$dir/log"
fsid=$(uuidgen)
cat > "$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$monitor
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind port min = $((port + 10))
ms bind port max = $((port + 60))
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 2000
osd crush chooseleaf type = 0
osd objectstore = memstore
osd class update on start = false
osd crush update on start = false
memstore device bytes = 3221225472
mon data avail crit = 1
run dir = $dir/run
log file = $dir/log/\$name.log
pid file = $dir/run/\$name.pid
admin socket = $dir/run/\$name.asok
mon data = $dir/mon
osd data = $dir/osd
CONF

# Each step may come before what it needs is ready.
eventually() {
    tries=0
    until "$@" >>"$dir/log/start.log" 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || { echo "ceph-rgw: in vain: $*; see $dir/log" >&2; exit 1; }
        sleep 0.1
    done
}

monmaptool --create --fsid "$fsid" --addv a "[v1:127.0.0.1:$monitor]" "$dir/monmap" >>"$dir/log/start.log"
ceph-mon --mkfs -i a --monmap "$dir/monmap" >>"$dir/log/start.log" 2>&1
ceph-mon -i a >>"$dir/log/start.log" 2>&1
osd=$(uuidgen)
eventually ceph osd new "$osd" 0
ceph-osd -i 0 --mkfs --osd-uuid "$osd" >>"$dir/log/start.log" 2>&1
ceph-osd -i 0 >>"$dir/log/start.log" 2>&1
eventually ceph osd crush add osd.0 1.0 root=default host=h
radosgw -n client.rgw --rgw-frontends="beast endpoint=127.0.0.1:$port" >>"$dir/log/start.log" 2>&1
eventually curl -sf -o /dev/null "127.0.0.1:$port/"
eventually radosgw-admin user create --uid=test --display-name=test --access-key=test --secret-key=test
echo "http://127.0.0.1:$port"
