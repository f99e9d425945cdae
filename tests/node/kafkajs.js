// kafkajs as its users use it. What the verbs have to do and print stands in tests/compatibility/main.rs.
//
// Two things are not as usual. kafkajs brings gzip alone and takes other codecs from whoever has them: they are given to
// it here. And it reads in groups only: `consume` drives the part of it below the groups.

'use strict'

const fs = require('fs')
const path = require('path')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const Batch = require('kafkajs/src/consumer/batch')
const lz4 = require('lz4-napi')
const snappy = require('snappy')
const zstd = require('@bokuweb/zstd-wasm')

const kafkaAt = bootstrap => new Kafka({ clientId: 'compatibility', brokers: [bootstrap], logLevel: logLevel.WARN })

// Kafka's own clients wrap snappy blocks in a frame of their own.
const XERIAL = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0])

const codecs = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

CompressionCodecs[CompressionTypes.Snappy] = () => ({
  compress: encoder => snappy.compress(encoder.buffer),
  decompress: async buffer => {
    if (!buffer.subarray(0, 8).equals(XERIAL)) return snappy.uncompress(buffer)
    const blocks = []
    for (let at = 16; at < buffer.length; at += 4 + buffer.readUInt32BE(at)) {
      blocks.push(await snappy.uncompress(buffer.subarray(at + 4, at + 4 + buffer.readUInt32BE(at))))
    }
    return Buffer.concat(blocks)
  },
})
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

async function admin(bootstrap, topic) {
  const admin = kafkaAt(bootstrap).admin()
  await admin.connect()
  console.log('brokers', (await admin.describeCluster()).brokers.length)
  const wanted = { topics: [{ topic, numPartitions: 3, replicationFactor: 1 }] }
  await admin.createTopics(wanted)
  // It tells of a topic that is there by its answer, and swallows the error.
  console.log('created again', (await admin.createTopics(wanted)) ? 'yes' : 36)
  const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
  await settle(async () => (await partitions()) === 3)
  console.log('partitions', await partitions())
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
  await settle(async () => (await partitions()) === 5)
  console.log('partitions', await partitions())

  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const retention = async () => {
    const described = await admin.describeConfigs({ resources: [resource], includeSynonyms: false })
    return described.resources[0].configEntries.find(entry => entry.configName === 'retention.ms').configValue
  }
  // It knows only the old request, which replaces all that is set.
  const alter = configEntries => admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] })
  console.log('retention', await retention())
  await alter([{ name: 'retention.ms', value: '3600000' }])
  await settle(async () => (await retention()) === '3600000')
  console.log('retention', await retention())
  await alter([])
  await settle(async () => (await retention()) === '604800000')
  console.log('retention', await retention())

  const producer = kafkaAt(bootstrap).producer()
  await producer.connect()
  for (let number = 0; number < 10; number++) {
    const timestamp = String(1_700_000_000_000 + number)
    await producer.send({ topic, messages: [{ value: String(number), partition: 0, timestamp }] })
  }
  await producer.disconnect()
  const first = listed => listed.find(({ partition }) => partition === 0)
  const offsets = async () => {
    const { low, high } = first(await admin.fetchTopicOffsets(topic))
    return `${low}..${high}`
  }
  console.log('offsets', await offsets())
  console.log('offset by time', first(await admin.fetchTopicOffsetsByTimestamp(topic, 1_700_000_000_006)).offset)
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
  console.log('offsets', await offsets())
  await admin.deleteTopics({ topics: [topic] })
  const deleted = async () => !(await admin.listTopics()).includes(topic)
  await settle(deleted)
  console.log('deleted', await deleted())
  await admin.disconnect()
}

async function produce(bootstrap, topic, codec, file) {
  const producer = kafkaAt(bootstrap).producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const lines = fs.readFileSync(file, 'utf8').trimEnd().split('\n')
  const messages = lines.map((line, number) => ({ ...parse(line), partition: number % 3 }))
  const next = [0, 0, 0]
  for (let from = 0; from < messages.length; from += 150) {
    const batch = messages.slice(from, from + 150)
    const answers = await producer.send({ topic, acks: -1, compression: codecs[codec], messages: batch })
    for (const { partition, baseOffset } of answers) {
      require_(Number(baseOffset) === next[partition], `${topic}-${partition}: base offset ${baseOffset}`)
    }
    batch.forEach(({ partition }) => next[partition]++)
  }
  await producer.disconnect()
}

async function consume(bootstrap, folder, wanted) {
  const kafka = kafkaAt(bootstrap)
  const createCluster = Object.getOwnPropertySymbols(kafka).find(symbol => String(symbol).includes('createCluster'))
  const cluster = kafka[createCluster]({ metadataMaxAge: 300000 })
  await cluster.connect()
  await cluster.addMultipleTargetTopics([...new Set(wanted.map(word => word.split('/')[0]))])
  for (const word of wanted) {
    const [topic, partition, count] = word.split('/')
    const [nodeId] = Object.keys(cluster.findLeaderForPartitions(topic, [Number(partition)]))
    const broker = await cluster.findBroker({ nodeId })
    let lines = ''
    let seen = 0
    while (seen < Number(count)) {
      const asked = { partition: Number(partition), fetchOffset: String(seen), maxBytes: 4 << 20 }
      const { responses } = await broker.fetch({ maxWaitTime: 500, isolationLevel: 1, topics: [{ topic, partitions: [asked] }] })
      const batch = new Batch(topic, String(seen), responses[0].partitions[0])
      require_(!batch.isEmpty(), `${word}: nothing at ${seen}`)
      for (const { offset, key, value, headers } of batch.messages) {
        require_(Number(offset) === seen, `${word}: offset ${offset} after ${seen} records`)
        seen++
        const pairs = Object.entries(headers).map(([name, content]) => `${encode(Buffer.from(name))}=${encode(content)}`)
        lines += [encode(key), encode(value), ...pairs].join('\t') + '\n'
      }
      require_(Number(batch.highWatermark) === Number(count), `${word}: the end is ${batch.highWatermark}`)
    }
    fs.writeFileSync(path.join(folder, `${topic}-${partition}`), lines)
  }
  await cluster.disconnect()
}

// Lines of hexadecimal text: key, value, headers (name=value), separated by tabs; null is no bytes at all.
function parse(line) {
  const [key, value, ...pairs] = line.split('\t')
  const headers = Object.fromEntries(pairs.map(pair => pair.split('=')).map(([name, content]) => [decode(name), decode(content)]))
  return { key: decode(key), value: decode(value), headers }
}

function decode(field) {
  return field === 'null' ? null : Buffer.from(field, 'hex')
}

function encode(content) {
  return content === null ? 'null' : Buffer.from(content).toString('hex')
}

function require_(holds, complaint) {
  if (!holds) throw new Error(complaint)
}

// Waits a little for what a broker learns a moment later.
async function settle(condition) {
  for (let i = 0; i < 200 && !(await condition()); i++) await new Promise(resolve => setTimeout(resolve, 50))
}

async function main([verb, bootstrap, ...rest]) {
  await zstd.init()
  if (verb === 'admin') return admin(bootstrap, ...rest)
  if (verb === 'consume') return consume(bootstrap, rest[0], rest.slice(1))
  require_(verb === 'produce', `no verb ${verb}`)
  for (const word of rest.slice(1)) await produce(bootstrap, ...word.split('/'), rest[0])
}

main(process.argv.slice(2)).catch(error => {
  console.error(error)
  process.exit(1)
})
