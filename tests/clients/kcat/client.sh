#!/usr/bin/env bash
# kcat (librdkafka) as producer and consumer.
#
# It sets no timestamps, its headers are the same for all records, and with -Z (needed for null
# keys and values) it writes every empty value as null.
set -euo pipefail
export LC_ALL=C # lines are bytes

action=${1:?produce or consume}
shift
topic='' partition=0 codec=none acks=all bootstrap='' input='' output=''
while [ $# -ge 2 ]; do
  case $1 in
    --bootstrap) bootstrap=$2 ;;
    --topic) topic=$2 ;;
    --partition) partition=$2 ;;
    --codec) codec=$2 ;;
    --acks) acks=$2 ;;
    --input) input=$2 ;;
    --output) output=$2 ;;
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
  *) echo "kcat: $action is neither produce nor consume" >&2; exit 2 ;;
esac
