// KafkaJS as producer, consumer and member of a group.
//
// It cannot write a header whose value is null: that header is left out.
// It has no public way to read a partition without a consumer group, so the consumer here sends
// Fetch through the client's own cluster object: its sockets, its codecs, its record decoder.
'use strict'

const fs = require('fs')
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const zstd = require('@mongodb-js/zstd')
const { SILENCE_MS, canonical, parse, records } = require('../node/records.js')

const EARLIEST = '-2'
const RECORDS_PER_SEND = 2_000

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: encoder => zstd.compress(encoder.buffer),
  decompress: buffer => zstd.decompress(buffer),
})

const COMPRESSION = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

function connection(options) {
  return new Kafka({ brokers: [options.bootstrap], clientId: 'kafkajs', logLevel: logLevel.ERROR })
}

async function produce(options) {
  const producer = connection(options).producer({
    idempotent: options.acks === -1,
    allowAutoTopicCreation: true,
    createPartitioner: () => () => options.partition,
  })
  await producer.connect()
  let messages = []
  const send = async () => {
    await producer.send({
      topic: options.topic,
      acks: options.acks,
      compression: COMPRESSION[options.codec],
      messages,
    })
    messages = []
  }
  for (const record of records(options.input)) {
    messages.push({
      key: record.key,
      value: record.value,
      headers: Object.fromEntries(record.headers.filter(([, content]) => content !== null)),
      timestamp: String(record.timestampMs),
      partition: options.partition,
    })
    if (messages.length === RECORDS_PER_SEND) await send()
  }
  if (messages.length > 0) await send()
  await producer.disconnect()
}

async function consume(options) {
  const { topic, partition } = options
  const kafka = connection(options)
  const createCluster = Object.getOwnPropertySymbols(kafka).find(
    symbol => symbol.description === 'private:Kafka:createCluster'
  )
  const cluster = kafka[createCluster]({ metadataMaxAge: SILENCE_MS })
  await cluster.connect()
  await cluster.addTargetTopic(topic)
  const [{ nodeId }] = Object.entries(cluster.findLeaderForPartitions(topic, [partition])).map(
    ([leader]) => ({ nodeId: leader })
  )
  const broker = await cluster.findBroker({ nodeId })
  const listed = await broker.listOffsets({
    topics: [{ topic, partitions: [{ partition, timestamp: EARLIEST }] }],
  })
  let position = Number(listed.responses[0].partitions[0].offset)
  const output = fs.createWriteStream(options.output)
  let end = position + 1
  let lastProgress = Date.now()
  while (position < end) {
    const response = await broker.fetch({
      maxWaitTime: 100,
      isolationLevel: 1,
      topics: [{ topic, partitions: [{ partition, fetchOffset: position, maxBytes: 1 << 20 }] }],
    })
    const part = response.responses[0].partitions[0]
    end = Number(part.highWatermark)
    // A batch is returned whole: what lies before the position asked for is not wanted again.
    for (const message of part.messages.filter(({ offset }) => Number(offset) >= position)) {
      output.write(
        canonical({
          offset: message.offset,
          timestampMs: message.timestamp,
          key: message.key,
          headers: Object.entries(message.headers),
          value: message.value,
        })
      )
      position = Number(message.offset) + 1
      lastProgress = Date.now()
    }
    if (Date.now() - lastProgress > SILENCE_MS) {
      throw new Error(`nothing more after offset ${position} of ${end}`)
    }
  }
  await new Promise(resolve => output.end(resolve))
  await cluster.disconnect()
}

async function join(options) {
  const { topic } = options
  const consumer = connection(options).consumer({
    groupId: options.group,
    sessionTimeout: options.sessionMs,
    heartbeatInterval: 500,
    maxWaitTimeInMs: 100,
    retry: { maxRetryTime: 1_000, retries: 100 },
  })
  const print = (...words) => fs.writeSync(1, `${words.join(' ')}\n`)
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
    print('assigned', (payload.memberAssignment[topic] ?? []).sort((a, b) => a - b).join(','))
  )
  consumer.on(consumer.events.REBALANCING, () => print('assigned', ''))
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, heartbeat, isRunning, isStale }) => {
      if (!isRunning() || isStale()) return
      for (const message of batch.messages) print('record', batch.partition, message.offset)
      const offset = String(Number(batch.lastOffset()) + 1)
      await consumer.commitOffsets([{ topic, partition: batch.partition, offset }])
      print('committed', batch.partition, offset)
      await heartbeat()
    },
  })
  // Connections of a time before the broker was killed may keep the process alive.
  process.once('SIGTERM', () => consumer.disconnect().then(() => process.exit(0)))
}

const options = parse()
const run = { produce, consume, join }[options.action]
run(options).catch(error => {
  console.error(`kafkajs: ${error.stack}`)
  process.exit(1)
})
