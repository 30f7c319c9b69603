// Sarama as producer, consumer and member of a group.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"

	"chronik/tests/clients/go/records"
)

func main() {
	records.Main("sarama", produce, consume, join)
}

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func produce(options records.Options) error {
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Compression = codecs[options.Codec]
	config.Producer.Flush.Frequency = 10 * time.Millisecond
	config.Producer.Return.Successes = false
	switch options.Acks {
	case "all":
		config.Producer.RequiredAcks = sarama.WaitForAll
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1 // Sarama asks for this with idempotence
	case "1":
		config.Producer.RequiredAcks = sarama.WaitForLocal
	case "0":
		config.Producer.RequiredAcks = sarama.NoResponse
	}
	producer, err := sarama.NewAsyncProducer([]string{options.Bootstrap}, config)
	if err != nil {
		return err
	}
	var failure error
	failed := make(chan struct{})
	go func() {
		for produced := range producer.Errors() {
			if failure == nil {
				failure = produced.Err
			}
		}
		close(failed)
	}()
	err = records.Each(options.Input, func(record records.Record) error {
		message := &sarama.ProducerMessage{
			Topic:     options.Topic,
			Partition: options.Partition,
			Timestamp: time.UnixMilli(record.TimestampMs),
		}
		// An encoder that holds nil would be an empty key, not a null one.
		if record.Key != nil {
			message.Key = sarama.ByteEncoder(record.Key)
		}
		if record.Value != nil {
			message.Value = sarama.ByteEncoder(record.Value)
		}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers,
				sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
		}
		producer.Input() <- message
		return nil
	})
	producer.AsyncClose()
	<-failed
	if err != nil {
		return err
	}
	return failure
}

func consume(options records.Options) error {
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	config.Consumer.Return.Errors = true
	client, err := sarama.NewClient([]string{options.Bootstrap}, config)
	if err != nil {
		return err
	}
	defer client.Close()
	end, err := client.GetOffset(options.Topic, options.Partition, sarama.OffsetNewest)
	if err != nil {
		return err
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return err
	}
	partition, err := consumer.ConsumePartition(options.Topic, options.Partition, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	file, err := os.Create(options.Output)
	if err != nil {
		return err
	}
	output := bufio.NewWriter(file)
	silence := time.NewTimer(records.Silence)
	for position := int64(0); position < end; {
		silence.Reset(records.Silence)
		select {
		case message := <-partition.Messages():
			record := records.Record{
				Key:         message.Key,
				Value:       message.Value,
				TimestampMs: message.Timestamp.UnixMilli(),
			}
			for _, header := range message.Headers {
				record.Headers = append(record.Headers,
					records.Header{Name: string(header.Key), Value: header.Value})
			}
			records.Canonical(output, message.Offset, record)
			position = message.Offset + 1
		case err := <-partition.Errors():
			return err
		case <-silence.C:
			return fmt.Errorf("nothing more after offset %d of %d", position, end)
		}
	}
	if err := output.Flush(); err != nil {
		return err
	}
	return file.Close()
}
