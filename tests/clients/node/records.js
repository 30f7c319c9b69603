// The records every client writes and the text every client prints: see ../README.md.
// Knows no Kafka client. Values are Buffers throughout: the input need not be UTF-8.
'use strict'

const fs = require('fs')
const { parseArgs } = require('util')

const TIMESTAMP_MS_BASE = 1_600_000_000_000

// A consumer that gets nothing for this long while records are missing has failed.
const SILENCE_MS = 30_000

// The one command line of all clients.
function parse() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      bootstrap: { type: 'string' },
      topic: { type: 'string' },
      partition: { type: 'string', default: '0' },
      codec: { type: 'string', default: 'none' },
      acks: { type: 'string', default: 'all' },
      input: { type: 'string' },
      output: { type: 'string' },
      group: { type: 'string' },
      'session-ms': { type: 'string', default: '30000' },
    },
  })
  return {
    ...values,
    action: positionals[0],
    partition: Number(values.partition),
    acks: values.acks === 'all' ? -1 : Number(values.acks),
    sessionMs: Number(values['session-ms']),
  }
}

// One record for each line of the file, numbered from 1. `headers` is a list of pairs.
function* records(path) {
  const bytes = fs.readFileSync(path)
  let number = 0
  for (let start = 0; start < bytes.length; ) {
    const found = bytes.indexOf(10, start)
    const end = found < 0 ? bytes.length : found
    number += 1
    const text = Buffer.from(String(number))
    yield {
      key: number % 1000 === 500 ? null : text,
      value: number % 1000 === 0 ? null : bytes.subarray(start, end),
      headers: [['line', text], ['empty', Buffer.alloc(0)], ['none', null]],
      timestampMs: TIMESTAMP_MS_BASE + number,
    }
    start = end + 1
  }
}

// One consumed record as one line of bytes. `headers` is a list of pairs.
function canonical({ offset, timestampMs, key, headers, value }) {
  const shown = headers.flatMap(([name, content], index) => [
    Buffer.from(`${index > 0 ? ',' : ''}${name}=`),
    content === null || content === undefined ? Buffer.from('NULL') : Buffer.from(content),
  ])
  return Buffer.concat([
    Buffer.from(`${offset}\t${timestampMs}\t${key ? key.length : -1}\t`),
    key ?? Buffer.alloc(0),
    Buffer.from('\t'),
    ...shown,
    Buffer.from(`\t${value ? value.length : -1}\t`),
    value ?? Buffer.alloc(0),
    Buffer.from('\n'),
  ])
}

module.exports = { SILENCE_MS, canonical, parse, records }
