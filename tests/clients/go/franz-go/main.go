// franz-go as producer, consumer and member of a group.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"chronik/tests/clients/go/records"
)

func main() {
	records.Main("franz-go", produce, consume, join)
}

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func produce(options records.Options) error {
	settings := []kgo.Opt{
		kgo.SeedBrokers(options.Bootstrap),
		kgo.AllowAutoTopicCreation(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[options.Codec]),
		kgo.ProducerLinger(10 * time.Millisecond),
	}
	switch options.Acks {
	case "1":
		settings = append(settings, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		settings = append(settings, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(settings...)
	if err != nil {
		return err
	}
	defer client.Close()
	// Not RecordDeliveryTimeout: it counts from the record's own timestamp, which is years ago.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var failure atomic.Pointer[error]
	err = records.Each(options.Input, func(record records.Record) error {
		headers := make([]kgo.RecordHeader, 0, len(record.Headers))
		for _, header := range record.Headers {
			headers = append(headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		client.Produce(ctx, &kgo.Record{
			Topic:     options.Topic,
			Partition: options.Partition,
			Key:       record.Key,
			Value:     record.Value,
			Headers:   headers,
			Timestamp: time.UnixMilli(record.TimestampMs),
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				failure.CompareAndSwap(nil, &err)
			}
		})
		return nil
	})
	if err != nil {
		return err
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if failed := failure.Load(); failed != nil {
		return *failed
	}
	return nil
}

func consume(options records.Options) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(options.Bootstrap),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
			options.Topic: {options.Partition: kgo.NewOffset().AtStart()},
		}),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	end, err := endOffset(client, options)
	if err != nil {
		return err
	}
	file, err := os.Create(options.Output)
	if err != nil {
		return err
	}
	output := bufio.NewWriter(file)
	for position := int64(0); position < end; {
		ctx, cancel := context.WithTimeout(context.Background(), records.Silence)
		fetches := client.PollFetches(ctx)
		cancel()
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("after offset %d of %d: %w", position, end, err)
		}
		fetches.EachRecord(func(fetched *kgo.Record) {
			record := records.Record{
				Key:         fetched.Key,
				Value:       fetched.Value,
				TimestampMs: fetched.Timestamp.UnixMilli(),
			}
			for _, header := range fetched.Headers {
				record.Headers = append(record.Headers, records.Header{Name: header.Key, Value: header.Value})
			}
			records.Canonical(output, fetched.Offset, record)
			position = fetched.Offset + 1
		})
	}
	if err := output.Flush(); err != nil {
		return err
	}
	return file.Close()
}

// endOffset is the offset after the partition's last record.
func endOffset(client *kgo.Client, options records.Options) (int64, error) {
	partition := kmsg.NewListOffsetsRequestTopicPartition()
	partition.Partition = options.Partition
	partition.Timestamp = -1
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = options.Topic
	topic.Partitions = append(topic.Partitions, partition)
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(context.Background(), client)
	if err != nil {
		return 0, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("the broker lists no offsets of %s-%d", options.Topic, options.Partition)
	}
	listed := response.Topics[0].Partitions[0]
	return listed.Offset, kerr.ErrorForCode(listed.ErrorCode)
}
