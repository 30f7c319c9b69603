#!/usr/bin/env bash
# kcat (librdkafka) as producer, consumer and member of a group.
#
# It sets no timestamps, its headers are the same for all records, and with -Z (needed for null
# keys and values) it writes every empty value as null.
set -euo pipefail
export LC_ALL=C # lines are bytes

action=${1:?produce, consume or join}
shift
topic='' partition=0 codec=none acks=all bootstrap='' input='' output='' group='' session_ms=30000
while [ $# -ge 2 ]; do
  case $1 in
    --bootstrap) bootstrap=$2 ;;
    --topic) topic=$2 ;;
    --partition) partition=$2 ;;
    --codec) codec=$2 ;;
    --acks) acks=$2 ;;
    --input) input=$2 ;;
    --output) output=$2 ;;
    --group) group=$2 ;;
    --session-ms) session_ms=$2 ;;
    *) echo "kcat: unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
kcat=${CHRONIK_TEST_KCAT:-kcat}

case $action in
  produce)
    idempotence=false
    [ "$acks" = all ] && idempotence=true
    awk '{ print (NR % 1000 == 500 ? "" : NR) "\t" (NR % 1000 == 0 ? "" : $0) }' "$input" |
      "$kcat" -P -b "$bootstrap" -t "$topic" -p "$partition" -z "$codec" -K $'\t' -Z \
        -H client=kcat -H empty= -H none \
        -X acks="$acks" -X enable.idempotence="$idempotence" -X linger.ms=10 -X message.timeout.ms=60000
    ;;
  consume)
    "$kcat" -C -q -e -b "$bootstrap" -t "$topic" -p "$partition" -o beginning \
      -X fetch.wait.max.ms=100 -f '%o\t%T\t%K\t%k\t%h\t%S\t%s\n' > "$output"
    ;;
  join)
    # "% Group g rebalanced (memberid m): assigned: t [0], t [1]" on standard error becomes
    # "assigned 0,1" on standard output. Commits are the library's own and are not told.
    exec "$kcat" -G "$group" "$topic" -u -b "$bootstrap" -X auto.offset.reset=earliest \
      -X session.timeout.ms="$session_ms" -X heartbeat.interval.ms=500 -X fetch.wait.max.ms=100 \
      -X auto.commit.interval.ms=100 -X partition.assignment.strategy=range \
      -f 'record %p %o\n' 2> >(exec sed -un \
        -e '/: revoked: /{s/.*/assigned /p;d}' \
        -e '/: assigned: /{s/.*: assigned: //;s/[^ ]* \[\([0-9]*\)\]/\1/g;s/ //g;s/^/assigned /p;d}' \
        -e 'w /dev/stderr')
    ;;
  *) echo "kcat: $action is not produce, consume or join" >&2; exit 2 ;;
esac
