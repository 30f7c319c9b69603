// Package records has the records every client writes, the text every client prints and the one
// command line of all clients: see ../../README.md. It knows no Kafka client.
package records

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

const timestampMsBase = 1_600_000_000_000

// Silence is how long a consumer may get nothing while records are missing.
const Silence = 30 * time.Second

// Header is one header; a nil Value is null.
type Header struct {
	Name  string
	Value []byte
}

// Record is what is written; a nil Key or Value is null.
type Record struct {
	Key, Value  []byte
	Headers     []Header
	TimestampMs int64
}

// Options is the command line.
type Options struct {
	Action, Bootstrap, Topic, Codec, Acks, Input, Output string
	Partition                                            int32
	Group, Protocol, Assignor, InstanceID                string
	SessionMs                                            int
}

// Main parses the command line, runs what it asks for and ends the process.
func Main(client string, produce, consume, join func(Options) error) {
	if len(os.Args) < 2 {
		fmt.Fprintf(os.Stderr, "usage: %s produce|consume|join --bootstrap HOST:PORT …\n", client)
		os.Exit(2)
	}
	options := Options{Action: os.Args[1]}
	flags := flag.NewFlagSet(client, flag.ExitOnError)
	flags.StringVar(&options.Bootstrap, "bootstrap", "", "HOST:PORT")
	flags.StringVar(&options.Topic, "topic", "", "topic")
	partition := flags.Int("partition", 0, "partition")
	flags.StringVar(&options.Codec, "codec", "none", "none, gzip, snappy, lz4 or zstd")
	flags.StringVar(&options.Acks, "acks", "all", "all, 1 or 0")
	flags.StringVar(&options.Input, "input", "", "file to produce")
	flags.StringVar(&options.Output, "output", "", "file to write consumed records to")
	flags.StringVar(&options.Group, "group", "", "group")
	flags.StringVar(&options.Protocol, "protocol", "classic", "classic or consumer")
	flags.StringVar(&options.Assignor, "assignor", "", "the client's or, with protocol consumer, the broker's")
	flags.StringVar(&options.InstanceID, "instance-id", "", "identity of a static member")
	flags.IntVar(&options.SessionMs, "session-ms", 30_000, "session timeout of the classic protocol")
	_ = flags.Parse(os.Args[2:]) // ExitOnError: it does not return one
	options.Partition = int32(*partition)
	run := map[string]func(Options) error{"produce": produce, "consume": consume, "join": join}[options.Action]
	if run == nil {
		fmt.Fprintf(os.Stderr, "%s: no action %q\n", client, options.Action)
		os.Exit(2)
	}
	if err := run(options); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", client, err)
		os.Exit(1)
	}
}

// Each calls f with one record for each line of the file, numbered from 1.
func Each(path string, f func(Record) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	for number := int64(1); ; number++ {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		} else if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		text := strconv.AppendInt(nil, number, 10)
		record := Record{
			Key:         text,
			Value:       bytes.TrimSuffix(line, []byte("\n")),
			Headers:     []Header{{"line", text}, {"empty", []byte{}}, {"none", nil}},
			TimestampMs: timestampMsBase + number,
		}
		if number%1000 == 500 {
			record.Key = nil
		}
		if number%1000 == 0 {
			record.Value = nil
		}
		if err := f(record); err != nil {
			return err
		}
	}
}

// Canonical writes one consumed record as one line.
func Canonical(output *bufio.Writer, offset int64, record Record) {
	fmt.Fprintf(output, "%d\t%d\t%d\t%s\t", offset, record.TimestampMs, length(record.Key), record.Key)
	for i, header := range record.Headers {
		if i > 0 {
			output.WriteByte(',')
		}
		content := header.Value
		if content == nil {
			content = []byte("NULL")
		}
		fmt.Fprintf(output, "%s=%s", header.Name, content)
	}
	fmt.Fprintf(output, "\t%d\t%s\n", length(record.Value), record.Value)
}

func length(content []byte) int {
	if content == nil {
		return -1
	}
	return len(content)
}
