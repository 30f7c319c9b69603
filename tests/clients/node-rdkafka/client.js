// node-rdkafka (librdkafka) as producer and consumer.
//
// It writes a null header as the text "null", so that header is left out.
'use strict'

const fs = require('fs')
const { promisify } = require('util')
const Kafka = require('node-rdkafka')
const { SILENCE_MS, canonical, parse, records } = require('../node/records.js')

// How often delivery reports are asked for, and how much may wait for one.
const POLL_MS = 20
const UNANSWERED_MAX = 50_000

const QUEUE_FULL = Kafka.CODES.ERRORS.ERR__QUEUE_FULL

function connected(client) {
  return new Promise((resolve, reject) => {
    client.on('event.error', error => console.error(`node-rdkafka: ${error.message}`))
    client.connect({ timeout: SILENCE_MS }, error => (error ? reject(error) : resolve()))
  })
}

async function produce(options) {
  const producer = new Kafka.Producer({
    'bootstrap.servers': options.bootstrap,
    'compression.codec': options.codec,
    acks: options.acks,
    'enable.idempotence': options.acks === -1,
    'linger.ms': 10,
    'message.timeout.ms': 60_000,
    dr_cb: true,
  })
  let unanswered = 0
  const failures = []
  producer.on('delivery-report', error => {
    unanswered -= 1
    if (error) failures.push(error)
  })
  await connected(producer)
  producer.setPollInterval(POLL_MS)
  const pause = () => new Promise(resolve => setTimeout(resolve, POLL_MS))
  for (const record of records(options.input)) {
    while (unanswered >= UNANSWERED_MAX) await pause()
    const headers = record.headers
      .filter(([, content]) => content !== null)
      .map(([name, content]) => ({ [name]: content }))
    for (;;) {
      try {
        producer.produce(
          options.topic, options.partition, record.value, record.key,
          record.timestampMs, null, headers
        )
        break
      } catch (error) {
        if (error.code !== QUEUE_FULL) throw error
        await pause()
      }
    }
    unanswered += 1
  }
  await promisify(producer.flush.bind(producer))(60_000)
  while (unanswered > 0) await pause()
  await promisify(producer.disconnect.bind(producer))()
  if (failures.length > 0) {
    throw new Error(`${failures.length} records failed: ${failures[0].message}`)
  }
}

async function consume(options) {
  const { topic, partition } = options
  const consumer = new Kafka.KafkaConsumer({
    'bootstrap.servers': options.bootstrap,
    'group.id': 'unused: the partition is assigned by hand',
    'enable.auto.commit': false,
    'fetch.wait.max.ms': 100,
  })
  await connected(consumer)
  const query = promisify(consumer.queryWatermarkOffsets.bind(consumer))
  const { lowOffset, highOffset } = await query(topic, partition, SILENCE_MS)
  consumer.assign([{ topic, partition, offset: lowOffset }])
  consumer.setDefaultConsumeTimeout(1_000)
  const output = fs.createWriteStream(options.output)
  const take = promisify(consumer.consume.bind(consumer))
  let position = lowOffset
  let lastProgress = Date.now()
  while (position < highOffset) {
    for (const message of await take(1_000)) {
      output.write(
        canonical({
          offset: message.offset,
          timestampMs: message.timestamp,
          key: message.key,
          headers: (message.headers ?? []).flatMap(Object.entries),
          value: message.value,
        })
      )
      position = message.offset + 1
      lastProgress = Date.now()
    }
    if (Date.now() - lastProgress > SILENCE_MS) {
      throw new Error(`nothing more after offset ${position} of ${highOffset}`)
    }
  }
  await new Promise(resolve => output.end(resolve))
  await promisify(consumer.disconnect.bind(consumer))()
}

const options = parse()
const run = options.action === 'produce' ? produce : consume
run(options).then(
  () => process.exit(0),
  error => {
    console.error(`node-rdkafka: ${error.stack ?? error}`)
    process.exit(1)
  }
)
